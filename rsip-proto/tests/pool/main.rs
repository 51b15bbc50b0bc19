//! The pool from outside: what it gives, what it refuses, and that a port never has two holders.

mod model;
mod whole;

use std::net::Ipv4Addr;
use std::num::NonZeroU64;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rsip_proto::lease::Leased;
use rsip_proto::pool::{Grant, Holder, LeaseError, Pool, PoolConfig, PoolError, PoolFault, Wish};
use rsip_proto::wire::Ports;

pub(crate) const FIRST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const REST: Duration = Duration::from_secs(120);

pub(crate) fn config() -> PoolConfig {
    PoolConfig {
        addresses: vec![FIRST, SECOND],
        whole: Vec::new(),
        port_range: 10_000..=10_009,
        listen_range: 80..=89,
        reserved: vec![81, 10_005],
        rest: REST,
    }
}

fn pool() -> Pool {
    Pool::new(&config()).expect("a good pool")
}

pub(crate) fn holder(number: u64) -> Holder {
    Holder(NonZeroU64::new(number).expect("not 0"))
}

pub(crate) fn grant(address: Ipv4Addr, ports: Ports) -> Grant {
    Grant { address, leased: ports.into() }
}

/// Offers and takes at once.
pub(crate) fn lease(pool: &mut Pool, wish: Wish<'_>, number: u64, now: Instant) -> Result<Grant, LeaseError> {
    let offer = pool.offer(wish, None, None, now)?;
    pool.take(&offer, holder(number)).expect("an offer can be taken");
    Ok(offer)
}

#[test]
fn refuses_settings_that_make_no_sense() {
    let reversed = || RangeInclusive::new(20, 10);
    let unusable = |option, address| PoolError::Unusable { option, address };
    let table: [(&str, PoolConfig, PoolError); 12] = [
        ("no address", PoolConfig { addresses: Vec::new(), ..config() }, PoolError::NoAddress),
        (
            "0.0.0.0",
            PoolConfig { addresses: vec![Ipv4Addr::UNSPECIFIED], ..config() },
            unusable("POOL", Ipv4Addr::UNSPECIFIED),
        ),
        (
            "multicast",
            PoolConfig { addresses: vec![FIRST, Ipv4Addr::new(224, 0, 0, 1)], ..config() },
            unusable("POOL", Ipv4Addr::new(224, 0, 0, 1)),
        ),
        (
            "broadcast",
            PoolConfig { addresses: vec![Ipv4Addr::BROADCAST], ..config() },
            unusable("POOL", Ipv4Addr::BROADCAST),
        ),
        (
            "loopback",
            PoolConfig { addresses: vec![Ipv4Addr::LOCALHOST], ..config() },
            unusable("POOL", Ipv4Addr::LOCALHOST),
        ),
        (
            "twice",
            PoolConfig { addresses: vec![FIRST, SECOND, FIRST], ..config() },
            PoolError::Twice { option: "POOL", address: FIRST },
        ),
        (
            "twice whole",
            PoolConfig { whole: vec![SECOND, SECOND], ..config() },
            PoolError::Twice { option: "RSA_POOL", address: SECOND },
        ),
        (
            "multicast whole",
            PoolConfig { whole: vec![Ipv4Addr::new(239, 0, 0, 1)], ..config() },
            unusable("RSA_POOL", Ipv4Addr::new(239, 0, 0, 1)),
        ),
        (
            "whole addresses only: RSAP-IP is a must",
            PoolConfig { addresses: Vec::new(), whole: vec![SECOND], ..config() },
            PoolError::NoAddress,
        ),
        (
            "reversed PORT_RANGE",
            PoolConfig { port_range: reversed(), ..config() },
            PoolError::Reversed { option: "PORT_RANGE", range: reversed() },
        ),
        (
            "reversed LISTEN_RANGE",
            PoolConfig { listen_range: reversed(), ..config() },
            PoolError::Reversed { option: "LISTEN_RANGE", range: reversed() },
        ),
        (
            "port 0",
            PoolConfig { listen_range: 0..=80, ..config() },
            PoolError::PortZero { option: "LISTEN_RANGE" },
        ),
    ];
    for (what, config, expected) in table {
        assert_eq!(Pool::new(&config).err(), Some(expected), "{what}");
    }
    let all_reserved = PoolConfig { reserved: (10_000..=10_009).collect(), ..config() };
    assert_eq!(Pool::new(&all_reserved).err(), Some(PoolError::NothingLeft));
    let reserved_elsewhere = PoolConfig { reserved: vec![4555, 0, 65_535], ..config() };
    assert_eq!(Pool::new(&reserved_elsewhere).err(), None);
}

