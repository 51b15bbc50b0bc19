//! Remote flow policies (RFC 3103 section 7.2).

use std::net::SocketAddrV4;

use super::*;
use crate::host::{GatewayState, Method, Mismatch, SavedBinding};

const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 443);

/// A host for this peer, registered under this policy.
fn registered(method: Method, remote: Remote, policy: RemotePolicy) -> Dialogue {
    let config = HostConfig { method, remote, ..with_block(4) };
    Dialogue::registered_by(config, register_response_with(LocalPolicy::Macro, policy))
}

fn remote_of(body: &Body) -> (&Address, &Ports) {
    match body {
        Body::AssignRequestRsaIp(it) => (&it.remote_address, &it.remote_ports),
        Body::AssignRequestRsapIp(it) => (&it.remote_address, &it.remote_ports),
        Body::ListenRequest(it) => (&it.remote_address, &it.remote_ports),
        other => panic!("ASSIGN or LISTEN expected, not {other:?}"),
    }
}

/// What was asked, granted for this peer.
fn granted_for(request: &Body, bind_id: u32, (address, ports): (Address, Ports)) -> Body {
    let port = |ports: &Ports| match ports {
        Ports::DontCare { count } => Ports::Range { first: 10_000, count: *count },
        named => named.clone(),
    };
    match request {
        Body::AssignRequestRsaIp(_) => match address_response(CLIENT, bind_id, PUBLIC) {
            Body::AssignResponseRsaIp(it) => Body::AssignResponseRsaIp(AssignResponseRsaIp {
                remote_address: address,
                remote_ports: ports,
                ..it
            }),
            other => other,
        },
        Body::AssignRequestRsapIp(it) => Body::AssignResponseRsapIp(PortBinding {
            remote_address: address,
            remote_ports: ports,
            ..port_binding(CLIENT, bind_id, port(&it.local_ports))
        }),
        Body::ListenRequest(it) => Body::ListenResponse(PortBinding {
            remote_address: address,
            remote_ports: ports,
            ..port_binding(CLIENT, bind_id, port(&it.local_ports))
        }),
        other => panic!("ASSIGN or LISTEN expected, not {other:?}"),
    }
}

#[test]
fn the_peer_is_named_as_the_policy_wants_in_assign_and_listen() {
    let any = (Address::ANY, Ports::ANY);
    let address = (Address::Ipv4(*PEER.ip()), Ports::ANY);
    let port = (Address::Ipv4(*PEER.ip()), Ports::single(443));
    let cases = [
        (Remote::Any, RemotePolicy::None, any.clone(), Remote::Any),
        (Remote::Port(PEER), RemotePolicy::None, any, Remote::Any),
        (Remote::Address(*PEER.ip()), RemotePolicy::Macro, address.clone(), Remote::Address(*PEER.ip())),
        (Remote::Port(PEER), RemotePolicy::Macro, address, Remote::Address(*PEER.ip())),
        (Remote::Port(PEER), RemotePolicy::Micro, port, Remote::Port(PEER)),
    ];
    for (remote, policy, named, expected) in cases {
        for method in [Method::RsapIp, Method::RsaIp] {
            let mut it = registered(method, remote, policy);
            if method == Method::RsapIp {
                it.host.want_port(80, it.now);
            }
            let mut asked = 0;
            while let Some(request) = sends(&it.commands()).pop() {
                assert_eq!(remote_of(&request), (&named.0, &named.1), "{policy:?}");
                asked += 1;
                it.answer(granted_for(&request, asked, named.clone()));
                it.look();
                it.done(Ok(()));
            }
            assert_eq!(asked, if method == Method::RsapIp { 2 } else { 1 });
            let view = it.host.view(it.now);
            assert!(view.bindings.iter().all(|it| it.binding.remote == expected), "{view:?}");
        }
    }
}

