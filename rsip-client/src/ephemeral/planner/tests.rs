use proptest::prelude::*;

use super::*;

const LINGER: Duration = Duration::from_secs(30);

fn name(number: u32) -> Name {
    (ClientId(1), BindId(number))
}

/// Blocks of ten, named 1, 2, ….
fn blocks(used: &[usize]) -> Vec<Block> {
    used.iter().zip(1..).map(|(&used, number)| Block { name: name(number), size: 10, used }).collect()
}

fn look(used: &[usize], need: usize) -> Look {
    Look { blocks: blocks(used), need, pending: false }
}

fn planner() -> Planner {
    Planner::new(Blocks { size: 10, first: 1, most: 4 }, LINGER)
}

#[test]
fn more_is_asked_for_before_the_last_port_is_in_use() {
    for (need, steps) in [(0, vec![]), (7, vec![]), (8, vec![Step::Lease]), (10, vec![Step::Lease])] {
        assert_eq!(planner().look(Instant::now(), &look(&[10], need)), steps, "{need} of 10");
        assert_eq!(planner().press(&look(&[10], need)), steps, "{need} of 10");
    }
    let asked = Look { pending: true, ..look(&[10], 10) };
    assert_eq!(planner().press(&asked), [], "one at a time");
    assert_eq!(planner().press(&look(&[10; 4], 40)), [], "as many as are allowed");
    assert!(Planner::is_scarce(1, 1) && !Planner::is_scarce(1, 0), "one port at a time");
}

#[test]
fn what_serves_many_peers_is_not_scarce() {
    // Every port has connections, but the busiest peer has few of them.
    assert_eq!(planner().look(Instant::now(), &look(&[10], 3)), []);
}

#[test]
fn a_block_goes_when_use_was_low_for_the_linger_time_and_nobody_has_a_port_of_it() {
    let (mut planner, t) = (planner(), Instant::now());
    let low = look(&[3, 1, 0], 4);
    assert_eq!(planner.look(t, &low), []);
    assert_eq!(planner.level(), Level::Plenty);
    assert_eq!(planner.look(t + LINGER - GRACE, &low), []);
    let reserved = t + LINGER;
    assert_eq!(planner.look(reserved, &low), [Step::Reserve(name(3)), Step::Reserve(name(2))]);
    assert!(planner.is_reserved(name(3)) && !planner.is_reserved(name(1)));
    let mut after = |graces: u32, used: &[usize]| planner.look(reserved + GRACE * graces, &look(used, 3));
    assert_eq!(after(0, &[3, 1, 0]), [], "somebody may have chosen a port just before");
    assert_eq!(after(1, &[3, 1, 1]), [], "and so it was");
    assert_eq!(after(2, &[3, 1, 0]), [Step::Close(name(3))]);
    assert_eq!(after(2, &[3, 1, 0]), [], "somebody may have bound one just before");
    assert_eq!(after(3, &[3, 1, 1]), [Step::Keep(name(3))], "and so it was");
    assert_eq!(after(4, &[3, 1, 0]), [Step::Close(name(3))]);
    assert_eq!(after(5, &[3, 1, 0]), [Step::Return(name(3))]);
    assert_eq!(after(600, &[3, 1]), [], "in use as long as it takes");
    assert_eq!(after(900, &[3, 0]), [Step::Close(name(2))]);
    assert_eq!(after(901, &[3, 0]), [Step::Return(name(2))]);
    assert_eq!(after(9000, &[0]), [], "the last one stays");
}

#[test]
fn a_short_rise_begins_the_linger_time_anew() {
    let (mut planner, t) = (planner(), Instant::now());
    assert_eq!(planner.look(t, &look(&[1, 0], 1)), []);
    assert_eq!(planner.look(t + LINGER / 2, &look(&[5, 1], 6)), []);
    assert_eq!(planner.look(t + LINGER, &look(&[1, 0], 1)), []);
    assert_eq!(planner.look(t + LINGER * 2, &look(&[1, 0], 1)), [Step::Reserve(name(2))]);
}

#[test]
fn what_is_in_reserve_is_taken_up_before_more_is_asked_for() {
    let (mut planner, t) = (planner(), Instant::now());
    let low = look(&[2, 1, 1], 2);
    planner.look(t, &low);
    assert_eq!(planner.look(t + LINGER, &low).len(), 2);
    assert_eq!(planner.press(&look(&[8, 1, 2], 8)), [Step::Open(name(3))]);
    assert_eq!(planner.press(&look(&[10, 1, 10], 20)), [Step::Open(name(2))]);
    assert_eq!(planner.press(&look(&[10, 10, 10], 30)), [Step::Lease]);
}