#[test]
fn errors_name_the_option() {
    let reversed = PoolConfig { port_range: RangeInclusive::new(20_000, 10_000), ..config() };
    let error = Pool::new(&reversed).err().expect("reversed");
    assert_eq!(error.to_string(), "PORT_RANGE: 20000-10000 ends before it begins");
}

#[test]
fn gives_ports_in_a_row_where_there_are_some() {
    let now = Instant::now();
    let mut pool = pool();
    let row = |first, count| Ports::Range { first, count };
    assert_eq!(lease(&mut pool, Wish::Any(3), 1, now), Ok(grant(FIRST, row(10_000, 3))));
    // 10003 and 10004 are left before the reserved port: too short a row for 3.
    assert_eq!(lease(&mut pool, Wish::Any(3), 2, now), Ok(grant(FIRST, row(10_006, 3))));
    // No row of 3 here, but one at the other address.
    assert_eq!(lease(&mut pool, Wish::Any(3), 3, now), Ok(grant(SECOND, row(10_000, 3))));
    assert_eq!(lease(&mut pool, Wish::Any(3), 4, now), Ok(grant(SECOND, row(10_006, 3))));
    // No row of 3 anywhere: in pieces.
    assert_eq!(
        lease(&mut pool, Wish::Any(3), 5, now),
        Ok(grant(FIRST, Ports::List(vec![10_003, 10_004, 10_009])))
    );
    assert_eq!(lease(&mut pool, Wish::Any(4), 6, now), Err(LeaseError::TooMany(4)));
}

#[test]
fn a_preferred_address_is_worth_more_than_a_row() {
    let now = Instant::now();
    let mut pool = pool();
    lease(&mut pool, Wish::Named(&[10_001]), 1, now).expect("free");
    lease(&mut pool, Wish::Named(&[10_007]), 2, now).expect("free");
    let pieces = pool.offer(Wish::Any(4), None, Some(FIRST), now);
    assert_eq!(pieces, Ok(grant(FIRST, Ports::List(vec![10_000, 10_002, 10_003, 10_004]))));
    let row = pool.offer(Wish::Any(4), None, None, now);
    assert_eq!(row, Ok(grant(SECOND, Ports::Range { first: 10_000, count: 4 })));
    // An address that is preferred but not ours is as good as none.
    assert_eq!(pool.offer(Wish::Any(4), None, Some(Ipv4Addr::LOCALHOST), now), row);
}

#[test]
fn gives_named_ports_of_either_range_but_never_reserved_ones() {
    let now = Instant::now();
    let mut pool = pool();
    assert_eq!(
        lease(&mut pool, Wish::Named(&[80, 10_009]), 1, now),
        Ok(grant(FIRST, Ports::List(vec![80, 10_009])))
    );
    let table: [(&[u16], LeaseError); 7] = [
        (&[81], LeaseError::NotLeasable(81)),
        (&[10_005], LeaseError::NotLeasable(10_005)),
        (&[82, 90], LeaseError::NotLeasable(90)),
        (&[0], LeaseError::NotLeasable(0)),
        (&[82, 82], LeaseError::NotASet),
        (&[], LeaseError::NotASet),
        (&[82, 80], LeaseError::InUse(80)),
    ];
    for (ports, error) in table {
        assert_eq!(pool.offer(Wish::Named(ports), Some(FIRST), None, now), Err(error), "{ports:?}");
    }
    assert_eq!(pool.offer(Wish::Any(0), None, None, now), Err(LeaseError::NotASet));
    assert_eq!(pool.offer(Wish::Any(256), None, None, now), Err(LeaseError::NotASet));
    let elsewhere = Ipv4Addr::new(192, 0, 2, 3);
    assert_eq!(pool.offer(Wish::Any(1), Some(elsewhere), None, now), Err(LeaseError::NotInPool(elsewhere)));
}

