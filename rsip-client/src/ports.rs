//! The kernel's own choice of ports, confined to what is leased.
//!
//! connect(), bind(0) and UDP autobind take a port out of `net.ipv4.ip_local_port_range` that is not in
//! `net.ipv4.ip_local_reserved_ports`. So any set of leased ports can be told to the kernel. Both sysctls belong to the
//! network namespace, and hold for IPv6 too.
//!
//! ```text
//! leased              ####        ###   #
//! range               [-----------------]      from the lowest to the highest
//! reserved   #########    ########   ###  ###  everything else
//! ```
//!
//! Everything else is reserved, also outside of the range: somebody who reads the range a moment before it changes, and what
//! is reserved a moment after, must not find a port there that is not leased.
//!
//! The kernel never chooses the last port of a range of odd length (`__inet_hash_connect` and `inet_csk_find_open_port` take
//! ports in pairs), so that a range is made even by one more port.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use rsip_sys::sysctl::{self, SysctlError};
use serde::{Deserialize, Serialize};

const RANGE: &str = "net.ipv4.ip_local_port_range";
const RESERVED: &str = "net.ipv4.ip_local_reserved_ports";
/// A list is exchanged as a whole only where it fits into a page less one byte, and a gap takes 12 bytes at most.
const MOST_GAPS: usize = 4095 / 12;

/// The two sysctls as they were before us, word for word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedSysctls {
    /// `ip_local_port_range`.
    pub range: String,
    /// `ip_local_reserved_ports`.
    pub reserved: String,
}

/// What the two sysctls have to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    /// The lowest and the highest port.
    pub range: RangeInclusive<u16>,
    /// Sorted, disjoint, not touching each other.
    pub reserved: Vec<RangeInclusive<u16>>,
}

/// Confines to these ports; `reserved` is what the administrator reserved, and stays so. `None`: no ports, nothing to
/// confine to. Of more sets of ports than can be told to the kernel, the smallest are left out of its choice.
pub fn confine(leased: &BTreeSet<u16>, reserved: &[RangeInclusive<u16>]) -> Option<Confinement> {
    let mut sets = ranges(leased.iter().copied());
    let most = MOST_GAPS.saturating_sub(reserved.len() + 1).max(1);
    if sets.len() > most {
        sets.sort_by_key(|set| std::cmp::Reverse(set.len()));
        sets.truncate(most);
        sets.sort_by_key(|set| *set.start());
    }
    let range = even(*sets.first()?.start()..=*sets.last()?.end());
    let mut gaps = Vec::new();
    let mut next = 1;
    for set in &sets {
        if next < *set.start() {
            gaps.push(next..=*set.start() - 1);
        }
        next = set.end().saturating_add(1);
    }
    if sets.last().is_some_and(|last| *last.end() < u16::MAX) {
        gaps.push(next..=u16::MAX);
    }
    Some(Confinement { range, reserved: union(&gaps, reserved) })
}

/// One port alone is chosen; of an odd number more, the last one is not.
fn even(range: RangeInclusive<u16>) -> RangeInclusive<u16> {
    let (first, last) = range.into_inner();
    match (last - first).is_multiple_of(2) {
        true if first != last && last < u16::MAX => first..=last + 1,
        true if first != last => first - 1..=last,
        _ => first..=last,
    }
}

/// Ascending ports as ranges.
fn ranges(ports: impl Iterator<Item = u16>) -> Vec<RangeInclusive<u16>> {
    let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some(last) if last.end().checked_add(1) == Some(port) => *last = *last.start()..=port,
            _ => ranges.push(port..=port),
        }
    }
    ranges
}

