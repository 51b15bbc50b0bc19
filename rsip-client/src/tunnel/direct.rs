//! What of the gateway's answer about local networks (QUERY, RFC 3103 section 9.14) is believed. A network that is local is
//! reached without the tunnel; an answer that calls the internet local would take the host's leased address out of use, so
//! only what can be a private realm is taken, and a bounded number of it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;

use rsip_sys::netlink::Prefix;

/// More networks than this are not taken: each costs a rule, a route and a place in the programs' table.
pub const MAX: usize = 64;
/// A private realm that uses registered addresses is one site's, not a piece of the internet.
const SITE_LENGTH: u8 = 16;

const fn prefix(a: u8, b: u8, c: u8, d: u8, length: u8) -> Prefix {
    Prefix { address: Ipv4Addr::new(a, b, c, d), length }
}

/// For private use, in any size (RFC 1918, RFC 6598).
const PRIVATE: [Prefix; 4] = [
    prefix(10, 0, 0, 0, 8),
    prefix(172, 16, 0, 0, 12),
    prefix(192, 168, 0, 0, 16),
    prefix(100, 64, 0, 0, 10),
];
/// No network of a router: "this" network, loopback, link-local, multicast and reserved.
const NEVER: [Prefix; 4] =
    [prefix(0, 0, 0, 0, 8), prefix(127, 0, 0, 0, 8), prefix(169, 254, 0, 0, 16), prefix(224, 0, 0, 0, 3)];

/// Why a network that the gateway calls local is not believed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disbelief {
    /// No such prefix: longer than 32 bits.
    Malformed,
    /// Loopback, link-local, multicast, reserved.
    Special,
    /// Too much for a private realm.
    TooLarge,
    /// The leased address lies in it.
    Leased,
    /// The peer that the lease is for lies in it.
    Peer,
    /// There are enough already.
    TooMany,
}

impl fmt::Display for Disbelief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("no such prefix"),
            Self::Special => f.write_str("loopback, link-local, multicast or reserved"),
            Self::TooLarge => {
                write!(f, "larger than /{SITE_LENGTH}, and not for private use: that would be the internet")
            }
            Self::Leased => f.write_str("the leased address lies in it"),
            Self::Peer => f.write_str("the peer named by --remote lies in it"),
            Self::TooMany => write!(f, "more than {MAX} networks"),
        }
    }
}

/// What of an answer is taken, and what is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Direct {
    /// To be reached without the tunnel.
    pub believed: BTreeSet<Prefix>,
    /// The rest, as it was given.
    pub disbelieved: Vec<((Ipv4Addr, u8), Disbelief)>,
}

/// Judges an answer: `public`: the leased address; `peer`: the only one that the lease is for.
pub fn judge(answer: &[(Ipv4Addr, u8)], public: Option<Ipv4Addr>, peer: Option<Ipv4Addr>) -> Direct {
    let mut direct = Direct::default();
    for &(address, length) in answer {
        match judge_one(address, length, public, peer) {
            Ok(network) if direct.believed.len() < MAX || direct.believed.contains(&network) => {
                direct.believed.insert(network);
            }
            Ok(_) => direct.disbelieved.push(((address, length), Disbelief::TooMany)),
            Err(why) => direct.disbelieved.push(((address, length), why)),
        }
    }
    direct
}

