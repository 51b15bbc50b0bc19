//! The pool against a model that is a plain map.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use rsip_proto::lease::Leased;
use rsip_proto::pool::{Grant, Holder, Pool, PoolConfig, WholeUse, Wish};

use crate::*;

/// Leased whole only.
const THIRD: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

const ALL: [Ipv4Addr; 3] = [FIRST, SECOND, THIRD];

/// The first address by port, the third whole, the second both.
fn mixed() -> PoolConfig {
    PoolConfig { whole: vec![THIRD, SECOND], ..config() }
}

#[derive(Clone, Debug)]
enum Step {
    Any(u16, Option<Ipv4Addr>),
    Named(Vec<u16>, Option<Ipv4Addr>),
    Whole(Option<Ipv4Addr>, Option<Ipv4Addr>),
    Release(Index),
    Cancel(Index),
    /// Something that the pool must refuse: somebody takes what another one holds, or gives it back.
    Steal(Index),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let port = || prop_oneof![78..=91u16, 9_998..=10_011u16];
    let place = || proptest::option::of(select(&ALL[..]));
    prop_oneof![
        4 => (1..=6u16, place()).prop_map(|(count, place)| Step::Any(count, place)),
        4 => (btree_set(port(), 1..4), place())
            .prop_map(|(ports, place)| Step::Named(ports.into_iter().collect(), place)),
        3 => (place(), place()).prop_map(|(place, preferred)| Step::Whole(place, preferred)),
        6 => any::<Index>().prop_map(Step::Release),
        1 => any::<Index>().prop_map(Step::Cancel),
        1 => any::<Index>().prop_map(Step::Steal),
        2 => (0..90u64).prop_map(Step::Wait),
    ]
}

fn leasable(port: u16) -> bool {
    ((80..=89).contains(&port) || (10_000..=10_009).contains(&port)) && port != 81 && port != 10_005
}

/// Who holds what: a port, or (port `None`) a whole address.
#[derive(Default)]
struct Model {
    held: BTreeMap<(Ipv4Addr, Option<u16>), Holder>,
}

impl Model {
    fn holder(&self, address: Ipv4Addr, port: u16) -> Option<Holder> {
        self.held.get(&(address, None)).or_else(|| self.held.get(&(address, Some(port)))).copied()
    }

    fn is_shared(&self, address: Ipv4Addr) -> bool {
        self.held.keys().any(|(at, port)| *at == address && port.is_some())
    }

    fn is_whole(&self, address: Ipv4Addr) -> bool {
        self.held.contains_key(&(address, None))
    }

    /// Whether the wish can be met at this address. What rests counts as free: it is given where nothing else is left.
    fn can_give(&self, wish: Wish<'_>, at: Ipv4Addr) -> bool {
        let free = |port: u16| at != THIRD && leasable(port) && self.holder(at, port).is_none();
        match wish {
            Wish::Any(count) => (10_000..=10_009).filter(|port| free(*port)).count() >= usize::from(count),
            Wish::Named(ports) => ports.iter().all(|port| free(*port)),
            Wish::Whole => at != FIRST && !self.is_shared(at) && !self.is_whole(at),
        }
    }

    /// Nothing of it may be held already.
    fn take(&mut self, grant: &Grant, by: Holder) {
        assert!(!self.is_whole(grant.address), "{grant:?}: somebody has it whole");
        if grant.leased == Leased::Address {
            assert!(!self.is_shared(grant.address), "{grant:?}: somebody has ports of it");
            assert_ne!(grant.address, FIRST, "never leased whole");
            self.held.insert((grant.address, None), by);
        }
        for port in grant.leased.iter() {
            assert!(leasable(port) && grant.address != THIRD, "{grant:?}: {port} is not for lease");
            assert_eq!(self.held.insert((grant.address, Some(port)), by), None, "{grant:?}: {port} is taken");
        }
    }

    fn check(&self, pool: &Pool, now: Instant) {
        for address in ALL {
            for port in (78..=91).chain(9_998..=10_011) {
                assert_eq!(pool.holder(address, port), self.holder(address, port), "{address} {port}");
            }
            assert_eq!(pool.is_held_whole(address), self.is_whole(address), "{address}");
        }
        for usage in pool.usage(now) {
            let ports = self.held.keys().filter(|(at, port)| *at == usage.address && port.is_some()).count();
            let whole = self.is_whole(usage.address);
            let leased = if whole { usage.leasable as usize } else { ports };
            assert_eq!(usage.leased as usize, leased, "{usage:?}");
            assert_eq!(usage.leased + usage.resting + usage.free, usage.leasable, "{usage:?}");
            assert_eq!(usage.whole == WholeUse::Leased, whole, "{usage:?}");
            assert_eq!(usage.whole == WholeUse::Never, usage.address == FIRST, "{usage:?}");
            if usage.address != FIRST {
                assert_eq!(usage.whole == WholeUse::Shared, ports > 0, "{usage:?}");
            }
        }
    }
}

