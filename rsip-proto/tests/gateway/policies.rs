//! Flow policies (RFC 3103 section 7): every combination of policy and remote parameters, for each kind of lease.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use rsip_proto::gateway::{GatewayCommand, GatewayConfig, RemoteDeny};
use rsip_proto::ids::ClientId;
use rsip_proto::lease::Remote;
use rsip_proto::wire::message::{AssignRequestRsaIp, AssignRequestRsapIp, ListenRequest};
use rsip_proto::wire::{Address, Body, LocalPolicy, Ports, RemotePolicy};

use crate::rig::*;

const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Whole,
    Assign,
    Listen,
}

const KINDS: [Kind; 3] = [Kind::Whole, Kind::Assign, Kind::Listen];

fn request(client_id: ClientId, kind: Kind, local_ports: Ports, remote: (Address, Ports)) -> Body {
    let (remote_address, remote_ports) = remote;
    let (local_address, lease_time) = (Address::ANY, None);
    match kind {
        Kind::Whole => Body::AssignRequestRsaIp(AssignRequestRsaIp {
            client_id,
            local_address,
            remote_address,
            remote_ports,
            lease_time,
            tunnel_type: None,
        }),
        Kind::Assign => Body::AssignRequestRsapIp(AssignRequestRsapIp {
            client_id,
            local_address,
            local_ports,
            remote_address,
            remote_ports,
            lease_time,
            tunnel_type: None,
        }),
        Kind::Listen => Body::ListenRequest(ListenRequest {
            client_id,
            local_address,
            local_ports,
            remote_address,
            remote_ports,
            lease_time,
            tunnel_types: Vec::new(),
        }),
    }
}

/// Asks for it, and gives the rule, and the remote parameters of the answer; or the error.
fn ask(config: GatewayConfig, kind: Kind, remote: (Address, Ports)) -> Result<(Remote, Address, Ports), u16> {
    let mut rig = Rig::new(config);
    let id = rig.register(udp(2));
    let body = request(id, kind, Ports::DontCare { count: 4 }, remote);
    let commands = rig.ask(udp(2), 2, body.clone());
    let [GatewayCommand::Install { rule, .. }] = &commands[..] else {
        assert!(rig.client(id).unwrap().bindings.is_empty());
        return Err(code(&commands, udp(2), 2));
    };
    let commands = rig.done(1);
    let GatewayCommand::Send { message, .. } = &commands[0] else { panic!("{commands:?}") };
    let (address, ports) = match (kind, message.body.clone()) {
        (Kind::Whole, Body::AssignResponseRsaIp(granted)) => (granted.remote_address, granted.remote_ports),
        (Kind::Assign, Body::AssignResponseRsapIp(granted))
        | (Kind::Listen, Body::ListenResponse(granted)) => (granted.remote_address, granted.remote_ports),
        (_, other) => panic!("{other:?}"),
    };
    let view = &rig.client(id).unwrap().bindings[0];
    assert_eq!(view.remote, rule.remote);
    Ok((rule.remote, address, ports))
}

const POLICIES: [RemotePolicy; 3] = [RemotePolicy::None, RemotePolicy::Macro, RemotePolicy::Micro];