/// Ports that are in either, sorted, in as few ranges as possible.
fn union(a: &[RangeInclusive<u16>], b: &[RangeInclusive<u16>]) -> Vec<RangeInclusive<u16>> {
    let mut all: Vec<RangeInclusive<u16>> = a.iter().chain(b).cloned().collect();
    all.sort_by_key(|range| *range.start());
    let mut merged: Vec<RangeInclusive<u16>> = Vec::new();
    for range in all {
        match merged.last_mut() {
            Some(last) if *range.start() <= last.end().saturating_add(1) => {
                *last = *last.start()..=*last.end().max(range.end());
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// Reads the kernel's form of a port list, `1-3,7`; parts that it would not write are left out.
pub(crate) fn parse_list(text: &str) -> Vec<RangeInclusive<u16>> {
    text.split(',')
        .filter_map(|part| {
            let (first, last) = part.trim().split_once('-').unwrap_or((part.trim(), part.trim()));
            let range = first.parse().ok()?..=last.parse().ok()?;
            (!range.is_empty()).then_some(range)
        })
        .collect()
}

/// Ranges for people and for the kernel: `1-3,7`.
pub fn format_list(list: &[RangeInclusive<u16>]) -> String {
    let parts: Vec<String> = list
        .iter()
        .map(|range| match (range.start(), range.end()) {
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        })
        .collect();
    parts.join(",")
}

/// Ports for people: `1-3,7`.
pub fn as_text(ports: &BTreeSet<u16>) -> String {
    format_list(&ranges(ports.iter().copied()))
}

/// The two sysctls as they are now.
///
/// # Errors
///
/// They cannot be read.
pub fn current() -> Result<SavedSysctls, SysctlError> {
    Ok(SavedSysctls { range: sysctl::read(RANGE)?, reserved: sysctl::read(RESERVED)? })
}

/// The ports that the kernel chooses among, as the two sysctls are.
pub(crate) fn admitted(sysctls: &SavedSysctls) -> BTreeSet<u16> {
    let reserved = parse_list(&sysctls.reserved);
    let range = parse_range(&sysctls.range).into_iter().flatten();
    range.filter(|port| !reserved.iter().any(|gap| gap.contains(port))).collect()
}

/// Confines the kernel's choice to `leased`; `original` is what was there before us. No ports: back to the original.
///
/// Says how many ports are left to the kernel, 0 where it is not confined. At no moment in between may a port be chosen that is not in `leased`: first everything else is reserved, as an addition
/// to what is reserved already, then the range is set, and only then what is newly leased is let go.
///
/// # Errors
///
/// The kernel does not take the values (a range that begins below `ip_unprivileged_port_start`, for one).
pub fn apply(leased: &BTreeSet<u16>, original: &SavedSysctls) -> Result<u32, SysctlError> {
    let administrators = parse_list(&original.reserved);
    let Some(confinement) = confine(leased, &administrators) else {
        restore(original)?;
        return Ok(0);
    };
    let room = confinement.room();
    let reserved = format_list(&confinement.reserved);
    sysctl::add(RESERVED, &reserved)?;
    let (first, last) = confinement.range.into_inner();
    sysctl::write(RANGE, &format!("{first} {last}"))?;
    sysctl::write(RESERVED, &reserved)?;
    Ok(room)
}

impl Confinement {
    /// So many ports are left.
    pub fn room(&self) -> u32 {
        let length = |first: u16, last: u16| u32::from(last).saturating_sub(u32::from(first)) + 1;
        let (first, last) = (*self.range.start(), *self.range.end());
        let within = self.reserved.iter().filter(|gap| *gap.start() <= last && *gap.end() >= first);
        let reserved: u32 = within.map(|gap| length(*gap.start().max(&first), *gap.end().min(&last))).sum();
        length(first, last).saturating_sub(reserved)
    }
}

/// What the two sysctls leave to the kernel's choice.
pub fn choice(now: &SavedSysctls) -> Vec<RangeInclusive<u16>> {
    let reserved = parse_list(&now.reserved);
    let Some(range) = parse_range(&now.range) else { return Vec::new() };
    ranges(range.filter(|port| !reserved.iter().any(|range| range.contains(port))))
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ends = text.split_whitespace().map(str::parse);
    Some(ends.next()?.ok()?..=ends.next()?.ok()?)
}

/// What a kernel starts with, where nobody knows what was there before us.
pub fn kernel_defaults() -> SavedSysctls {
    SavedSysctls { range: "32768\t60999".to_owned(), reserved: String::new() }
}

/// Puts back what was there before us.
///
/// # Errors
///
/// The kernel does not take the values.
pub fn restore(original: &SavedSysctls) -> Result<(), SysctlError> {
    sysctl::write(RANGE, &original.range)?;
    sysctl::write(RESERVED, &original.reserved)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn admits(confinement: &Confinement, port: u16) -> bool {
        confinement.range.contains(&port) && !confinement.reserved.iter().any(|range| range.contains(&port))
    }

    #[test]
    fn spans_blocks_and_reserves_the_gap() {
        let leased = (10_000..=10_254).chain(20_000..=20_254).collect();
        let confinement = confine(&leased, &[]).expect("there are ports");
        assert_eq!(confinement.range, 10_000..=20_255, "of even length");
        assert_eq!(confinement.reserved, [1..=9_999, 10_255..=19_999, 20_255..=65_535]);
        assert_eq!(format_list(&confinement.reserved), "1-9999,10255-19999,20255-65535");
    }

    #[test]
    fn keeps_what_the_administrator_reserved() {
        let leased = (10_000..=10_009).collect();
        let confinement = confine(&leased, &parse_list("80,10005-10006,10011")).expect("there are ports");
        assert_eq!(format_list(&confinement.reserved), "1-9999,10005-10006,10010-65535");
        assert!(!admits(&confinement, 10_005) && admits(&confinement, 10_007));
    }

    #[test]
    fn ports_leased_one_by_one_are_all_that_is_left() {
        let leased: BTreeSet<u16> = [20_000, 20_001, 20_010, 31_000].into();
        let confinement = confine(&leased, &[]).expect("there are ports");
        assert_eq!(confinement.range, 20_000..=31_001);
        assert_eq!(format_list(&confinement.reserved), "1-19999,20002-20009,20011-30999,31001-65535");
        assert_eq!(as_text(&leased), "20000-20001,20010,31000");
        let one = confine(&[20_000].into(), &[]).expect("there is a port");
        assert_eq!((one.range, one.reserved), (20_000..=20_000, vec![1..=19_999, 20_001..=65_535]));
        assert_eq!(even(65_533..=65_535), 65_532..=65_535);
    }

    #[test]
    fn nothing_leased_confines_nothing() {
        assert_eq!(confine(&BTreeSet::new(), &[]), None);
    }

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(parse_list(""), []);
        assert_eq!(parse_list("1,5-7\n"), [1..=1, 5..=7]);
        assert_eq!(parse_list("7-5,x,70000,9"), [9..=9]);
        assert_eq!(parse_range("32768\t60999"), Some(32_768..=60_999));
    }

    proptest! {
        #[test]
        fn admits_exactly_what_is_leased(
            leased in prop::collection::btree_set(prop_oneof![1024_u16..1100, any::<u16>()], 1..300),
            asked in any::<u16>(),
        ) {
            let confinement = confine(&leased, &[]).expect("there are ports");
            for port in leased.iter().copied().chain([asked]) {
                prop_assert_eq!(admits(&confinement, port), leased.contains(&port));
            }
            prop_assert_eq!(usize::try_from(confinement.room()).expect("small"), leased.len());
            let length = u32::from(confinement.range.end() - confinement.range.start()) + 1;
            prop_assert!(length == 1 || length % 2 == 0, "{:?}", confinement.range);
            let apart = confinement.reserved.windows(2).all(|pair| match pair {
                [a, b] => u32::from(*a.end()) + 1 < u32::from(*b.start()),
                _ => true,
            });
            prop_assert!(apart, "as few ranges as possible: {:?}", confinement.reserved);
            prop_assert_eq!(parse_list(&format_list(&confinement.reserved)), confinement.reserved);
        }

        #[test]
        fn reserves_for_the_administrator_and_no_more(
            leased in prop::collection::btree_set(1024_u16..1200, 1..100),
            reserved in prop::collection::vec((1000_u16..1250, 0_u16..20), 0..8),
        ) {
            let reserved: Vec<_> = reserved.into_iter().map(|(first, more)| first..=first + more).collect();
            let confinement = confine(&leased, &reserved).expect("there are ports");
            for port in 1000..1300 {
                let wanted = leased.contains(&port) && !reserved.iter().any(|range| range.contains(&port));
                prop_assert_eq!(admits(&confinement, port), wanted, "{}", port);
            }
        }
    }

    /// In a network namespace of its own, which ends with the thread.
    fn alone(what: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
            what();
        });
        thread.join().expect("the thread ends");
    }

    /// What the kernel chooses until it has nothing more.
    fn choices(most: usize) -> (Vec<std::net::UdpSocket>, BTreeSet<u16>) {
        let sockets: Vec<_> =
            std::iter::from_fn(|| std::net::UdpSocket::bind("0.0.0.0:0").ok()).take(most).collect();
        let ports = sockets.iter().map(|s| s.local_addr().expect("bound").port()).collect();
        (sockets, ports)
    }

    #[test]
    fn the_kernel_chooses_leased_ports_only_and_is_restored() {
        alone(|| {
            let original = current().expect("readable");
            let leased: BTreeSet<u16> = [20_000, 20_003, 20_010].into();
            apply(&leased, &original).expect("the kernel takes it");
            let (sockets, chosen) = choices(10);
            assert_eq!(leased, chosen);
            apply(&[30_000, 30_002].into(), &original).expect("the kernel takes it");
            assert_eq!(choice(&current().expect("readable")), [30_000..=30_000, 30_002..=30_002]);
            drop(sockets);
            apply(&[20_007].into(), &original).expect("the kernel takes a single port");
            assert_eq!(choices(10).1, [20_007].into());
            apply(&BTreeSet::new(), &original).expect("the kernel takes it");
            assert_eq!(current().expect("readable"), original);
        });
    }

    #[test]
    fn the_kernel_takes_sets_all_over_the_range() {
        alone(|| {
            let original = current().expect("readable");
            let sets: BTreeSet<u16> =
                (0..64_u16).flat_map(|set| 1024 + set * 1000..1024 + set * 1000 + 4).collect();
            let single: BTreeSet<u16> = (0..300_u16).map(|nth| 1100 + nth * 200).collect();
            for leased in [&sets, &single, &sets] {
                apply(leased, &original).expect("the kernel takes it");
                let (_sockets, chosen) = choices(leased.len() + 1);
                assert_eq!(&chosen, leased);
            }
            // More than can be told: the largest.
            let many = (0..1500_u16).map(|nth| 1100 + nth * 42).chain(2000..2100).collect();
            apply(&many, &original).expect("the kernel takes it");
            let (_sockets, chosen) = choices(2000);
            assert!(chosen.is_subset(&many) && chosen.is_superset(&(2000..2100).collect()));
            assert!(chosen.len() > 400, "{}", chosen.len());
        });
    }

    /// One thread changes the confinement over and over, one lets the kernel choose: what it chooses is of one of the two.
    #[test]
    fn nothing_else_is_chosen_while_the_confinement_changes() {
        alone(|| {
            let original = current().expect("readable");
            let near: BTreeSet<u16> = (20_000..20_010).collect();
            let far: BTreeSet<u16> = (0..300).map(|nth| 1500 + nth * 200).collect();
            apply(&near, &original).expect("the kernel takes it");
            let both: BTreeSet<u16> = near.union(&far).copied().collect();
            // The namespace is the process's own, of which this thread is one: a thread of it inherits it.
            let changer = std::thread::spawn(move || {
                for _ in 0..30 {
                    for leased in [&far, &near] {
                        apply(leased, &original).expect("the kernel takes it");
                    }
                }
            });
            let mut seen = BTreeSet::new();
            while !changer.is_finished() {
                seen.extend(choices(3).1);
            }
            changer.join().expect("the thread ends");
            assert!(!seen.is_empty());
            assert_eq!(seen.difference(&both).collect::<Vec<_>>(), Vec::<&u16>::new());
        });
    }
}