proptest! {
    /// No port has two holders, none of a whole address has another one, nothing is given that is not for lease, what can be
    /// given is given, and at the end everything is free again.
    #[test]
    fn agrees_with_a_plain_map(steps in vec(step(), 1..120)) {
        let mut now = Instant::now();
        let mut pool = Pool::new(&mixed()).expect("a good pool");
        let mut model = Model::default();
        let mut grants: Vec<(Holder, Grant)> = Vec::new();
        for (number, step) in (1..).zip(steps) {
            let (wish, address, preferred) = match &step {
                Step::Any(count, place) => (Wish::Any(*count), *place, None),
                Step::Named(ports, place) => (Wish::Named(ports), *place, None),
                Step::Whole(place, preferred) => (Wish::Whole, *place, *preferred),
                Step::Release(index) | Step::Cancel(index) => {
                    if !grants.is_empty() {
                        let (by, granted) = grants.remove(index.index(grants.len()));
                        if matches!(step, Step::Release(_)) {
                            prop_assert_eq!(pool.release(&granted, by, now), Ok(()));
                        } else {
                            prop_assert_eq!(pool.cancel(&granted, by), Ok(()));
                        }
                        model.held.retain(|_, holder| *holder != by);
                    }
                    model.check(&pool, now);
                    continue;
                }
                Step::Steal(index) => {
                    if !grants.is_empty() {
                        let (_, granted) = &grants[index.index(grants.len())];
                        let whole = Grant { address: granted.address, leased: Leased::Address };
                        let port = grant(granted.address, rsip_proto::wire::Ports::single(80));
                        let thief = holder(number);
                        prop_assert!(pool.take(granted, thief).is_err());
                        prop_assert!(pool.take(&whole, thief).is_err());
                        prop_assert!(granted.leased != Leased::Address || pool.take(&port, thief).is_err());
                        prop_assert!(pool.release(granted, thief, now).is_err());
                        prop_assert!(pool.release(&whole, thief, now).is_err());
                    }
                    model.check(&pool, now);
                    continue;
                }
                Step::Wait(seconds) => {
                    now += Duration::from_secs(*seconds);
                    continue;
                }
            };
            let places = address.map_or_else(|| ALL.to_vec(), |address| vec![address]);
            let possible = places.iter().any(|at| model.can_give(wish, *at));
            match pool.offer(wish, address, preferred, now) {
                Ok(offer) => {
                    prop_assert!(places.contains(&offer.address));
                    match wish {
                        Wish::Any(count) => prop_assert_eq!(offer.leased.iter().count(), usize::from(count)),
                        Wish::Named(wanted) => prop_assert!(offer.leased.iter().eq(wanted.iter().copied())),
                        Wish::Whole => prop_assert_eq!(&offer.leased, &Leased::Address),
                    }
                    if let (Wish::Whole, None, Some(preferred)) = (wish, address, preferred)
                        && model.can_give(wish, preferred)
                    {
                        prop_assert_eq!(offer.address, preferred);
                    }
                    model.take(&offer, holder(number));
                    pool.take(&offer, holder(number)).expect("a fresh offer");
                    grants.push((holder(number), offer));
                }
                Err(error) => prop_assert!(!possible, "{error} for {step:?}"),
            }
            model.check(&pool, now);
        }
        for (by, granted) in grants {
            prop_assert_eq!(pool.release(&granted, by, now), Ok(()));
        }
        for usage in pool.usage(now + REST) {
            let leasable = if usage.address == THIRD { 0 } else { 18 };
            prop_assert_eq!((usage.leased, usage.resting, usage.free), (0, 0, leasable));
            let whole = if usage.address == FIRST { WholeUse::Never } else { WholeUse::Free };
            prop_assert_eq!(usage.whole, whole);
        }
        // As at the beginning: the longest row that there was, and the address that is leased whole only.
        let row = pool.offer(Wish::Any(5), Some(FIRST), None, now + REST);
        prop_assert_eq!(row, Ok(grant(FIRST, rsip_proto::wire::Ports::Range { first: 10_000, count: 5 })));
        let whole = pool.offer(Wish::Whole, None, None, now + REST);
        prop_assert_eq!(whole, Ok(Grant { address: THIRD, leased: Leased::Address }));
    }
}
