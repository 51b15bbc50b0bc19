//! ASSIGN, LISTEN, EXTEND, FREE and QUERY where all goes well (RFC 3103 sections 9.8 to 9.17).

use std::net::Ipv4Addr;

use rsip_proto::gateway::{
    BindingState, ClientState, Event, GatewayCommand, GatewayConfig, RemovalReason, Rule,
};
use rsip_proto::ids::BindId;
use rsip_proto::lease::Remote;
use rsip_proto::wire::message::{AssignRequestRsapIp, ListenRequest};
use rsip_proto::wire::{Address, Body, Ports, QueryTuple, TunnelType};

use crate::rig::*;

#[test]
fn assigns_a_block_and_answers_after_the_data_path_holds() {
    let mut rig = Rig::new(config());
    let host = udp(2);
    let id = rig.register(host);
    let block = rule(id, 1, 2, Ports::Range { first: 10_000, count: 255 });
    assert_eq!(rig.at(1).ask(host, 2, assign(id, 255)), [install(1, block.clone())]);
    assert_eq!(rig.pool()[0], 255, "taken before the data path is asked");
    let view = rig.client(id).expect("registered");
    assert_eq!((view.state, view.bindings[0].state), (ClientState::Assigned, BindingState::Installing));

    // The lease begins with the answer.
    assert_eq!(
        rig.at(3).done(1),
        [send(host, 2, Body::AssignResponseRsapIp(granted(&block, LEASE))), bound(block, LEASE, false),]
    );
    assert_eq!(rig.wakes_at(), Some(603.0));
    let view = rig.at(4).client(id).expect("registered");
    assert_eq!(view.bindings[0].state, BindingState::Active);
    assert_eq!((view.bindings[0].lease_left.as_secs(), view.bindings[0].lease_time.as_secs()), (599, 600));
}

#[test]
fn listens_on_a_named_port() {
    let mut rig = Rig::new(config());
    let host = tcp(2, 1);
    let id = rig.register(host);
    let web = rule(id, 1, 2, Ports::single(80));
    assert_eq!(rig.ask(host, 2, listen_on(id, 80)), [install(1, web.clone())]);
    assert_eq!(
        rig.done(1),
        [send(host, 2, Body::ListenResponse(granted(&web, LEASE))), bound(web, LEASE, true)]
    );
}

#[test]
fn listens_on_several_ports_and_on_ports_of_its_own_choice() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    let named = rig.obtain(udp(2), 2, listen_ports(id, Ports::List(vec![80, 443])));
    assert_eq!(named.local_ports, Ports::List(vec![80, 443]));
    let chosen = rig.obtain(udp(2), 3, listen_ports(id, Ports::DontCare { count: 4 }));
    assert_eq!(chosen.local_ports, Ports::Range { first: 10_000, count: 4 });
}

#[test]
fn a_block_asked_for_by_number_is_given_again() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    let block = Ports::Range { first: 10_300, count: 100 };
    assert_eq!(rig.obtain(udp(2), 2, assign_ports(id, block.clone())).local_ports, block);
    rig.ask(udp(2), 3, free(id, 1));
    rig.done(2);
    assert_eq!(rig.pool(), [0, 100, 1922]);
    assert_eq!(
        rig.obtain(udp(2), 4, assign_ports(id, block.clone())).local_ports,
        block,
        "also while it rests"
    );
    assert_eq!(rig.pool(), [100, 0, 1922]);
}

#[test]
fn two_hosts_get_different_ports() {
    let mut rig = Rig::new(config());
    let (a, b) = (rig.register(udp(2)), rig.register(udp(3)));
    assert_eq!(rig.obtain(udp(2), 2, assign(a, 255)).local_ports, Ports::Range { first: 10_000, count: 255 });
    assert_eq!(rig.obtain(udp(3), 2, assign(b, 255)).local_ports, Ports::Range { first: 10_255, count: 255 });
    rig.obtain(udp(2), 3, listen_on(a, 80));
    assert_eq!(code(&rig.ask(udp(3), 3, listen_on(b, 80)), udp(3), 3), 311);
    assert_eq!(
        code(&rig.ask(udp(2), 4, listen_on(a, 80)), udp(2), 4),
        311,
        "nor does its holder get it twice"
    );
}

#[test]
fn a_port_that_is_being_installed_is_taken() {
    let mut rig = Rig::new(config());
    let (a, b) = (rig.register(udp(2)), rig.register(udp(3)));
    rig.ask(udp(2), 2, listen_on(a, 80));
    assert_eq!(code(&rig.ask(udp(3), 2, listen_on(b, 80)), udp(3), 2), 311);
}