#[test]
fn a_wish_that_is_refused_ends_when_use_falls() {
    let mut planner = planner();
    let refused = |need| Look { pending: true, ..look(&[10], need) };
    assert_eq!(planner.look(Instant::now(), &refused(9)), []);
    assert_eq!(planner.look(Instant::now(), &refused(6)), [], "it may rise again");
    assert_eq!(planner.look(Instant::now(), &refused(5)), [Step::Forgo]);
}

#[test]
fn a_block_that_ended_otherwise_is_forgotten() {
    let (mut planner, t) = (planner(), Instant::now());
    planner.look(t, &look(&[0, 0], 0));
    assert_eq!(planner.look(t + LINGER, &look(&[0, 0], 0)), [Step::Reserve(name(2))]);
    assert_eq!(planner.look(t + LINGER, &look(&[0], 0)), []);
    assert!(!planner.is_reserved(name(2)));
    assert!(!planner.reopen(name(2)));
}

#[test]
fn ports_that_came_one_by_one_go_one_by_one_down_to_a_block() {
    let (mut planner, t) = (planner(), Instant::now());
    let single = |count: u32| Look {
        blocks: (0..count).map(|number| Block { name: name(number), size: 1, used: 0 }).collect(),
        need: 0,
        pending: false,
    };
    planner.look(t, &single(13));
    let steps = planner.look(t + LINGER, &single(13));
    assert_eq!(steps, [12, 11, 10].map(|number| Step::Reserve(name(number))));
}

/// One block of the world: its ports, and how many of them are in use.
#[derive(Clone, Debug)]
struct Real {
    name: Name,
    used: usize,
    reserved_at: Option<Instant>,
    closed_at: Option<Instant>,
}

proptest! {
    /// Use goes up and down in any way: what is given back was reserved, for the grace time at least, and unused; one block
    /// always stays open; no more is leased than allowed; and when use ends for good, one block is left.
    #[test]
    fn nothing_in_use_is_given_back_and_nothing_unused_is_kept(
        turns in prop::collection::vec((0_u64..40_000, prop::collection::vec((any::<prop::sample::Index>(), 0_usize..=10), 0..4)), 1..60),
    ) {
        let (mut planner, mut now) = (planner(), Instant::now());
        let mut world = vec![Real { name: name(0), used: 0, reserved_at: None, closed_at: None }];
        let mut next = 1;
        let last = std::iter::repeat_n((40_000, vec![]), 12);
        let quiet_from = turns.len();
        for (turn, (pause, changes)) in turns.into_iter().chain(last).enumerate() {
            now += Duration::from_millis(pause);
            for (at, used) in changes {
                let at = at.index(world.len());
                let real = &mut world[at];
                // Closed, use can only fall, except for who bound just before.
                let late = real.closed_at.is_none_or(|since| now < since + GRACE);
                real.used = if late { used } else { used.min(real.used) };
            }
            if turn >= quiet_from {
                world.iter_mut().for_each(|real| real.used = 0);
            }
            let need = world.iter().filter(|real| real.reserved_at.is_none()).map(|real| real.used).sum();
            let blocks = world.iter().map(|real| Block { name: real.name, size: 10, used: real.used }).collect();
            for step in planner.look(now, &Look { blocks, need, pending: false }) {
                let find = |wanted: Name| world.iter().position(|real| real.name == wanted).expect("it is there");
                match step {
                    Step::Lease => {
                        prop_assert!(world.len() < 4);
                        world.push(Real { name: name(next), used: 0, reserved_at: None, closed_at: None });
                        next += 1;
                    }
                    Step::Forgo => prop_assert!(false, "nothing is pending"),
                    Step::Reserve(name) => {
                        let at = find(name);
                        prop_assert!(world[at].reserved_at.is_none());
                        world[at].reserved_at = Some(now);
                    }
                    Step::Close(name) | Step::Keep(name) => {
                        let at = find(name);
                        prop_assert!(world[at].reserved_at.is_some_and(|since| now >= since + GRACE));
                        world[at].closed_at = matches!(step, Step::Close(_)).then_some(now);
                    }
                    Step::Open(name) => {
                        let at = find(name);
                        prop_assert!(world[at].reserved_at.is_some());
                        world[at].reserved_at = None;
                        world[at].closed_at = None;
                    }
                    Step::Return(name) => {
                        let gone = world.remove(find(name));
                        prop_assert!(gone.used == 0 && gone.closed_at.is_some_and(|since| now >= since + GRACE));
                    }
                }
            }
            prop_assert!(world.iter().any(|real| real.reserved_at.is_none()));
        }
        prop_assert_eq!(world.len(), 1);
    }
}
