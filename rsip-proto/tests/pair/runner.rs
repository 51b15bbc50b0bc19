//! Runs seeds, as many at a time as there are processors.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::SEEDS;
use crate::node::Tally;
use crate::plan::{Plan, Sabotage};
use crate::world::World;

/// What went wrong in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) seed: u64,
    plan: String,
    what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, plan, what } = self;
        write!(f, "failed with RSIP_PAIR_SEED={seed} ({plan}): {what}")
    }
}

/// What many seeds came to.
pub(crate) struct Report {
    pub(crate) seeds: u64,
    pub(crate) tally: BTreeMap<&'static str, u64>,
    /// Of the smallest seed that failed.
    pub(crate) failure: Option<Failure>,
}

/// The seeds that the environment asks for.
pub(crate) fn run_seeds(sabotage: Sabotage) -> Report {
    let (first, seeds) = match setting("RSIP_PAIR_SEED") {
        Some(seed) => (seed, 1),
        None => (0, setting("RSIP_PAIR_SEEDS").unwrap_or(SEEDS)),
    };
    let next = AtomicU64::new(first);
    let outcome = Mutex::new((Tally::default(), None::<Failure>));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                return;
            }
            let result = run_seed(seed, sabotage);
            let mut outcome = outcome.lock().expect("no run ends with the lock held");
            match result {
                Ok(tally) => outcome.0.add(&tally),
                Err(failure) => {
                    eprintln!("{failure}");
                    // No more are begun; those under way may find a smaller one.
                    next.store(first + seeds, Ordering::Relaxed);
                    if outcome.1.as_ref().is_none_or(|before| failure.seed < before.seed) {
                        outcome.1 = Some(failure);
                    }
                }
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    let (tally, failure) = outcome.into_inner().expect("no run ends with the lock held");
    Report { seeds, tally: tally.0, failure }
}

/// One seed, from the first message to the last.
pub(crate) fn run_seed(seed: u64, sabotage: Sabotage) -> Result<Tally, Failure> {
    let plan = Plan::of(seed, sabotage);
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(plan, seed);
        world.tally.count(plan.terms.name());
        world.trouble();
        world.calm_down();
        world.check_agreement();
        world.leave();
        world.check_nothing_left();
        world.tally
    }));
    outcome.map_err(|panic| {
        let what = match panic.downcast::<String>() {
            Ok(what) => *what,
            Err(panic) => {
                panic.downcast::<&str>().map_or_else(|_| "it panics".to_owned(), |it| (*it).to_owned())
            }
        };
        Failure { seed, plan: format!("{plan:?}"), what }
    })
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
