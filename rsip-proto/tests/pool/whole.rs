//! Whole addresses (RSA-IP), and addresses that may be both.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rsip_proto::lease::Leased;
use rsip_proto::pool::{Grant, LeaseError, Pool, PoolConfig, PoolFault, WholeUse, Wish};
use rsip_proto::wire::Ports;

use crate::*;

const THIRD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

fn whole(address: Ipv4Addr) -> Grant {
    Grant { address, leased: Leased::Address }
}

/// The first address by port, the second whole.
fn apart() -> Pool {
    Pool::new(&PoolConfig { addresses: vec![FIRST], whole: vec![SECOND], ..config() }).expect("a good pool")
}

/// The first address by port, the second both, the third whole; the second is the first to be tried.
fn mixed() -> Pool {
    Pool::new(&PoolConfig { whole: vec![SECOND, THIRD], ..config() }).expect("a good pool")
}

fn whole_use(pool: &Pool, now: Instant) -> Vec<WholeUse> {
    pool.usage(now).map(|usage| usage.whole).collect()
}

#[test]
fn each_address_is_leased_only_as_it_is_configured() {
    let now = Instant::now();
    let mut pool = apart();
    assert_eq!(pool.offer(Wish::Any(3), Some(SECOND), None, now), Err(LeaseError::NotShared(SECOND)));
    assert_eq!(pool.offer(Wish::Named(&[80]), Some(SECOND), None, now), Err(LeaseError::NotShared(SECOND)));
    assert_eq!(pool.offer(Wish::Whole, Some(FIRST), None, now), Err(LeaseError::NotWhole(FIRST)));
    assert_eq!(pool.offer(Wish::Whole, Some(THIRD), None, now), Err(LeaseError::NotInPool(THIRD)));
    assert_eq!(pool.offer(Wish::Whole, None, Some(FIRST), now), Ok(whole(SECOND)), "preferred, but not so");
    assert_eq!(lease(&mut pool, Wish::Whole, 1, now), Ok(whole(SECOND)));
    // It is held whole, but that is nobody's business who cannot have ports of it anyway.
    assert_eq!(pool.offer(Wish::Any(3), Some(SECOND), None, now), Err(LeaseError::NotShared(SECOND)));
    assert_eq!(pool.holder(SECOND, 80), Some(holder(1)));
    assert_eq!(pool.holder(SECOND, 65_535), Some(holder(1)));
    assert_eq!(pool.holder(FIRST, 80), None);
}

#[test]
fn says_when_no_address_can_be_had_whole() {
    let now = Instant::now();
    let mut none = Pool::new(&config()).expect("a good pool");
    assert_eq!(none.offer(Wish::Whole, None, None, now), Err(LeaseError::NoWholeAddress));
    let mut pool = apart();
    lease(&mut pool, Wish::Whole, 1, now).expect("free");
    // Whatever is asked for.
    for address in [None, Some(FIRST), Some(SECOND), Some(THIRD)] {
        assert_eq!(
            pool.offer(Wish::Whole, address, None, now),
            Err(LeaseError::NoWholeAddress),
            "{address:?}"
        );
    }
    pool.release(&whole(SECOND), holder(1), now).expect("held");
    assert_eq!(pool.offer(Wish::Whole, None, None, now), Ok(whole(SECOND)), "resting is better than none");
}

#[test]
fn while_ports_are_held_the_address_is_not_leased_whole() {
    let now = Instant::now();
    let mut pool = mixed();
    let port = pool.offer(Wish::Named(&[80]), Some(SECOND), None, now).expect("free");
    pool.take(&port, holder(1)).expect("a fresh offer");
    assert_eq!(pool.offer(Wish::Whole, Some(SECOND), None, now), Err(LeaseError::AddressInUse(SECOND)));
    assert_eq!(whole_use(&pool, now), [WholeUse::Never, WholeUse::Shared, WholeUse::Free]);
    assert_eq!(lease(&mut pool, Wish::Whole, 2, now), Ok(whole(THIRD)), "the next one");
    assert_eq!(pool.offer(Wish::Whole, None, None, now), Err(LeaseError::NoWholeAddress));
    pool.release(&port, holder(1), now).expect("held");
    assert_eq!(whole_use(&pool, now), [WholeUse::Never, WholeUse::Resting, WholeUse::Leased]);
    assert_eq!(
        lease(&mut pool, Wish::Whole, 3, now),
        Ok(whole(SECOND)),
        "the last of its ports is given back"
    );
}