#[test]
fn bind_ids_are_the_hosts_own() {
    let mut rig = Rig::new(config());
    let (a, b) = (rig.register(udp(2)), rig.register(udp(3)));
    assert_eq!(rig.obtain(udp(2), 2, listen_on(a, 80)).bind_id, BindId(1));
    assert_eq!(rig.obtain(udp(2), 3, listen_on(a, 81)).bind_id, BindId(2));
    assert_eq!(rig.obtain(udp(3), 2, listen_on(b, 82)).bind_id, BindId(1));
    // Host 3 cannot touch what host 2 calls 2.
    assert_eq!(refusal(&rig.ask(udp(3), 3, free(b, 2)), udp(3), Some(3)), (306, Some(b), Some(BindId(2))));
    assert_eq!(
        refusal(&rig.ask(udp(3), 4, extend(b, 2, None)), udp(3), Some(4)),
        (306, Some(b), Some(BindId(2)))
    );
}

#[test]
fn frees_after_the_data_path_has_forgotten() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(id, 80));
    let web = rule(id, 1, 2, Ports::single(80));
    assert_eq!(rig.ask(udp(2), 3, free(id, 1)), [remove(2, web.clone())]);
    assert_eq!(rig.client(id).expect("registered").bindings[0].state, BindingState::Removing);
    // Until then the port is taken, and the binding is no longer there to be used.
    let other = rig.register(udp(3));
    assert_eq!(code(&rig.ask(udp(3), 2, listen_on(other, 80)), udp(3), 2), 311);
    assert_eq!(code(&rig.ask(udp(2), 4, extend(id, 1, None)), udp(2), 4), 306);
    assert_eq!(rig.done(2), [send(udp(2), 3, freed(id, 1)), unbound(web, RemovalReason::Freed)]);
    assert_eq!(rig.client(id).expect("registered").state, ClientState::Registered);
    assert_eq!(rig.obtain(udp(3), 3, listen_on(other, 80)).local_ports, Ports::single(80));
}

#[test]
fn extends_from_now_on() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(id, 80));
    rig.at(300);
    let answer = |lease_time| Body::ExtendResponse { client_id: id, bind_id: BindId(1), lease_time };
    let event =
        |lease_time| GatewayCommand::Event(Event::Extended { client_id: id, bind_id: BindId(1), lease_time });
    assert_eq!(rig.ask(udp(2), 3, extend(id, 1, None)), [send(udp(2), 3, answer(600)), event(600)]);
    assert_eq!(rig.wakes_at(), Some(900.0));
    assert_eq!(rig.ask(udp(2), 4, extend(id, 1, Some(1800))), [send(udp(2), 4, answer(1800)), event(1800)]);
    assert_eq!(rig.wakes_at(), Some(2100.0));
    // Less than is left does not shorten.
    rig.at(400);
    assert_eq!(rig.ask(udp(2), 5, extend(id, 1, Some(10))), [send(udp(2), 5, answer(1700)), event(1700)]);
    // More than allowed is cut.
    assert_eq!(
        rig.ask(udp(2), 6, extend(id, 1, Some(u32::MAX))),
        [send(udp(2), 6, answer(3600)), event(3600)]
    );
}

#[test]
fn grants_the_wished_lease_within_bounds() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    let with_wish = |lease_time| {
        Body::AssignRequestRsapIp(AssignRequestRsapIp {
            client_id: id,
            local_address: Address::ANY,
            local_ports: Ports::DontCare { count: 1 },
            remote_address: Address::ANY,
            remote_ports: Ports::ANY,
            lease_time,
            tunnel_type: None,
        })
    };
    let table = [(None, 600), (Some(0), 600), (Some(1), 1), (Some(3600), 3600), (Some(u32::MAX), 3600)];
    for (counter, (wish, lease)) in (2..).zip(table) {
        assert_eq!(rig.obtain(udp(2), counter, with_wish(wish)).lease_time, lease, "{wish:?}");
    }
}