fn judge_one(
    address: Ipv4Addr,
    length: u8,
    public: Option<Ipv4Addr>,
    peer: Option<Ipv4Addr>,
) -> Result<Prefix, Disbelief> {
    if length > 32 {
        return Err(Disbelief::Malformed);
    }
    let network = Prefix { address, length }.network();
    let lies_in = |outer: &Prefix| outer.length <= network.length && outer.contains(network.address);
    let overlaps = |other: &Prefix| lies_in(other) || network.contains(other.address);
    if public.is_some_and(|public| network.contains(public)) {
        return Err(Disbelief::Leased);
    }
    if peer.is_some_and(|peer| network.contains(peer)) {
        return Err(Disbelief::Peer);
    }
    if length < SITE_LENGTH && !PRIVATE.iter().any(lies_in) {
        return Err(Disbelief::TooLarge);
    }
    if NEVER.iter().any(overlaps) {
        return Err(Disbelief::Special);
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

    fn network(text: &str) -> (Ipv4Addr, u8) {
        let (address, length) = text.split_once('/').expect("ADDRESS/LENGTH");
        (address.parse().expect("an address"), length.parse().expect("a length"))
    }

    fn verdict(text: &str) -> Result<String, Disbelief> {
        let Direct { believed, disbelieved } = judge(&[network(text)], Some(PUBLIC), Some(PEER));
        match (believed.first(), disbelieved.first()) {
            (Some(prefix), None) => Ok(prefix.to_string()),
            (None, Some((_, why))) => Err(*why),
            other => panic!("one or the other: {other:?}"),
        }
    }

    #[test]
    fn private_realms_of_any_size_and_sites_with_registered_addresses_are_taken() {
        for (given, taken) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.88.1.2/24", "10.88.1.0/24"),
            ("172.16.0.0/12", "172.16.0.0/12"),
            ("192.168.7.1/32", "192.168.7.1/32"),
            ("100.64.0.0/10", "100.64.0.0/10"),
            ("192.0.2.0/24", "192.0.2.0/24"),
            ("25.7.0.0/16", "25.7.0.0/16"),
        ] {
            assert_eq!(verdict(given), Ok(taken.to_owned()), "{given}");
        }
    }

    #[test]
    fn what_cannot_be_a_private_realm_is_not_believed() {
        for (given, why) in [
            ("0.0.0.0/0", Disbelief::Leased),
            ("0.0.0.0/1", Disbelief::TooLarge),
            ("8.0.0.0/7", Disbelief::TooLarge),
            ("8.0.0.0/8", Disbelief::TooLarge),
            ("172.0.0.0/8", Disbelief::TooLarge),
            ("0.0.0.0/16", Disbelief::Special),
            ("127.0.0.0/16", Disbelief::Special),
            ("127.0.0.1/32", Disbelief::Special),
            ("169.254.0.0/16", Disbelief::Special),
            ("224.0.0.0/24", Disbelief::Special),
            ("255.255.255.255/32", Disbelief::Special),
            ("198.51.100.0/24", Disbelief::Leased),
            ("198.51.100.1/32", Disbelief::Leased),
            ("203.0.113.0/24", Disbelief::Peer),
            ("10.0.0.0/33", Disbelief::Malformed),
        ] {
            assert_eq!(verdict(given), Err(why), "{given}");
        }
        let nothing_known = judge(&[network("0.0.0.0/0"), network("224.0.0.0/3")], None, None);
        assert!(nothing_known.believed.is_empty(), "{nothing_known:?}");
    }

    #[test]
    fn the_number_is_bounded() {
        let many: Vec<_> = (0..=255).map(|n| (Ipv4Addr::new(10, 1, n, 0), 24)).collect();
        let direct = judge(&many, None, None);
        assert_eq!((direct.believed.len(), direct.disbelieved.len()), (MAX, 256 - MAX));
        assert!(direct.disbelieved.iter().all(|(_, why)| *why == Disbelief::TooMany));
        let same = judge(&[network("10.1.0.0/24"), network("10.1.0.9/24")], None, None);
        assert_eq!((same.believed.len(), same.disbelieved.len()), (1, 0));
    }

    proptest! {
        /// Whatever a gateway answers: most of the internet, the leased address and the peer stay where they are.
        #[test]
        fn never_takes_the_internet(answer in prop::collection::vec((any::<u32>(), any::<u8>()), 0..200)) {
            let answer: Vec<_> = answer.into_iter().map(|(address, length)| (address.into(), length)).collect();
            let direct = judge(&answer, Some(PUBLIC), Some(PEER));
            prop_assert_eq!(direct.disbelieved.len() + direct.believed.len() <= answer.len(), true);
            prop_assert!(direct.believed.len() <= MAX);
            let registered: u64 = direct
                .believed
                .iter()
                .filter(|network| !PRIVATE.iter().any(|private| private.contains(network.address)))
                .map(|network| 1_u64 << (32 - u32::from(network.length)))
                .sum();
            prop_assert!(registered <= (MAX as u64) << 16);
            for address in [PUBLIC, PEER, Ipv4Addr::LOCALHOST, Ipv4Addr::new(224, 0, 0, 1)] {
                prop_assert!(!direct.believed.iter().any(|network| network.contains(address)));
            }
        }
    }
}