#[test]
fn while_an_address_is_leased_whole_nobody_gets_ports_of_it() {
    let now = Instant::now();
    let mut pool = mixed();
    let second = pool.offer(Wish::Whole, Some(SECOND), None, now).expect("free");
    pool.take(&second, holder(1)).expect("a fresh offer");
    for wish in [Wish::Any(1), Wish::Named(&[80]), Wish::Named(&[5])] {
        let error = pool.offer(wish, Some(SECOND), None, now);
        assert_eq!(error, Err(LeaseError::AddressInUse(SECOND)), "{wish:?}");
    }
    // Elsewhere there are some, even for whoever would rather have them here.
    assert_eq!(pool.offer(Wish::Named(&[80]), None, Some(SECOND), now), Ok(grant(FIRST, Ports::single(80))));
    lease(&mut pool, Wish::Named(&[80]), 2, now).expect("free");
    assert_eq!(pool.offer(Wish::Named(&[80]), None, None, now), Err(LeaseError::InUse(80)));
    let usage = pool.usage(now).nth(1).expect("three addresses");
    assert_eq!((usage.leasable, usage.leased, usage.resting, usage.free), (18, 18, 0, 0));
    assert_eq!(usage.whole, WholeUse::Leased);
}

#[test]
fn no_port_is_left_where_every_shared_address_is_leased_whole() {
    let now = Instant::now();
    let only = PoolConfig { addresses: vec![FIRST], whole: vec![FIRST], ..config() };
    let mut pool = Pool::new(&only).expect("a good pool");
    assert_eq!(lease(&mut pool, Wish::Whole, 1, now), Ok(whole(FIRST)));
    for wish in [Wish::Any(1), Wish::Named(&[80]), Wish::Named(&[5])] {
        assert_eq!(pool.offer(wish, None, None, now), Err(LeaseError::Exhausted), "{wish:?}");
        assert_eq!(pool.offer(wish, Some(FIRST), None, now), Err(LeaseError::Exhausted), "{wish:?}");
    }
}

#[test]
fn what_cannot_be_had_by_port_is_leased_whole_first() {
    let now = Instant::now();
    let mut pool = mixed();
    assert_eq!(lease(&mut pool, Wish::Whole, 1, now), Ok(whole(THIRD)));
    assert_eq!(lease(&mut pool, Wish::Whole, 2, now), Ok(whole(SECOND)));
}

#[test]
fn what_has_rested_is_leased_whole_before_what_cannot_be_had_by_port() {
    let now = Instant::now();
    let mut pool = mixed();
    assert_eq!(lease(&mut pool, Wish::Whole, 1, now), Ok(whole(THIRD)));
    pool.release(&whole(THIRD), holder(1), now).expect("held");
    assert_eq!(pool.offer(Wish::Whole, None, None, now), Ok(whole(SECOND)));
    assert_eq!(pool.offer(Wish::Whole, None, None, now + REST), Ok(whole(THIRD)));
}

#[test]
fn a_whole_address_rests_with_all_its_ports() {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let mut pool = mixed();
    let taken = pool.offer(Wish::Whole, Some(SECOND), None, now).expect("free");
    pool.take(&taken, holder(1)).expect("a fresh offer");
    pool.release(&taken, holder(1), now).expect("held");
    let usage = pool.usage(now).nth(1).expect("three addresses");
    assert_eq!((usage.leased, usage.resting, usage.free), (0, 18, 0));
    // Neither whole nor by port the gateway chooses it, until the rest is over or nothing else is left.
    assert_eq!(pool.offer(Wish::Whole, None, None, now), Ok(whole(THIRD)));
    assert_eq!(pool.offer(Wish::Any(2), None, Some(SECOND), now).map(|offer| offer.address), Ok(FIRST));
    lease(&mut pool, Wish::Any(5), 2, now).expect("free");
    lease(&mut pool, Wish::Any(4), 3, now).expect("free");
    let scarce = pool.offer(Wish::Any(2), None, None, now);
    assert_eq!(scarce, Ok(grant(SECOND, Ports::Range { first: 10_000, count: 2 })));
    // By name it is given at once.
    assert_eq!(pool.offer(Wish::Named(&[80]), Some(SECOND), None, now), Ok(grant(SECOND, Ports::single(80))));
    assert_eq!(pool.offer(Wish::Whole, Some(SECOND), None, now), Ok(whole(SECOND)));
    // To the one who had it too: his own late packets do him no harm.
    assert_eq!(pool.offer(Wish::Whole, None, Some(SECOND), now + second), Ok(whole(SECOND)));
    assert_eq!(whole_use(&pool, now + REST - second)[1], WholeUse::Resting);
    assert_eq!(whole_use(&pool, now + REST)[1], WholeUse::Free);
    let rested = pool.offer(Wish::Any(5), None, None, now + REST);
    assert_eq!(rested, Ok(grant(SECOND, Ports::Range { first: 10_000, count: 5 })));
}