#[test]
fn chooses_the_first_tunnel_of_the_host_that_it_has() {
    let tunnel_types = vec![TunnelType::IpIp, TunnelType::Gre];
    let mut rig = Rig::new(GatewayConfig { tunnel_types, ..config() });
    let with = |client_id, tunnel_types: &[TunnelType]| {
        Body::ListenRequest(ListenRequest {
            client_id,
            local_address: Address::ANY,
            local_ports: Ports::DontCare { count: 1 },
            remote_address: Address::ANY,
            remote_ports: Ports::ANY,
            lease_time: None,
            tunnel_types: tunnel_types.to_vec(),
        })
    };
    use TunnelType::{Gre, IpIp, L2tp, Other};
    let table: [(&[TunnelType], TunnelType); 4] =
        [(&[], IpIp), (&[Gre], Gre), (&[L2tp, Gre, IpIp], Gre), (&[Other(99), IpIp], IpIp)];
    for (host, (wanted, given)) in (10..).zip(table) {
        let id = rig.register(udp(host));
        assert_eq!(rig.obtain(udp(host), 2, with(id, wanted)).tunnel_type, given, "{wanted:?}");
    }
    let id = rig.register(udp(2));
    assert_eq!(refusal(&rig.ask(udp(2), 9, with(id, &[L2tp])), udp(2), Some(9)), (307, Some(id), None));
    let one = Body::AssignRequestRsapIp(AssignRequestRsapIp {
        client_id: id,
        local_address: Address::ANY,
        local_ports: Ports::DontCare { count: 1 },
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: None,
        tunnel_type: Some(L2tp),
    });
    assert_eq!(code(&rig.ask(udp(2), 10, one), udp(2), 10), 307);
}

#[test]
fn a_host_has_one_tunnel_and_the_first_lease_decides_which() {
    use TunnelType::{Gre, IpIp};
    let mut rig = Rig::new(GatewayConfig { tunnel_types: vec![IpIp, Gre], ..config() });
    let id = rig.register(udp(2));
    let with = |tunnel_type| {
        Body::AssignRequestRsapIp(AssignRequestRsapIp {
            client_id: id,
            local_address: Address::ANY,
            local_ports: Ports::DontCare { count: 1 },
            remote_address: Address::ANY,
            remote_ports: Ports::ANY,
            lease_time: None,
            tunnel_type,
        })
    };
    let listen = |tunnel_types: &[TunnelType]| {
        Body::ListenRequest(ListenRequest {
            client_id: id,
            local_address: Address::ANY,
            local_ports: Ports::DontCare { count: 1 },
            remote_address: Address::ANY,
            remote_ports: Ports::ANY,
            lease_time: None,
            tunnel_types: tunnel_types.to_vec(),
        })
    };
    assert_eq!(rig.obtain(udp(2), 2, with(Some(Gre))).tunnel_type, Gre);
    // The gateway's favourite is another one, and the host's first wish too: neither matters any more.
    assert_eq!(rig.obtain(udp(2), 3, with(None)).tunnel_type, Gre);
    assert_eq!(rig.obtain(udp(2), 4, listen(&[IpIp, Gre])).tunnel_type, Gre);
    assert_eq!(code(&rig.ask(udp(2), 5, with(Some(IpIp))), udp(2), 5), 307);
    assert_eq!(code(&rig.ask(udp(2), 6, listen(&[IpIp])), udp(2), 6), 307);
    let other = rig.register(udp(3));
    assert_eq!(rig.obtain(udp(3), 2, listen_on(other, 443)).tunnel_type, IpIp, "of another host");
}

#[test]
fn the_rule_says_where_packets_go() {
    let mut rig = Rig::new(GatewayConfig { tunnel_types: vec![TunnelType::Gre], ..config() });
    let id = rig.register(udp(77));
    let commands = rig.ask(udp(77), 2, listen_on(id, 443));
    let expected = Rule {
        client_id: id,
        bind_id: BindId(1),
        host: Ipv4Addr::new(10, 0, 0, 77),
        address: PUBLIC,
        leased: Ports::single(443).into(),
        remote: Remote::Any,
        tunnel: TunnelType::Gre,
    };
    assert_eq!(commands, [install(1, expected)]);
}

#[test]
fn answers_queries_from_the_private_networks() {
    let private_nets = vec![(Ipv4Addr::new(10, 0, 0, 0), 8)];
    let mut rig = Rig::new(GatewayConfig { private_nets, ..config() });
    let id = rig.register(udp(2));
    let address =
        |local, last| QueryTuple::Address { local, address: Address::Ipv4(Ipv4Addr::new(last, 1, 1, 1)) };
    let asked = Body::QueryRequest { client_id: id, tuples: vec![address(false, 10), address(false, 11)] };
    let told = Body::QueryResponse { client_id: id, tuples: vec![address(true, 10)] };
    assert_eq!(rig.ask(udp(2), 2, asked), [send(udp(2), 2, told)]);
    let all = Body::QueryResponse {
        client_id: id,
        tuples: vec![QueryTuple::Network {
            local: true,
            network: Address::Ipv4(Ipv4Addr::new(10, 0, 0, 0)),
            netmask: Address::Netmask(Ipv4Addr::new(255, 0, 0, 0)),
        }],
    };
    assert_eq!(rig.ask(udp(2), 3, query(id)), [send(udp(2), 3, all)]);
}
