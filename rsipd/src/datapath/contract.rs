//! The contract of [`Datapath`], as a test that every implementation has to pass: the fake one in this crate's tests,
//! real ones where there are interfaces to work on.

use std::net::{Ipv4Addr, SocketAddrV4};

use rsip_proto::gateway::Rule;
use rsip_proto::ids::{BindId, ClientId};
use rsip_proto::lease::{Leased, Remote};
use rsip_proto::wire::{Ports, RemotePolicy, TunnelType};

use super::{Datapath, DatapathError};

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
/// An address that no pool has.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);
/// Two who may be talked to.
const PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const OTHER_PEER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 8);

/// Goes through the contract with leases of `pool`, all of which are free before and after, on a data path that was made
/// for this remote policy.
///
/// # Panics
/// When the data path breaks the contract; the message says how.
pub fn check(datapath: &mut impl Datapath, pool: &[Ipv4Addr], policy: RemotePolicy) {
    for address in pool {
        ports(datapath, *address);
        whole_address(datapath, *address);
        match policy {
            RemotePolicy::None => refuses_remotes(datapath, *address),
            RemotePolicy::Macro => {
                remotes(datapath, *address, Remote::Address(PEER), Remote::Address(OTHER_PEER));
            }
            RemotePolicy::Micro => {
                let peer = |port| Remote::Port(SocketAddrV4::new(PEER, port));
                remotes(datapath, *address, peer(80), peer(81));
            }
        }
    }
    addresses_are_apart(datapath, pool);
    refuses_what_it_cannot_do(datapath, pool.first().copied().unwrap_or(FOREIGN));
}

fn rule(address: Ipv4Addr, host: Ipv4Addr, leased: impl Into<Leased>) -> Rule {
    Rule {
        client_id: ClientId(1),
        bind_id: BindId(1),
        host,
        address,
        leased: leased.into(),
        remote: Remote::Any,
        tunnel: TunnelType::IpIp,
    }
}

fn ports(datapath: &mut impl Datapath, address: Ipv4Addr) {
    let rule = |host, ports: Ports| rule(address, host, ports);
    let block = rule(FIRST, Ports::Range { first: 65281, count: 255 });
    let server = rule(SECOND, Ports::single(1));
    let list = rule(SECOND, Ports::List(vec![80, 443, 8080]));
    let (blocked, overlap) =
        (rule(SECOND, Ports::single(65535)), rule(SECOND, Ports::List(vec![65280, 65300])));

    assert!(!holds(datapath, &block), "holds what was never installed");
    for rule in [&block, &server, &list] {
        install(datapath, rule);
        assert!(holds(datapath, rule), "{rule:?}: installed, but does not hold");
    }
    install(datapath, &block);

    for rule in [&blocked, &overlap] {
        refuse(datapath, rule, FIRST);
        assert!(!holds(datapath, rule));
    }
    assert!(holds(datapath, &block), "a refused rule did harm");
    let part = rule(SECOND, Ports::single(65280));
    assert!(!holds(datapath, &part), "a part of a refused rule stayed");

    // Somebody else's ports are not his to remove.
    remove(datapath, &blocked);
    assert!(holds(datapath, &block), "removed by one who does not hold it");

    for rule in [&block, &server, &list] {
        remove(datapath, rule);
        assert!(!holds(datapath, rule), "{rule:?}: removed, but holds");
    }
    remove(datapath, &block);
    install(datapath, &blocked);
    remove(datapath, &blocked);
}

fn whole_address(datapath: &mut impl Datapath, address: Ipv4Addr) {
    let whole = |host| rule(address, host, Leased::Address);
    let port = |host, port| rule(address, host, Ports::single(port));

    assert!(!holds(datapath, &whole(FIRST)), "holds what was never installed");
    install(datapath, &whole(FIRST));
    install(datapath, &whole(FIRST));
    assert!(holds(datapath, &whole(FIRST)), "installed, but does not hold");
    assert!(!holds(datapath, &whole(SECOND)), "one address, two holders");
    assert!(!holds(datapath, &port(FIRST, 80)), "a whole address is not a lease of its ports");
    for rule in [&whole(SECOND), &port(SECOND, 1), &port(SECOND, 65535)] {
        refuse(datapath, rule, FIRST);
        assert!(!holds(datapath, rule));
        remove(datapath, rule);
    }
    assert!(holds(datapath, &whole(FIRST)), "removed by one who does not hold it");
    remove(datapath, &whole(FIRST));
    assert!(!holds(datapath, &whole(FIRST)), "removed, but holds");
    remove(datapath, &whole(FIRST));

    // Any port, the first to the last, keeps others from the whole.
    for number in [1, 40_000, 65_535] {
        install(datapath, &port(SECOND, number));
        refuse(datapath, &whole(FIRST), SECOND);
        assert!(!holds(datapath, &whole(FIRST)));
        assert!(holds(datapath, &port(SECOND, number)), "a refused rule did harm");
        remove(datapath, &port(SECOND, number));
    }
    install(datapath, &whole(FIRST));
    remove(datapath, &whole(FIRST));
    install(datapath, &port(SECOND, 80));
    remove(datapath, &port(SECOND, 80));
}