#[test]
fn remote_parameters_under_every_policy() {
    let peer = Address::Ipv4(PEER);
    let name = Address::Fqdn("example.net".to_owned());
    let v6 = Address::Ipv6(Ipv6Addr::LOCALHOST);
    let zero = Address::Ipv4(Ipv4Addr::UNSPECIFIED);
    let web = Ports::single(80);
    let two = Ports::Range { first: 80, count: 2 };
    let list = Ports::List(vec![80, 443]);
    let no_port = Ports::single(0);
    // The rule's remote, and the remote parameters of the answer.
    type Outcome = Result<(Remote, Address, Ports), u16>;
    let any: Outcome = Ok((Remote::Any, Address::ANY, Ports::ANY));
    let address: Outcome = Ok((Remote::Address(PEER), peer.clone(), Ports::ANY));
    let pair: Outcome = Ok((Remote::Port(SocketAddrV4::new(PEER, 80)), peer.clone(), web.clone()));
    // Remote address and ports asked for; what none, macro and micro make of them.
    let table: Vec<(Address, Ports, [Outcome; 3])> = vec![
        (Address::ANY, Ports::ANY, [any.clone(), Err(103), Err(103)]),
        (Address::DontCare(4), Ports::DontCare { count: 9 }, [any.clone(), Err(103), Err(103)]),
        (zero.clone(), no_port.clone(), [any.clone(), Err(103), Err(103)]),
        (zero, web.clone(), [any.clone(), Err(103), Err(103)]),
        (Address::ANY, web.clone(), [any.clone(), Err(103), Err(103)]),
        (peer.clone(), Ports::ANY, [any.clone(), address.clone(), Err(103)]),
        (peer.clone(), no_port, [any.clone(), address.clone(), Err(103)]),
        (peer.clone(), two, [any.clone(), address.clone(), Err(103)]),
        (peer.clone(), list, [any.clone(), address.clone(), Err(103)]),
        (peer, web.clone(), [any.clone(), address, pair]),
        (name, web.clone(), [any.clone(), Err(205), Err(205)]),
        (v6.clone(), web, [any.clone(), Err(314), Err(315)]),
        (v6, Ports::ANY, [any, Err(314), Err(103)]),
    ];
    for (address, ports, outcomes) in table {
        for (policy, outcome) in POLICIES.into_iter().zip(outcomes) {
            for kind in KINDS {
                let got =
                    ask(with_policy(LocalPolicy::Macro, policy), kind, (address.clone(), ports.clone()));
                assert_eq!(got, outcome, "{policy:?} {kind:?} {address:?} {ports:?}");
            }
        }
    }
}

#[test]
fn peers_with_whom_nobody_may_talk() {
    let deny = |network: [u8; 4], length, ports| RemoteDeny { network: (network.into(), length), ports };
    let remote_deny = vec![
        deny([198, 51, 100, 0], 24, 0..=65_535),
        deny([0, 0, 0, 0], 0, 25..=25),
        deny([203, 0, 113, 5], 32, 6000..=6063),
    ];
    let multicast = Ipv4Addr::new(224, 0, 0, 251);
    // What macro and micro make of this address and port; 0 is good.
    let table = [
        (Ipv4Addr::new(198, 51, 100, 7), 80, [314, 315], "a network, all ports"),
        (Ipv4Addr::new(198, 51, 101, 0), 80, [0, 0], "just beside it"),
        (PEER, 25, [0, 315], "a port, everywhere"),
        (PEER, 26, [0, 0], "the port beside it"),
        (PEER, 6063, [0, 315], "the last of a range of ports"),
        (PEER, 6064, [0, 0], "the port behind it"),
        (multicast, 5353, [314, 315], "multicast"),
        (Ipv4Addr::BROADCAST, 80, [314, 315], "broadcast"),
        (Ipv4Addr::LOCALHOST, 80, [314, 315], "loopback"),
        (Ipv4Addr::new(0, 0, 0, 9), 80, [314, 315], "this network"),
        (PUBLIC, 80, [314, 315], "an address of the pool"),
        (WHOLE, 80, [314, 315], "one that is leased whole"),
    ];
    for (address, port, expected, what) in table {
        for (policy, expected) in POLICIES[1..].iter().zip(expected) {
            for kind in KINDS {
                let config = with_policy(LocalPolicy::Macro, *policy);
                let config = GatewayConfig { remote_deny: remote_deny.clone(), ..config };
                let got = ask(config, kind, (Address::Ipv4(address), Ports::single(port)));
                assert_eq!(got.err().unwrap_or(0), expected, "{what}: {policy:?} {kind:?}");
            }
        }
    }
    // Without a remote policy nobody names a peer, so there is nothing to be denied.
    let config = GatewayConfig { remote_deny, ..with_policy(LocalPolicy::Macro, RemotePolicy::None) };
    assert!(ask(config, Kind::Assign, (Address::Ipv4(multicast), Ports::single(25))).is_ok());
}