#[test]
fn the_gateway_never_chooses_from_the_listen_range() {
    let now = Instant::now();
    let mut pool = pool();
    for number in 1..=18 {
        let granted = lease(&mut pool, Wish::Any(1), number, now).expect("9 at each of two addresses");
        assert!(granted.leased.iter().all(|port| (10_000..=10_009).contains(&port) && port != 10_005));
    }
    assert_eq!(lease(&mut pool, Wish::Any(1), 19, now), Err(LeaseError::TooMany(1)));
    // Nor when such a port rests, and nothing else is left.
    let web = lease(&mut pool, Wish::Named(&[80]), 20, now).expect("free");
    pool.release(&web, holder(20), now).expect("held");
    assert_eq!(lease(&mut pool, Wish::Any(1), 21, now), Err(LeaseError::TooMany(1)));
}

#[test]
fn says_when_nothing_at_all_is_left() {
    let now = Instant::now();
    let mut pool =
        Pool::new(&PoolConfig { listen_range: 10_000..=10_001, port_range: 10_000..=10_001, ..config() })
            .expect("a good pool");
    for number in 1..=2 {
        lease(&mut pool, Wish::Any(2), number, now).expect("2 at each of two addresses");
    }
    for wish in [Wish::Any(1), Wish::Named(&[10_000]), Wish::Named(&[5])] {
        assert_eq!(pool.offer(wish, None, None, now), Err(LeaseError::Exhausted));
    }
}

#[test]
fn released_ports_rest_and_are_then_free() {
    let now = Instant::now();
    let mut pool = pool();
    let block = lease(&mut pool, Wish::Any(4), 1, now).expect("free");
    pool.release(&block, holder(1), now).expect("held");
    let usage = |pool: &Pool, at| {
        let usage = pool.usage(at).next().expect("two addresses");
        [usage.leasable, usage.leased, usage.resting, usage.free]
    };
    assert_eq!(usage(&pool, now), [18, 0, 4, 14]);
    let next = lease(&mut pool, Wish::Any(4), 2, now).expect("others");
    assert_eq!(next, grant(FIRST, Ports::Range { first: 10_006, count: 4 }));
    assert_eq!(usage(&pool, now + REST), [18, 4, 0, 14]);
    let again = lease(&mut pool, Wish::Any(4), 3, now + REST).expect("rested");
    assert_eq!(again, grant(FIRST, Ports::Range { first: 10_000, count: 4 }));
}

#[test]
fn a_resting_port_is_given_by_number_and_rests_anew_afterwards() {
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let mut pool = pool();
    let named = Wish::Named(&[10_000]);
    let port = lease(&mut pool, named, 1, now).expect("free");
    pool.release(&port, holder(1), now).expect("held");
    lease(&mut pool, named, 2, now + second).expect("resting, but asked for by number");
    pool.release(&port, holder(2), now + 100 * second).expect("held");
    // The first rest would be over now; the second is not.
    assert_eq!(pool.usage(now + 121 * second).next().expect("two addresses").resting, 1);
    let other = lease(&mut pool, Wish::Any(1), 3, now + 121 * second).expect("others");
    assert_eq!(other, grant(FIRST, Ports::single(10_001)));
}

#[test]
fn what_was_never_used_does_not_rest() {
    let now = Instant::now();
    let mut pool = pool();
    let block = lease(&mut pool, Wish::Any(4), 1, now).expect("free");
    pool.cancel(&block, holder(1)).expect("held");
    assert_eq!(lease(&mut pool, Wish::Any(4), 2, now), Ok(block));
}