fn remotes(datapath: &mut impl Datapath, address: Ipv4Addr, one: Remote, other: Remote) {
    for leased in [Leased::Address, Ports::List(vec![80, 443]).into(), Ports::single(65535).into()] {
        let confined = |remote| Rule { remote, ..rule(address, FIRST, leased.clone()) };
        install(datapath, &confined(one));
        assert!(holds(datapath, &confined(one)), "installed, but does not hold");
        for different in [other, Remote::Any] {
            assert!(!holds(datapath, &confined(different)), "holds for another peer");
            refuse(datapath, &confined(different), FIRST);
            remove(datapath, &confined(different));
            assert!(holds(datapath, &confined(one)), "harmed by a rule for another peer");
        }
        remove(datapath, &confined(one));
        assert!(!holds(datapath, &confined(one)), "removed, but holds");
        // What was there before does not show through.
        install(datapath, &confined(other));
        assert!(holds(datapath, &confined(other)) && !holds(datapath, &confined(one)));
        remove(datapath, &confined(other));
    }
}

fn refuses_remotes(datapath: &mut impl Datapath, address: Ipv4Addr) {
    for remote in [Remote::Address(PEER), Remote::Port(SocketAddrV4::new(PEER, 80))] {
        let confined = Rule { remote, ..rule(address, FIRST, Ports::single(80)) };
        let outcome = datapath.install(&confined);
        assert!(
            matches!(outcome, Err(DatapathError::Remote(refused)) if refused == remote),
            "{confined:?}: without a remote policy this would be open to everybody: {outcome:?}"
        );
        let open = Rule { remote: Remote::Any, ..confined };
        assert!(!holds(datapath, &open), "a refused rule stayed");
    }
}

fn addresses_are_apart(datapath: &mut impl Datapath, pool: &[Ipv4Addr]) {
    for (address, host) in pool.iter().zip([FIRST, SECOND]) {
        install(datapath, &rule(*address, host, Leased::Address));
    }
    for (address, host) in pool.iter().zip([FIRST, SECOND]) {
        assert!(holds(datapath, &rule(*address, host, Leased::Address)), "{address}");
        remove(datapath, &rule(*address, host, Leased::Address));
    }
}

fn refuses_what_it_cannot_do(datapath: &mut impl Datapath, address: Ipv4Addr) {
    for leased in [Leased::Address, Ports::single(80).into()] {
        let gre = Rule { tunnel: TunnelType::Gre, ..rule(address, FIRST, leased) };
        let outcome = datapath.install(&gre);
        assert!(
            matches!(outcome, Err(DatapathError::Tunnel(TunnelType::Gre))),
            "took a foreign tunnel: {outcome:?}"
        );
    }
    let nobodys = rule(address, FIRST, Ports::List(vec![80, 0]));
    let outcome = datapath.install(&nobodys);
    assert!(matches!(outcome, Err(DatapathError::PortZero)), "leased port 0: {outcome:?}");
    assert!(!holds(datapath, &rule(address, FIRST, Ports::single(80))), "a part of a refused rule stayed");
    assert!(!holds(datapath, &rule(address, FIRST, Leased::Address)), "port 0 is not the whole address");
}

/// The same of a data path that has both types of tunnels: a host has one.
///
/// # Panics
/// When the data path breaks the contract; the message says how.
pub fn check_tunnels(datapath: &mut impl Datapath, address: Ipv4Addr) {
    for (one, other) in [(TunnelType::Gre, TunnelType::IpIp), (TunnelType::IpIp, TunnelType::Gre)] {
        let of = |tunnel, host, port| Rule { tunnel, ..rule(address, host, Ports::single(port)) };
        install(datapath, &of(one, FIRST, 80));
        install(datapath, &of(one, FIRST, 81));
        install(datapath, &of(other, SECOND, 443));
        assert!(holds(datapath, &of(one, FIRST, 80)) && holds(datapath, &of(other, SECOND, 443)));
        assert!(!holds(datapath, &of(other, FIRST, 80)), "holds in a tunnel of another type");
        let outcome = datapath.install(&of(other, FIRST, 8080));
        assert!(
            matches!(outcome, Err(DatapathError::OtherTunnel { host, other: has }) if (host, has) == (FIRST, one)),
            "two tunnels for one host: {outcome:?}"
        );
        assert!(!holds(datapath, &of(one, FIRST, 8080)), "a part of a refused rule stayed");
        // What is refused leaves the host's tunnel alone, and so does what is left of it.
        remove(datapath, &of(one, FIRST, 80));
        assert!(holds(datapath, &of(one, FIRST, 81)), "the tunnel went with the first of two leases");
        remove(datapath, &of(one, FIRST, 81));
        install(datapath, &of(other, FIRST, 80));
        assert!(holds(datapath, &of(other, FIRST, 80)), "no other tunnel, though nothing is held");
        remove(datapath, &of(other, FIRST, 80));
        remove(datapath, &of(other, SECOND, 443));
    }
}

fn install(datapath: &mut impl Datapath, rule: &Rule) {
    let outcome = datapath.install(rule);
    assert!(outcome.is_ok(), "{rule:?}: not installed: {outcome:?}");
}

fn refuse(datapath: &mut impl Datapath, rule: &Rule, because_of: Ipv4Addr) {
    let outcome = datapath.install(rule);
    assert!(
        matches!(&outcome, Err(DatapathError::Held { holder, .. }) if *holder == because_of),
        "{rule:?}: held by {because_of}, but: {outcome:?}"
    );
}

fn remove(datapath: &mut impl Datapath, rule: &Rule) {
    let outcome = datapath.remove(rule);
    assert!(outcome.is_ok(), "{rule:?}: not removed: {outcome:?}");
}

fn holds(datapath: &impl Datapath, rule: &Rule) -> bool {
    let outcome = datapath.holds(rule);
    assert!(outcome.is_ok(), "{rule:?}: cannot be asked: {outcome:?}");
    outcome.unwrap_or(false)
}
