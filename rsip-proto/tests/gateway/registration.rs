//! REGISTER and DE-REGISTER without bindings (RFC 3103 sections 9.2 to 9.5).

use rsip_proto::gateway::{ClientState, Event, GatewayCommand, RemovalReason, TransportKind};
use rsip_proto::ids::ClientId;
use rsip_proto::wire::{Body, ErrorCode, FlowPolicy, LocalPolicy, Message, RemotePolicy, TunnelType};

use crate::rig::*;

#[test]
fn registers_a_host_with_lease_policy_and_offers() {
    let mut rig = Rig::new(config());
    let host = udp(2);
    assert_eq!(rig.wakes_at(), None);
    let commands = rig.ask(host, 1, Body::RegisterRequest);
    let [client] = &rig.gateway.view(rig.now).clients[..] else { panic!("one client") };
    let id = client.client_id;
    assert_eq!(
        commands,
        [
            GatewayCommand::Event(Event::Registered { client_id: id, host: *host.address.ip() }),
            send(host, 1, registered(id)),
        ]
    );
    assert_eq!(rig.wakes_at(), Some(600.0));
    assert_eq!((client.state, client.transport), (ClientState::Registered, TransportKind::Udp));
    assert_eq!((client.host, client.bindings.len()), (*host.address.ip(), 0));
}

#[test]
fn states_the_configured_policy_tunnels_and_lease() {
    let flow_policy = FlowPolicy { local: LocalPolicy::Micro, remote: RemotePolicy::Micro };
    let tunnel_types = vec![TunnelType::Gre, TunnelType::IpIp];
    let mut rig = Rig::new({
        let lease_time = std::time::Duration::from_secs(7);
        rsip_proto::gateway::GatewayConfig {
            flow_policy,
            tunnel_types: tunnel_types.clone(),
            lease_time,
            ..config()
        }
    });
    let commands = rig.ask(tcp(2, 1), 1, Body::RegisterRequest);
    let Some(GatewayCommand::Send { message, .. }) = commands.last() else { panic!("{commands:?}") };
    let Body::RegisterResponse { lease_time: 7, flow_policy: policy, tunnel_types: tunnels, .. } =
        &message.body
    else {
        panic!("{message:?}");
    };
    assert_eq!((*policy, tunnels), (flow_policy, &tunnel_types));
    assert_eq!(rig.wakes_at(), Some(7.0));
}

#[test]
fn registers_over_tcp_without_counter() {
    let mut rig = Rig::new(config());
    let host = tcp(2, 1);
    let commands = rig.ask_message(host, &Message { counter: None, body: Body::RegisterRequest });
    let Some(GatewayCommand::Send { to, message }) = commands.last() else { panic!("{commands:?}") };
    assert_eq!((*to, message.counter), (host, None));
    assert_eq!(rig.gateway.view(rig.now).clients[0].transport, TransportKind::Tcp);
}

#[test]
fn gives_every_host_another_name_that_its_neighbour_cannot_count_up_to() {
    let mut rig = Rig::new(config());
    let mut ids: Vec<ClientId> = (1..=200).map(|host| rig.register(udp(host))).collect();
    assert!(ids.windows(2).any(|pair| pair[0].0.abs_diff(pair[1].0) > 1 << 16));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 200);
    assert!(!ids.contains(&ClientId(0)));
}

#[test]
fn names_depend_on_the_seed() {
    let name = |seed| {
        let mut gateway = rsip_proto::gateway::Gateway::new(config(), seed).expect("a good pool");
        gateway.handle_input(udp(2), &[1, 2, 0, 11, 11, 0, 4, 0, 0, 0, 1], std::time::Instant::now());
        gateway.view(std::time::Instant::now()).clients[0].client_id
    };
    assert_eq!(name(1), name(1));
    assert_ne!(name(1), name(2));
}

#[test]
fn a_second_registration_is_told_the_name_of_the_first() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    // Another port of the same host: the host is its address.
    let other = udp_from(2, 6000);
    let commands = rig.ask(other, 1, Body::RegisterRequest);
    assert_eq!(refusal(&commands, other, Some(1)), (302, Some(id), None));
    assert_eq!(rig.gateway.view(rig.now).clients.len(), 1);
}

