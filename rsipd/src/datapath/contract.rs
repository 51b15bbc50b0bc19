//! The contract of [`Datapath`], as a test that every implementation has to pass: the fake one in this crate's tests,
//! real ones where there are interfaces to work on.

use std::net::Ipv4Addr;

use rsip_proto::gateway::Rule;
use rsip_proto::ids::{BindId, ClientId};
use rsip_proto::lease::{Leased, Remote};
use rsip_proto::wire::{Ports, TunnelType};

use super::{Datapath, DatapathError};

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
/// An address that no pool has.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);

/// Goes through the contract with leases of `pool`, all of which are free before and after.
///
/// # Panics
/// When the data path breaks the contract; the message says how.
pub fn check(datapath: &mut impl Datapath, pool: &[Ipv4Addr]) {
    for address in pool {
        let rule = |host, ports| Rule {
            client_id: ClientId(1),
            bind_id: BindId(1),
            host,
            address: *address,
            leased: Leased::Ports(ports),
            remote: Remote::Any,
            tunnel: TunnelType::IpIp,
        };
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
            let refused = datapath.install(rule);
            assert!(
                matches!(&refused, Err(DatapathError::Held { holder, .. }) if *holder == FIRST),
                "{rule:?}: a port changed hands: {refused:?}"
            );
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
    let foreign = Rule {
        client_id: ClientId(1),
        bind_id: BindId(1),
        host: FIRST,
        address: pool.first().copied().unwrap_or(FOREIGN),
        leased: Ports::single(80).into(),
        remote: Remote::Any,
        tunnel: TunnelType::Gre,
    };
    assert!(
        matches!(datapath.install(&foreign), Err(DatapathError::Tunnel(TunnelType::Gre))),
        "took a foreign tunnel"
    );
}

fn install(datapath: &mut impl Datapath, rule: &Rule) {
    let outcome = datapath.install(rule);
    assert!(outcome.is_ok(), "{rule:?}: not installed: {outcome:?}");
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
