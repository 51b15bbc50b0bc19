//! Flow policies (RFC 3103 section 7): every combination of policy and remote parameters.

use std::net::{Ipv4Addr, Ipv6Addr};

use rsip_proto::gateway::GatewayConfig;
use rsip_proto::ids::ClientId;
use rsip_proto::wire::message::{AssignRequestRsapIp, ListenRequest};
use rsip_proto::wire::{Address, Body, FlowPolicy, LocalPolicy, Ports, RemotePolicy};

use crate::rig::*;

fn request(client_id: ClientId, listen: bool, local_ports: Ports, remote: (Address, Ports)) -> Body {
    let (remote_address, remote_ports) = remote;
    let (local_address, lease_time) = (Address::ANY, None);
    if listen {
        let tunnel_types = Vec::new();
        Body::ListenRequest(ListenRequest {
            client_id,
            local_address,
            local_ports,
            remote_address,
            remote_ports,
            lease_time,
            tunnel_types,
        })
    } else {
        Body::AssignRequestRsapIp(AssignRequestRsapIp {
            client_id,
            local_address,
            local_ports,
            remote_address,
            remote_ports,
            lease_time,
            tunnel_type: None,
        })
    }
}

fn with_policy(local: LocalPolicy, remote: RemotePolicy) -> GatewayConfig {
    GatewayConfig { flow_policy: FlowPolicy { local, remote }, ..config() }
}

#[test]
fn remote_parameters_under_every_policy() {
    let peer = Address::Ipv4(Ipv4Addr::new(203, 0, 113, 5));
    let name = Address::Fqdn("example.net".to_owned());
    let v6 = Address::Ipv6(Ipv6Addr::LOCALHOST);
    let zero = Address::Ipv4(Ipv4Addr::UNSPECIFIED);
    let web = Ports::single(80);
    let two = Ports::Range { first: 80, count: 2 };
    let no_port = Ports::single(0);
    let open = || Ok((Address::ANY, Ports::ANY));
    // Remote address and ports asked for; what none, macro and micro make of them: the answer's, or an error.
    type Outcome = Result<(Address, Ports), u16>;
    let table: Vec<(Address, Ports, [Outcome; 3])> = vec![
        (Address::ANY, Ports::ANY, [open(), Err(103), Err(103)]),
        (zero, no_port.clone(), [open(), Err(103), Err(103)]),
        (Address::ANY, web.clone(), [open(), Err(103), Err(103)]),
        (peer.clone(), Ports::ANY, [open(), Ok((peer.clone(), Ports::ANY)), Err(103)]),
        (peer.clone(), no_port, [open(), Ok((peer.clone(), Ports::ANY)), Err(103)]),
        (peer.clone(), two, [open(), Ok((peer.clone(), Ports::ANY)), Err(103)]),
        (
            peer.clone(),
            web.clone(),
            [open(), Ok((peer.clone(), Ports::ANY)), Ok((peer.clone(), web.clone()))],
        ),
        (name, web.clone(), [open(), Err(205), Err(205)]),
        (v6, web, [open(), Err(314), Err(315)]),
    ];
    for (address, ports, outcomes) in table {
        let policies = [RemotePolicy::None, RemotePolicy::Macro, RemotePolicy::Micro];
        for (policy, outcome) in policies.into_iter().zip(outcomes) {
            for listen in [false, true] {
                let mut rig = Rig::new(with_policy(LocalPolicy::Macro, policy));
                let id = rig.register(udp(2));
                let body =
                    request(id, listen, Ports::DontCare { count: 4 }, (address.clone(), ports.clone()));
                let what = format!("{policy:?} {address:?} {ports:?} listen {listen}");
                match &outcome {
                    Ok(remote) => {
                        let granted = rig.obtain(udp(2), 2, body);
                        assert_eq!(
                            (&granted.remote_address, &granted.remote_ports),
                            (&remote.0, &remote.1),
                            "{what}"
                        );
                    }
                    Err(expected) => {
                        assert_eq!(code(&rig.ask(udp(2), 2, body), udp(2), 2), *expected, "{what}");
                        assert_eq!(rig.pool()[0], 0, "{what}");
                    }
                }
            }
        }
    }
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
    for listen in [false, true] {
        for (ports, good) in &table {
            let mut rig = Rig::new(with_policy(LocalPolicy::Micro, RemotePolicy::None));
            let id = rig.register(udp(2));
            let body = request(id, listen, ports.clone(), (Address::ANY, Ports::ANY));
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

#[test]
fn the_tunnel_is_looked_at_before_the_detail_and_the_detail_before_the_ports() {
    let mut rig = Rig::new(GatewayConfig {
        tunnel_types: Vec::new(),
        ..with_policy(LocalPolicy::Micro, RemotePolicy::Micro)
    });
    let id = rig.register(udp(2));
    let too_much = request(id, true, Ports::Range { first: 22, count: 2 }, (Address::ANY, Ports::ANY));
    assert_eq!(code(&rig.ask(udp(2), 2, too_much.clone()), udp(2), 2), 307);
    let mut rig = Rig::new(with_policy(LocalPolicy::Micro, RemotePolicy::None));
    rig.register(udp(2));
    let id = rig.gateway.view(rig.now).clients[0].client_id;
    let Body::ListenRequest(request) = too_much else { panic!("a listen request") };
    let again = Body::ListenRequest(ListenRequest { client_id: id, ..request });
    assert_eq!(code(&rig.ask(udp(2), 2, again), udp(2), 2), 103);
}