#[test]
fn of_resting_addresses_the_one_that_rested_longest_comes_first() {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let both = PoolConfig { addresses: vec![FIRST], whole: vec![SECOND, THIRD], ..config() };
    let mut pool = Pool::new(&both).expect("a good pool");
    assert_eq!(lease(&mut pool, Wish::Whole, 1, now), Ok(whole(SECOND)));
    assert_eq!(lease(&mut pool, Wish::Whole, 2, now), Ok(whole(THIRD)));
    pool.release(&whole(THIRD), holder(2), now).expect("held");
    pool.release(&whole(SECOND), holder(1), now + second).expect("held");
    assert_eq!(lease(&mut pool, Wish::Whole, 3, now + 2 * second), Ok(whole(THIRD)));
    assert_eq!(lease(&mut pool, Wish::Whole, 4, now + 2 * second), Ok(whole(SECOND)));
}

#[test]
fn a_whole_address_that_was_never_used_does_not_rest() {
    let now = Instant::now();
    let mut pool = mixed();
    let taken = lease(&mut pool, Wish::Whole, 1, now).expect("free");
    pool.cancel(&taken, holder(1)).expect("held");
    assert_eq!(whole_use(&pool, now), [WholeUse::Never, WholeUse::Free, WholeUse::Free]);
}

/// The allocator's own assertion, for whole addresses: in both directions.
#[test]
fn contradictions_about_whole_addresses_are_reported_and_change_nothing() {
    let now = Instant::now();
    let mut pool = mixed();
    assert_eq!(pool.take(&whole(FIRST), holder(1)), Err(PoolFault::NeverWhole(FIRST)));
    let port = grant(SECOND, Ports::single(80));
    pool.take(&port, holder(1)).expect("free");
    let held = PoolFault::PortsHeld { address: SECOND, held: 1, wanted: holder(2) };
    assert_eq!(pool.take(&whole(SECOND), holder(2)), Err(held));
    assert!(pool.take(&whole(SECOND), holder(1)).is_err(), "not even by the port's holder");
    assert_eq!(pool.holder(SECOND, 81), None);

    pool.take(&whole(THIRD), holder(3)).expect("free");
    let held = PoolFault::HeldWhole { address: THIRD, holder: holder(3), wanted: holder(2) };
    assert_eq!(pool.take(&whole(THIRD), holder(2)), Err(held));
    assert_eq!(pool.take(&grant(THIRD, Ports::single(80)), holder(2)), Err(held));
    let not_yours = PoolFault::NotTheWholeHolder { address: THIRD, holder: Some(holder(3)), by: holder(2) };
    assert_eq!(pool.release(&whole(THIRD), holder(2), now), Err(not_yours));
    // A port of it cannot be given back by itself, nor a port's address whole.
    assert!(pool.release(&grant(THIRD, Ports::single(80)), holder(3), now).is_err());
    let nobodys = PoolFault::NotTheWholeHolder { address: SECOND, holder: None, by: holder(1) };
    assert_eq!(pool.release(&whole(SECOND), holder(1), now), Err(nobodys));
    assert_eq!((pool.holder(SECOND, 80), pool.holder(THIRD, 80)), (Some(holder(1)), Some(holder(3))));
}
