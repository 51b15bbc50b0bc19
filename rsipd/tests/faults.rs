//! What hosts are told unasked: their own data misused, a gateway that fails, and who is not heard at all.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say so")]

mod common;

use std::net::Ipv4Addr;

use common::{TestGateway, assign, config, granted, limits, listen};
use rsip_proto::gateway::Misuse;
use rsip_proto::ids::{ClientId, MessageCounter};
use rsip_proto::wire::{Body, ErrorCode, Message};
use rsipd::daemon::DaemonError;
use rsipd::datapath::fake::Call;
use rsipd::listener::{Audience, Input};

const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// That this is an error that nobody asked for, of this host.
fn assert_told(bytes: &[u8], code: ErrorCode, client_id: ClientId) {
    let message = Message::parse(bytes).unwrap();
    assert_eq!(message.counter, Some(MessageCounter::ASYNCHRONOUS));
    let expected = Body::ErrorResponse { error: code, client_id: Some(client_id), bind_id: None };
    assert_eq!(message.body, expected);
}

#[tokio::test]
async fn a_host_whose_data_was_dropped_is_told_why() {
    let gateway = TestGateway::start();
    let mut by_udp = gateway.udp_from(FIRST).await;
    let mut by_tcp = gateway.tcp_from(SECOND).await.unwrap();
    let (first, second) = (by_udp.register().await, by_tcp.register().await);
    for (misuse, code) in [
        (Misuse::LocalAddress, ErrorCode::LocalAddrUnallowed),
        (Misuse::LocalPort, ErrorCode::LocalAddrportUnallowed),
        (Misuse::RemoteAddress, ErrorCode::RemoteAddrUnallowed),
        (Misuse::RemotePort, ErrorCode::RemoteAddrportUnallowed),
        (Misuse::Tunnel, ErrorCode::BadTunnelType),
    ] {
        gateway.datapath.report(FIRST, misuse);
        assert_told(&by_udp.receive().await, code, first);
        gateway.datapath.report(SECOND, misuse);
        assert_told(&by_tcp.receive().await.expect("told"), code, second);
    }
    // Both go on as before.
    granted(by_udp.ask(listen(first, 80)).await);
    granted(by_tcp.ask(listen(second, 81)).await);
    let state = gateway.state().await;
    assert_eq!(state.counters.events.misused["LOCAL_ADDR_UNALLOWED"], 2);
}

#[tokio::test]
async fn strangers_are_not_told_of_data_in_their_name() {
    let gateway = TestGateway::start();
    let mut host = gateway.udp_from(FIRST).await;
    host.register().await;
    gateway.datapath.report(SECOND, Misuse::LocalAddress);
    gateway.datapath.report(FIRST, Misuse::LocalAddress);
    host.receive().await;
    let state = gateway.state().await;
    assert_eq!(state.counters.events.misused["LOCAL_ADDR_UNALLOWED"], 1);
    assert_eq!(state.counters.events.sent, 2, "one answer, one error");
}

#[tokio::test]
async fn a_fault_that_ends_the_server_is_told_to_its_hosts() {
    let gateway = TestGateway::start();
    let mut by_udp = gateway.udp_from(FIRST).await;
    let mut by_tcp = gateway.tcp_from(SECOND).await.unwrap();
    let (first, second) = (by_udp.register().await, by_tcp.register().await);
    granted(by_udp.ask(assign(first, 4)).await);
    granted(by_tcp.ask(listen(second, 80)).await);
    let datapath = gateway.datapath.clone();
    gateway.inputs.send(Input::Failed).await.unwrap();
    assert!(matches!(gateway.stopped().await, Err(DaemonError::Deaf)));

    assert_told(&by_udp.receive().await, ErrorCode::InternalServerError, first);
    assert_told(&by_tcp.receive().await.expect("told"), ErrorCode::InternalServerError, second);
    // And that it is over.
    let told = |bytes: Vec<u8>| Message::parse(&bytes).unwrap().body;
    assert_eq!(told(by_udp.receive().await), Body::DeRegisterResponse { client_id: first });
    assert_eq!(told(by_tcp.receive().await.expect("told")), Body::DeRegisterResponse { client_id: second });
    assert!(by_tcp.is_closed().await);
    assert!(datapath.held().is_empty());
    assert!(matches!(datapath.calls().last(), Some(Call::Close)));
}

#[tokio::test]
async fn the_gateway_is_not_its_own_host() {
    // All of 127.0.0.0/8 is the gateway itself.
    let audience = Audience::Hosts { not: [Ipv4Addr::new(10, 0, 0, 1)].into() };
    let gateway = TestGateway::heard_by(config(), limits(), audience);
    let by_udp = gateway.udp().await;
    let register = Message::new(MessageCounter(1), Body::RegisterRequest).encode().unwrap();
    by_udp.send(&register).await;
    let mut by_tcp = gateway.tcp().await;
    assert!(by_tcp.is_closed().await);
    let state = gateway.state().await;
    assert_eq!((state.counters.events.received, state.clients.len(), state.daemon.connections), (0, 0, 0));
    let mut buffer = [0; 64];
    assert!(by_udp.socket.try_recv(&mut buffer).is_err(), "answered");
}

#[test]
fn hosts_are_heard_by_their_private_addresses_only() {
    let own: [Ipv4Addr; 3] = [[10, 0, 0, 1].into(), [192, 0, 2, 1].into(), [198, 51, 100, 9].into()];
    let audience = Audience::Hosts { not: own.into() };
    assert!(audience.hears(Ipv4Addr::new(10, 0, 0, 2)));
    for stranger in own.into_iter().chain([Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 9, 9, 9)]) {
        assert!(!audience.hears(stranger), "{stranger}");
    }
}