#[test]
fn under_a_remote_policy_a_listener_is_for_its_peer_alone() {
    for policy in [RemotePolicy::Macro, RemotePolicy::Micro] {
        let mut rig = Rig::new(with_policy(LocalPolicy::Macro, policy));
        let id = rig.register(udp(2));
        let public = request(id, Kind::Listen, Ports::single(80), (Address::ANY, Ports::ANY));
        assert_eq!(code(&rig.ask(udp(2), 2, public), udp(2), 2), 103, "no public listener");
        let private = (Address::Ipv4(PEER), Ports::single(4000));
        let rule = rig.obtain_rule(udp(2), 3, request(id, Kind::Listen, Ports::single(80), private));
        assert_eq!(rule.remote.address(), Some(PEER));
        assert_eq!(rule.remote.port(), (policy == RemotePolicy::Micro).then_some(4000));
    }
}

#[test]
fn a_peer_is_of_one_lease_not_of_the_host() {
    let mut rig = Rig::new(with_policy(LocalPolicy::Macro, RemotePolicy::Macro));
    let id = rig.register(udp(2));
    let other = Ipv4Addr::new(203, 0, 113, 6);
    for (counter, address) in [(2, PEER), (3, other)] {
        let body =
            request(id, Kind::Assign, Ports::DontCare { count: 4 }, (Address::Ipv4(address), Ports::ANY));
        assert_eq!(rig.obtain_rule(udp(2), counter, body).remote, Remote::Address(address));
    }
    let remotes: Vec<_> = rig.client(id).unwrap().bindings.iter().map(|binding| binding.remote).collect();
    assert_eq!(remotes, [Remote::Address(PEER), Remote::Address(other)]);
}

#[test]
fn a_whole_address_is_not_leased_under_a_local_micro_flow_policy() {
    let mut rig = Rig::new(with_policy(LocalPolicy::Micro, RemotePolicy::None));
    let id = rig.register(udp(2));
    assert_eq!(refusal(&rig.ask(udp(2), 2, assign_whole(id)), udp(2), Some(2)), (103, Some(id), None));
    // Without addresses for it, it is not even known.
    let config = GatewayConfig {
        flow_policy: with_policy(LocalPolicy::Micro, RemotePolicy::None).flow_policy,
        ..config()
    };
    let mut rig = Rig::new(config);
    let id = rig.register(udp(2));
    assert_eq!(code(&rig.ask(udp(2), 2, assign_whole(id)), udp(2), 2), 208);
}

#[test]
fn local_micro_flow_policy_grants_one_port_at_a_time() {
    let table = [
        (Ports::DontCare { count: 1 }, true),
        (Ports::DontCare { count: 2 }, false),
        (Ports::single(80), true),
        (Ports::Range { first: 80, count: 2 }, false),
        (Ports::List(vec![80, 443]), false),
    ];
    for kind in [Kind::Assign, Kind::Listen] {
        for (ports, good) in &table {
            let mut rig = Rig::new(with_policy(LocalPolicy::Micro, RemotePolicy::None));
            let id = rig.register(udp(2));
            let body = request(id, kind, ports.clone(), (Address::ANY, Ports::ANY));
            if *good {
                assert_eq!(rig.obtain(udp(2), 2, body).local_ports.iter().count(), 1);
            } else {
                assert_eq!(
                    refusal(&rig.ask(udp(2), 2, body), udp(2), Some(2)),
                    (103, Some(id), None),
                    "{ports:?}"
                );
            }
        }
    }
}
