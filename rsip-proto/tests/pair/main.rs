//! Gateway and hosts wired together, with virtual time, over a network that loses, duplicates, delays and reorders.
//!
//! Everything that happens comes from a seed; a failure names it. Run one seed with `RSIP_PAIR_SEED=n`, more seeds with
//! `RSIP_PAIR_SEEDS=n`.

mod checks;
mod gate;
mod node;
mod plan;
mod trouble;
mod world;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use plan::{Chaos, Plan};
use rsip_proto::host::HostTransport;
use world::World;

/// Seeds of one scenario in a normal run.
const SEEDS: u64 = 40;

/// A run in which these do not happen proves nothing.
const MUST_HAPPEN: &[&str] = &[
    "granted",
    "denied: gateway",
    "denied: timeout",
    "denied: unreachable",
    "denied: install failed",
    "unreachable",
    "withdrawn: freed",
    "withdrawn: expired",
    "withdrawn: shutdown",
];
const MUST_HAPPEN_WITH_A_BAD_GATEWAY: &[&str] =
    &["registration lost", "renamed", "withdrawn: lost", "withdrawn: revoked"];

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn run(transport: HostTransport, chaos: Chaos) {
    let seeds: Vec<u64> = match setting("RSIP_PAIR_SEED") {
        Some(seed) => vec![seed],
        None => (0..setting("RSIP_PAIR_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let count = seeds.len() as u64;
    let mut tally = BTreeMap::new();
    for seed in seeds {
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            let mut world = World::new(Plan { transport, chaos }, seed);
            world.trouble();
            world.calm_down();
            world.check_agreement();
            world.leave();
            world.check_nothing_left();
            world.nodes.into_iter().flat_map(|node| node.tally.0).collect::<Vec<_>>()
        }));
        match outcome {
            Ok(counts) => {
                for (what, count) in counts {
                    *tally.entry(what).or_insert(0) += count;
                }
            }
            Err(panic) => {
                eprintln!("failed with RSIP_PAIR_SEED={seed}, {transport:?}, {chaos:?}");
                resume_unwind(panic);
            }
        }
    }
    eprintln!("{tally:?}");
    if count >= SEEDS {
        let must = MUST_HAPPEN.iter().chain(match chaos {
            Chaos::Network | Chaos::Agents => [].iter(),
            Chaos::Gateway => MUST_HAPPEN_WITH_A_BAD_GATEWAY.iter(),
        });
        for what in must {
            assert!(tally.contains_key(what), "no seed made this happen: {what}");
        }
    }
}

#[test]
fn hosts_compete_over_a_bad_datagram_network() {
    run(HostTransport::Udp, Chaos::Network);
}

#[test]
fn hosts_compete_over_connections_that_break() {
    run(HostTransport::Tcp, Chaos::Network);
}

#[test]
fn agents_crash_and_resume_over_udp() {
    run(HostTransport::Udp, Chaos::Agents);
}

#[test]
fn agents_crash_and_resume_over_tcp() {
    run(HostTransport::Tcp, Chaos::Agents);
}

#[test]
fn gateway_restarts_and_takes_back_over_udp() {
    run(HostTransport::Udp, Chaos::Gateway);
}

#[test]
fn gateway_restarts_and_takes_back_over_tcp() {
    run(HostTransport::Tcp, Chaos::Gateway);
}
