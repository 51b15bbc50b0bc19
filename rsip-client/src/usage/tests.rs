//! Dialogues with virtual time.

use proptest::prelude::*;

use super::*;

const LINGER: Duration = Duration::from_secs(3);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A usage that watches port 80 since `start`.
fn tracking(start: Instant) -> Usage {
    let mut usage = Usage::new(LINGER, start);
    usage.track(80, start);
    usage
}

#[test]
fn gives_back_after_linger_and_grace() {
    let t = Instant::now();
    let mut usage = tracking(t);
    assert_eq!(usage.observe(t + ms(10), |_| true), []);
    assert_eq!(usage.observe(t + ms(1_000), |_| false), [], "the linger time begins");
    assert_eq!(usage.observe(t + ms(3_999), |_| false), []);
    assert_eq!(usage.observe(t + ms(4_000), |_| false), [Action::Close(80)]);
    assert_eq!(usage.poll_timeout(), Some(t + ms(4_100)));
    assert_eq!(usage.observe(t + ms(4_050), |_| false), []);
    assert_eq!(usage.observe(t + ms(4_100), |_| false), [Action::Release(80)]);
    assert_eq!(usage.poll_timeout(), None);
}

#[test]
fn gives_back_what_was_granted_and_never_bound() {
    let t = Instant::now();
    let mut usage = tracking(t);
    assert_eq!(usage.observe(t + LINGER, |_| false), [Action::Close(80)]);
    assert_eq!(usage.observe(t + LINGER + GRACE, |_| false), [Action::Release(80)]);
}

#[test]
fn a_bind_that_slipped_through_keeps_the_port() {
    let t = Instant::now();
    let mut usage = tracking(t);
    assert_eq!(usage.observe(t + LINGER, |_| false), [Action::Close(80)]);
    assert_eq!(usage.observe(t + LINGER + ms(50), |_| true), [Action::Reopen(80)]);
    assert_eq!(usage.observe(t + LINGER + GRACE, |_| true), []);
    assert!(usage.tracks(80));
}

#[test]
fn a_program_that_asks_while_it_is_closed_gets_it_back() {
    let t = Instant::now();
    let mut usage = tracking(t);
    assert_eq!(usage.observe(t + LINGER, |_| false), [Action::Close(80)]);
    assert!(usage.wanted(80, t + LINGER + ms(10)));
    assert_eq!(usage.observe(t + LINGER + GRACE, |_| false), [], "the linger time began anew");
    assert!(!usage.wanted(81, t), "not held");
}

#[test]
fn a_short_use_between_two_looks_begins_the_linger_time_anew() {
    let t = Instant::now();
    let mut usage = tracking(t);
    usage.released(80, t + ms(2_900));
    assert_eq!(usage.observe(t + ms(3_100), |_| false), []);
    assert_eq!(usage.observe(t + ms(5_900), |_| false), [Action::Close(80)]);
}

#[test]
fn an_event_makes_the_next_look_sooner() {
    let t = Instant::now();
    let mut usage = tracking(t);
    assert_eq!(usage.observe(t + ms(800), |_| true), []);
    usage.released(80, t + ms(900));
    assert_eq!(usage.poll_timeout(), Some(t + ms(900)));
}

#[test]
fn a_lost_event_delays_by_one_tick_at_most() {
    let t = Instant::now();
    let mut usage = tracking(t);
    assert_eq!(usage.observe(t + ms(800), |_| true), []);
    let next = usage.poll_timeout().expect("there is a port");
    assert!(next <= t + ms(800) + LINGER / 4);
}

proptest! {
    /// Whatever happens: no port is given back that was used within the linger time before, and one that nobody uses
    /// is given back once.
    #[test]
    fn never_gives_back_what_is_used(steps in prop::collection::vec((0_u64..2_000, any::<bool>()), 1..60)) {
        let start = Instant::now();
        let mut usage = tracking(start);
        let mut now = start;
        let mut last_used = start;
        let mut released = 0;
        for (pause, used) in steps {
            now += ms(pause);
            if used {
                last_used = now;
            }
            for action in usage.observe(now, |_| used) {
                match action {
                    Action::Release(_) => {
                        released += 1;
                        prop_assert!(!used);
                        prop_assert!(now >= last_used + LINGER + GRACE);
                    }
                    Action::Close(_) => prop_assert!(!used && now >= last_used + LINGER),
                    Action::Reopen(_) => prop_assert!(used),
                }
            }
        }
        // From here on nobody uses it: looking whenever it asks to be looked at ends with a release.
        while let Some(next) = usage.poll_timeout() {
            now = now.max(next);
            released += usage.observe(now, |_| false).iter().filter(|a| matches!(a, Action::Release(_))).count();
        }
        prop_assert_eq!(released, 1);
    }
}

#[test]
fn the_count_is_proved_now_and_then() {
    let t = Instant::now();
    let mut usage = tracking(t);
    assert!(usage.is_proof_due(t), "the first time");
    assert!(!usage.is_proof_due(t + ms(100)));
    assert!(!usage.is_proof_due(t + ms(8_900)));
    assert!(usage.is_proof_due(t + ms(9_000)), "twelve looks later");
    assert!(!usage.is_proof_due(t + ms(9_100)));
}