#[test]
fn a_gateway_that_demands_a_peer_where_none_is_configured_is_left_at_once() {
    let address = Remote::Address(*PEER.ip());
    for (remote, policy, mismatch) in [
        (Remote::Any, RemotePolicy::Macro, Mismatch::RemoteAddress),
        (Remote::Any, RemotePolicy::Micro, Mismatch::RemotePort),
        (address, RemotePolicy::Micro, Mismatch::RemotePort),
    ] {
        let mut it = registered(Method::RsapIp, remote, policy);
        let commands = it.commands();
        assert_eq!(commands[0], change(RegistrationChange::Unsuitable(mismatch)));
        assert_eq!(sends(&commands), [Body::DeRegisterRequest { client_id: CLIENT }], "nothing is asked for");
        assert_eq!(it.host.view(it.now).gateway, GatewayState::Unsuitable(mismatch));
    }
}

#[test]
fn a_grant_for_another_peer_goes_back() {
    let other = Address::Ipv4(Ipv4Addr::new(198, 51, 100, 8));
    let peer = Address::Ipv4(*PEER.ip());
    let bad = [
        (RemotePolicy::Macro, other.clone(), Ports::ANY),
        (RemotePolicy::Macro, Address::ANY, Ports::ANY),
        (RemotePolicy::Macro, peer.clone(), Ports::single(443)),
        (RemotePolicy::Macro, Address::Fqdn("peer.example".to_owned()), Ports::ANY),
        (RemotePolicy::Micro, peer.clone(), Ports::single(444)),
        (RemotePolicy::Micro, peer.clone(), Ports::ANY),
        (RemotePolicy::Micro, peer.clone(), Ports::Range { first: 443, count: 2 }),
        (RemotePolicy::Micro, other, Ports::single(443)),
        (RemotePolicy::None, peer.clone(), Ports::ANY),
        (RemotePolicy::None, Address::ANY, Ports::single(443)),
        (RemotePolicy::None, peer, Ports::single(443)),
    ];
    for (policy, address, ports) in bad {
        for method in [Method::RsapIp, Method::RsaIp] {
            let mut it = registered(method, Remote::Port(PEER), policy);
            let request = sends(&it.commands()).remove(0);
            it.answer(granted_for(&request, 7, (address.clone(), ports.clone())));
            let commands = it.commands();
            assert!(!commands.iter().any(|it| matches!(it, HostCommand::Publish { .. })), "{commands:?}");
            assert_eq!(sends(&commands), [free_request(7)], "{policy:?} {address} {ports}");
        }
    }
}

#[test]
fn all_zeros_are_read_as_dont_care() {
    let mut it = registered(Method::RsapIp, Remote::Any, RemotePolicy::None);
    let request = sends(&it.commands()).remove(0);
    it.answer(granted_for(&request, 7, (Address::Ipv4(Ipv4Addr::UNSPECIFIED), Ports::single(0))));
    assert!(matches!(it.commands().as_slice(), [HostCommand::Publish { .. }]));
}

#[test]
fn what_an_earlier_run_leased_for_another_peer_is_given_back() {
    let policy = FlowPolicy { local: LocalPolicy::Macro, remote: RemotePolicy::Macro };
    let other = Remote::Address(Ipv4Addr::new(198, 51, 100, 8));
    let mut old = listener(5, 80);
    old.remote = other;
    let state = SavedState {
        client_id: Some(CLIENT),
        flow_policy: Some(policy),
        in_doubt: false,
        bindings: vec![SavedBinding { binding: old, lease_time: secs(600), releasing: false }],
    };
    let start = |remote| {
        let mut it = Dialogue::resume(HostConfig { remote, ..tcp() }, state.clone());
        it.host.start(it.now);
        it.host.handle_transport_up(it.now);
        sends(&it.commands())
    };
    assert_eq!(start(other), [extend_request(5)]);
    assert_eq!(start(Remote::Port(PEER)), [free_request(5)], "and then the same port for the new peer");
    let forget = Body::DeRegisterRequest { client_id: CLIENT };
    assert_eq!(start(Remote::Any), [forget], "not under this policy: begin anew");
}
