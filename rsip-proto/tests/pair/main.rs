//! Gateway and hosts wired together, with virtual time, over a network that loses, duplicates, delays and reorders.
//!
//! Everything that happens comes from a seed, also what the run is about; a failure names it. Run one seed with
//! `RSIP_PAIR_SEED=n` (and `RSIP_PAIR_TRACE=1` to see its course), another number of seeds with `RSIP_PAIR_SEEDS=n`.

mod checks;
mod gate;
mod net;
mod node;
mod plan;
mod runner;
mod trouble;
mod world;

use plan::{Plan, Sabotage, Terms};

/// Seeds of a normal run.
const SEEDS: u64 = 10_000;

/// A run in which these do not happen often proves nothing: at least so many in a thousand seeds.
const MUST_HAPPEN: &[(&str, u64)] = &[
    ("agent killed", 1000),
    ("agent killed, and its state lost", 500),
    ("binding taken back", 500),
    ("complaint", 1000),
    ("connection broken", 1000),
    ("data path failed", 1000),
    ("datagram duplicated", 1000),
    ("datagram lost", 1000),
    ("datagrams reordered", 1000),
    ("denied: gateway", 1000),
    ("denied: install failed", 100),
    ("denied: timeout", 100),
    ("denied: unreachable", 100),
    ("gateway killed", 300),
    ("granted", 1000),
    ("host sent away", 200),
    ("local networks told", 1000),
    ("outage", 1000),
    ("published: address", 500),
    ("published: block", 1000),
    ("published: for an address", 500),
    ("published: for an address and port", 500),
    ("published: listen", 1000),
    ("published: static", 300),
    ("registered", 1000),
    ("registration lost", 500),
    ("registration refused", 1),
    ("renamed", 300),
    ("unreachable", 1000),
    ("withdrawn: deregistered", 100),
    ("withdrawn: expired", 50),
    ("withdrawn: freed", 1000),
    ("withdrawn: lost", 20),
    ("withdrawn: revoked", 100),
    ("withdrawn: shutdown", 1000),
];

#[test]
fn no_two_hold_one_port_and_all_agree_after_quiet_in_ten_thousand_seeds() {
    let report = runner::run_seeds(Sabotage::None);
    eprintln!("{:?}", report.tally);
    assert_eq!(report.failure, None);
    if report.seeds < 1000 {
        return;
    }
    for (what, in_thousand) in MUST_HAPPEN {
        let seen = report.tally.get(*what).copied().unwrap_or(0);
        let least = report.seeds * in_thousand / 1000;
        assert!(seen >= least, "{what}: {seen} times in {} seeds, {least} expected", report.seeds);
    }
    for terms in Terms::ALL {
        let seen = report.tally.get(terms.name()).copied().unwrap_or(0);
        assert!(seen >= report.seeds / 7, "{terms:?}: {seen} of {} seeds", report.seeds);
    }
}

/// The first seed in which this fault shows, and what is said about it.
fn found(sabotage: Sabotage) -> runner::Failure {
    (0..200).find_map(|seed| runner::run_seed(seed, sabotage).err()).expect("found in 200 seeds")
}

#[test]
fn a_fault_is_found_and_its_seed_named_and_replayed() {
    for (sabotage, said) in [
        (Sabotage::PathSurvives, "has an owner"),
        (Sabotage::DeafShell, "its shell"),
        (Sabotage::PathLies, "taken from its owner"),
    ] {
        let failure = found(sabotage);
        let told = failure.to_string();
        assert!(told.contains(&format!("RSIP_PAIR_SEED={} ", failure.seed)), "{told}");
        assert!(told.contains(said), "{sabotage:?}: {told}");
        let again = runner::run_seed(failure.seed, sabotage).expect_err("it fails again");
        assert_eq!(again, failure, "the same course, the same end");
        let plan = Plan::of(failure.seed, Sabotage::None);
        assert!(runner::run_seed(failure.seed, Sabotage::None).is_ok(), "without the fault: {plan:?}");
    }
}