#[test]
fn a_restarted_host_finds_back() {
    let mut rig = Rig::new(config());
    let host = udp(2);
    let old = rig.register(host);
    rig.ask(host, 2, query(old));
    // RFC 3103 section 10.2.1: register, learn the old name, leave, register. Counters start again at 1.
    rig.at(100);
    assert_eq!(refusal(&rig.ask(host, 1, Body::RegisterRequest), host, Some(1)), (302, Some(old), None));
    let commands = rig.ask(host, 2, leave(old));
    assert_eq!(commands, [unregistered(old, 2, RemovalReason::DeRegistered), send(host, 2, left(old))]);
    let commands = rig.ask(host, 3, Body::RegisterRequest);
    let new = rig.gateway.view(rig.now).clients[0].client_id;
    assert_ne!(old, new);
    assert_eq!(commands.last(), Some(&send(host, 3, registered(new))));
}

#[test]
fn refuses_more_hosts_than_allowed() {
    let mut rig = Rig::new(rsip_proto::gateway::GatewayConfig { max_clients: 2, ..config() });
    let first = rig.register(udp(2));
    rig.register(udp(3));
    let commands = rig.ask(udp(4), 1, Body::RegisterRequest);
    assert_eq!(refusal(&commands, udp(4), Some(1)), (304, None, None));
    rig.ask(udp(2), 2, leave(first));
    rig.register(udp_from(4, 6000));
}

#[test]
fn every_other_request_needs_a_registration() {
    let mut rig = Rig::new(config());
    let nobody = ClientId(9);
    let requests = [
        leave(nobody),
        assign(nobody, 1),
        listen_on(nobody, 80),
        extend(nobody, 1, None),
        free(nobody, 1),
        query(nobody),
    ];
    for (counter, body) in (1..).zip(requests) {
        let commands = rig.ask(udp(2), counter, body);
        assert_eq!(refusal(&commands, udp(2), Some(counter)), (301, Some(nobody), None));
    }
    assert_eq!(rig.wakes_at(), None);
}

#[test]
fn every_other_request_needs_the_right_name() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    let wrong = ClientId(id.0 ^ 1);
    let requests = [
        leave(wrong),
        assign(wrong, 1),
        listen_on(wrong, 80),
        extend(wrong, 1, None),
        free(wrong, 1),
        query(wrong),
    ];
    for (counter, body) in (2..).zip(requests) {
        let commands = rig.ask(udp(2), counter, body);
        assert_eq!(refusal(&commands, udp(2), Some(counter)), (305, Some(wrong), None));
    }
    // And nobody uses the name from another address.
    let other = rig.register(udp(3));
    assert_eq!(code(&rig.ask(udp(3), 2, query(id)), udp(3), 2), 305);
    assert!(rig.client(id).is_some() && rig.client(other).is_some());
}

#[test]
fn a_registration_keeps_its_transport() {
    let mut rig = Rig::new(config());
    let by_tcp = rig.register(tcp(2, 1));
    let by_udp = rig.register(udp(3));
    assert_eq!(code(&rig.ask(udp(2), 2, query(by_tcp)), udp(2), 2), 102);
    assert_eq!(code(&rig.ask(tcp(3, 2), 2, query(by_udp)), tcp(3, 2), 2), 301);
    // Registering over the other one tells the name, and with the name a host that changed can leave and come back.
    let commands = rig.ask(udp(2), 3, Body::RegisterRequest);
    assert_eq!(refusal(&commands, udp(2), Some(3)), (302, Some(by_tcp), None));
    assert_eq!(code(&rig.ask(udp(2), 4, leave(by_udp)), udp(2), 4), 305);
    assert_eq!(rig.ask(udp(2), 5, leave(by_tcp)).last(), Some(&send(udp(2), 5, left(by_tcp))));
    rig.ask(udp(2), 6, Body::RegisterRequest);
    let kinds: Vec<_> = rig.gateway.view(rig.now).clients.iter().map(|client| client.transport).collect();
    assert_eq!(kinds, [TransportKind::Udp; 2]);
}

#[test]
fn a_refused_request_over_the_other_transport_does_not_move_the_host() {
    let mut rig = Rig::new(config());
    let id = rig.register(tcp(2, 1));
    rig.at(10).ask(udp(2), 1, query(id));
    assert_eq!(rig.wakes_at(), Some(600.0));
    rig.gateway.release_client(id, rig.now);
    assert_eq!(rig.commands(), [send(tcp(2, 1), 0, left(id)), unregistered(id, 2, RemovalReason::Revoked)]);
}

#[test]
fn leaving_twice_is_an_error_the_second_time() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    rig.ask(udp(2), 2, leave(id));
    assert_eq!(code(&rig.ask(udp(2), 3, leave(id)), udp(2), 3), ErrorCode::RegisterFirst.number());
    assert_eq!(rig.wakes_at(), None);
}