#[test]
fn without_rest_a_port_is_free_at_once() {
    let now = Instant::now();
    let mut pool = Pool::new(&PoolConfig { rest: Duration::ZERO, ..config() }).expect("a good pool");
    let block = lease(&mut pool, Wish::Any(4), 1, now).expect("free");
    pool.release(&block, holder(1), now).expect("held");
    assert_eq!(lease(&mut pool, Wish::Any(4), 2, now), Ok(block));
}

#[test]
fn a_rest_without_end_does_no_harm() {
    let now = Instant::now();
    let mut pool = Pool::new(&PoolConfig { rest: Duration::MAX, ..config() }).expect("a good pool");
    let block = lease(&mut pool, Wish::Any(4), 1, now).expect("free");
    pool.release(&block, holder(1), now).expect("held");
    assert_eq!(pool.usage(now + REST).next().expect("two addresses").resting, 4);
}

/// The allocator's own assertion: whatever it is asked, nobody gets what somebody holds, or gives back what is not his.
#[test]
fn contradictions_are_reported_and_change_nothing() {
    let now = Instant::now();
    let mut pool = pool();
    let block = lease(&mut pool, Wish::Any(3), 1, now).expect("free");
    let overlap = grant(FIRST, Ports::Range { first: 9_999, count: 2 });
    assert_eq!(pool.take(&overlap, holder(2)), Err(PoolFault::NotLeasable { address: FIRST, port: 9_999 }));
    let overlap = grant(FIRST, Ports::List(vec![10_003, 10_002]));
    let two = PoolFault::TwoHolders { address: FIRST, port: 10_002, holder: holder(1), wanted: holder(2) };
    assert_eq!(pool.take(&overlap, holder(2)), Err(two));
    assert_eq!(pool.holder(FIRST, 10_003), None, "nothing of it was taken");
    assert!(pool.take(&block, holder(1)).is_err(), "not even by its holder");

    let not_yours =
        |port, holder: Option<Holder>, by| PoolFault::NotTheHolder { address: FIRST, port, holder, by };
    assert_eq!(pool.release(&block, holder(2), now), Err(not_yours(10_000, Some(holder(1)), holder(2))));
    let more = grant(FIRST, Ports::Range { first: 10_001, count: 3 });
    assert_eq!(pool.release(&more, holder(1), now), Err(not_yours(10_003, None, holder(1))));
    assert_eq!(pool.holder(FIRST, 10_001), Some(holder(1)), "nothing of it was given back");
    let elsewhere = grant(Ipv4Addr::LOCALHOST, Ports::single(80));
    assert_eq!(pool.take(&elsewhere, holder(1)), Err(PoolFault::Unknown(Ipv4Addr::LOCALHOST)));
    assert_eq!(pool.release(&elsewhere, holder(1), now), Err(PoolFault::Unknown(Ipv4Addr::LOCALHOST)));

    pool.release(&block, holder(1), now).expect("held");
    assert_eq!(pool.release(&block, holder(1), now), Err(not_yours(10_000, None, holder(1))));
}

#[test]
fn every_port_of_an_address_can_be_leased() {
    let now = Instant::now();
    let everything = PoolConfig {
        addresses: vec![FIRST],
        whole: Vec::new(),
        port_range: 1..=65_535,
        listen_range: 1..=65_535,
        reserved: Vec::new(),
        rest: REST,
    };
    let mut pool = Pool::new(&everything).expect("a good pool");
    let mut seen = vec![false; 1 << 16];
    for number in 1..=257 {
        let granted = lease(&mut pool, Wish::Any(255), number, now).expect("257 times 255 is 65535");
        assert!(matches!(granted.leased, Leased::Ports(Ports::Range { count: 255, .. })));
        for port in granted.leased.iter() {
            assert!(!std::mem::replace(&mut seen[usize::from(port)], true), "{port}");
        }
    }
    assert_eq!(seen.iter().filter(|seen| **seen).count(), 65_535);
    assert_eq!(pool.offer(Wish::Any(1), None, None, now), Err(LeaseError::Exhausted));
}
