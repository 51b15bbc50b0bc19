//! RSIP over UDP: counters and duplicates, one message in a datagram, bursts and floods.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say so")]

mod common;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use common::{PATIENCE, PUBLIC, TestGateway, assign, config, error, granted, hex, limits, listen, padded};
use rsip_proto::gateway::GatewayConfig;
use rsip_proto::ids::{ClientId, MessageCounter};
use rsip_proto::wire::{Body, ErrorCode, Message, Ports};
use rsipd::control::view::Request;
use tokio::net::UdpSocket;

const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

fn encoded(counter: u32, body: Body) -> Vec<u8> {
    Message::new(MessageCounter(counter), body).encode().unwrap()
}

#[tokio::test]
async fn a_duplicate_gets_the_same_bytes_and_nothing_is_done_twice() {
    let gateway = TestGateway::start();
    let host = gateway.udp().await;
    let register = encoded(1, Body::RegisterRequest);
    host.send(&register).await;
    let answer = host.receive().await;
    let Body::RegisterResponse { client_id, .. } = Message::parse(&answer).unwrap().body else {
        panic!("not registered: {answer:?}")
    };
    for _ in 0..3 {
        host.send(&register).await;
        assert_eq!(host.receive().await, answer);
    }
    let request = encoded(2, assign(client_id, 4));
    host.send(&request).await;
    let answer = host.receive().await;
    for _ in 0..3 {
        host.send(&request).await;
        assert_eq!(host.receive().await, answer);
    }
    // Also when copies come in a heap.
    let request = encoded(3, listen(client_id, 80));
    for _ in 0..5 {
        host.send(&request).await;
    }
    let first = host.receive().await;
    for _ in 1..5 {
        assert_eq!(host.receive().await, first);
    }
    let state = gateway.state().await;
    assert_eq!((state.counters.events.registered, state.counters.events.bound), (1, 2));
    assert_eq!(gateway.datapath.held().len(), 5);
}

#[tokio::test]
async fn an_older_counter_is_not_carried_out() {
    let gateway = TestGateway::start();
    let mut host = gateway.udp().await;
    let client_id = host.register().await;
    granted(host.ask(listen(client_id, 80)).await);
    granted(host.ask(listen(client_id, 81)).await);
    // One that the network held back.
    host.send(&encoded(2, listen(client_id, 82))).await;
    granted(host.ask(listen(client_id, 83)).await);
    assert!(!gateway.datapath.held().contains_key(&(PUBLIC, 82)));
    assert_eq!(gateway.datapath.held().len(), 3);
}

#[tokio::test]
async fn a_request_without_a_counter_is_told_so() {
    let gateway = TestGateway::start();
    let mut host = gateway.udp().await;
    let client_id = host.register().await;
    let id = client_id.0;
    for request in ["01 02 00 04".to_owned(), format!("01 0e 00 0b  04 0004 {id:08x}")] {
        host.send(&hex(&request)).await;
        let answer = Message::parse(&host.receive().await).unwrap();
        assert_eq!(error(answer.body), ErrorCode::MessageCounterRequired, "{request}");
        assert_eq!(answer.counter, Some(MessageCounter::ASYNCHRONOUS), "{request}");
    }
}

#[tokio::test]
async fn one_message_in_a_datagram_and_all_of_it() {
    let gateway = TestGateway::start();
    let host = gateway.udp().await;
    let register = encoded(1, Body::RegisterRequest);
    let two = [register.clone(), encoded(2, Body::RegisterRequest)].concat();
    let with_tail = [register.clone(), vec![0]].concat();
    let mut claims_more = register.clone();
    claims_more[3] += 1;
    let mut claims_less = register.clone();
    claims_less[3] = 4;
    for (what, bytes) in [
        ("two messages", two),
        ("bytes after it", with_tail),
        ("cut off", claims_more),
        ("longer than it says", claims_less),
        ("half of it", register[..9].to_vec()),
        ("a length that cannot be", hex("01 02 00 03")),
    ] {
        host.send(&bytes).await;
        let answer = Message::parse(&host.receive().await).unwrap();
        assert_eq!(error(answer.body), ErrorCode::BadMessage, "{what}");
    }
    // Less than a header.
    for short in [&[][..], &[1], &[1, 2, 0]] {
        host.send(short).await;
        let answer = Message::parse(&host.receive().await).unwrap();
        assert_eq!(error(answer.body), ErrorCode::BadMessage, "{short:?}");
    }
    assert!(gateway.state().await.clients.is_empty());
    host.send(&register).await;
    let answer = Message::parse(&host.receive().await).unwrap();
    assert!(matches!(answer.body, Body::RegisterResponse { .. }), "{answer:?}");
}

#[tokio::test]
async fn another_version_is_told_so() {
    let gateway = TestGateway::start();
    let host = gateway.udp().await;
    for version in [0, 2, 255] {
        let mut bytes = encoded(1, Body::RegisterRequest);
        bytes[0] = version;
        host.send(&bytes).await;
        let answer = Message::parse(&host.receive().await).unwrap();
        assert_eq!(error(answer.body), ErrorCode::UnsupportedRsipVersion, "{version}");
    }
    assert!(gateway.state().await.clients.is_empty());
}

#[tokio::test]
async fn the_largest_datagram_is_a_message() {
    let gateway = TestGateway::start();
    let host = gateway.udp().await;
    // What IPv4 and UDP leave of 65,535 bytes.
    host.send(&padded(&encoded(1, Body::RegisterRequest), 65_507)).await;
    let answer = Message::parse(&host.receive().await).unwrap();
    assert!(matches!(answer.body, Body::RegisterResponse { .. }), "{answer:?}");
}

#[tokio::test]
async fn hosts_and_gateways_never_answer_responses() {
    let gateway = TestGateway::start();
    let mut host = gateway.udp().await;
    let client_id = host.register().await;
    // An error that comes to a gateway is dropped: two ends must not send each other errors for ever.
    let body =
        Body::ErrorResponse { error: ErrorCode::UnknownError, client_id: Some(client_id), bind_id: None };
    host.send(&encoded(2, body)).await;
    // Any other response is one that only gateways send.
    host.send(&encoded(2, Body::DeRegisterResponse { client_id })).await;
    let answer = Message::parse(&host.receive().await).unwrap();
    assert_eq!(error(answer.body), ErrorCode::IllegalMessage);
    granted(host.ask(listen(client_id, 80)).await);
}

#[tokio::test]
async fn a_burst_from_many_hosts_is_answered() {
    const HOSTS: u8 = 200;
    let gateway = TestGateway::with(GatewayConfig { max_clients: 256, ..config() }, limits());
    let mut hosts = Vec::new();
    for last in 1..=HOSTS {
        let host = gateway.udp_from(Ipv4Addr::new(127, 0, 1, last)).await;
        host.socket.writable().await.unwrap();
        hosts.push(host);
    }
    let register = encoded(1, Body::RegisterRequest);
    for host in &hosts {
        // Nobody else runs meanwhile: all of them wait in the kernel.
        host.socket.try_send(&register).unwrap();
    }
    let mut ids = std::collections::BTreeSet::new();
    for host in &hosts {
        let answer = Message::parse(&host.receive().await).unwrap();
        let Body::RegisterResponse { client_id, .. } = answer.body else { panic!("{answer:?}") };
        assert!(ids.insert(client_id), "two hosts with one client ID");
    }
}

#[tokio::test]
async fn errors_are_rationed_for_each_source() {
    let gateway = TestGateway::start();
    let bad = gateway.udp_from(FIRST).await;
    let began = Instant::now();
    let mut sent = 0_u32;
    // Every one would be told MESSAGE_COUNTER_REQUIRED.
    for _ in 0..20 {
        for _ in 0..50 {
            bad.send(&hex("01 02 00 04")).await;
            sent += 1;
        }
        gateway.state().await;
    }
    gateway.until("it came", |state| state.counters.events.received > u64::from(sent) / 2).await;
    // Somebody else is told what he did wrong, and a good request of the same source is answered.
    let other = gateway.udp_from(SECOND).await;
    other.send(&hex("01 02 00 04")).await;
    assert_eq!(
        error(Message::parse(&other.receive().await).unwrap().body),
        ErrorCode::MessageCounterRequired
    );
    let mut good = gateway.udp_from(FIRST).await;
    good.register().await;
    let mut answers = 0_u32;
    let mut buffer = [0; 64];
    while bad.socket.try_recv(&mut buffer).is_ok() {
        answers += 1;
    }
    // 50 at once, then 50 in each second.
    let most = 50 + 50 * (u32::try_from(began.elapsed().as_secs()).unwrap() + 1);
    assert!((1..=most).contains(&answers) && answers < sent, "{answers} answers to {sent}, {most} at most");
}

#[tokio::test]
async fn a_flood_from_one_host_leaves_room_for_another() {
    let gateway = TestGateway::start();
    let socket = UdpSocket::bind((SECOND, 0)).await.unwrap();
    socket.connect(gateway.address).await.unwrap();
    let flood = tokio::spawn(async move {
        loop {
            // Much more than is carried out in the meantime.
            for _ in 0..64 {
                drop(socket.try_send(&[1, 2, 0, 9]));
            }
            tokio::task::yield_now().await;
        }
    });
    gateway.until("the flood arrives", |state| state.counters.events.received > 1000).await;
    let host = gateway.udp_from(FIRST).await;
    // With the patience of RFC 3103 section 10.1: seven attempts.
    let ask = async |counter: u32, body: Body| {
        let request = encoded(counter, body);
        for _ in 0..7 {
            host.send(&request).await;
            let answer = tokio::time::timeout(Duration::from_secs(2), host.receive()).await;
            if let Ok(answer) = answer {
                return Message::parse(&answer).unwrap().body;
            }
        }
        panic!("no answer to {request:?} in seven attempts");
    };
    let Body::RegisterResponse { client_id, .. } = ask(1, Body::RegisterRequest).await else {
        panic!("not registered")
    };
    for (counter, port) in (2..).zip(100..120) {
        assert_eq!(granted(ask(counter, listen(client_id, port)).await).local_ports, Ports::single(port));
    }
    flood.abort();
}

#[tokio::test]
async fn the_transport_stays_that_of_the_registration() {
    let gateway = TestGateway::start();
    let mut by_udp = gateway.udp_from(FIRST).await;
    let first = by_udp.register().await;
    let mut by_tcp = gateway.tcp_from(FIRST).await.unwrap();
    assert_eq!(error(by_tcp.ask(listen(first, 80)).await), ErrorCode::RegisterFirst);
    assert_eq!(error(by_tcp.ask(Body::RegisterRequest).await), ErrorCode::AlreadyRegistered);
    granted(by_udp.ask(listen(first, 80)).await);

    let mut by_tcp = gateway.tcp_from(SECOND).await.unwrap();
    let second = by_tcp.register().await;
    let mut by_udp = gateway.udp_from(SECOND).await;
    assert_eq!(error(by_udp.ask(listen(second, 81)).await), ErrorCode::UseTcp);
    granted(by_tcp.ask(listen(second, 81)).await);
    let state = gateway.state().await;
    let transports: Vec<_> = state.clients.iter().map(|c| (c.host, c.transport.as_str())).collect();
    assert!(transports.contains(&(FIRST, "udp")) && transports.contains(&(SECOND, "tcp")), "{transports:?}");
}

#[tokio::test]
async fn a_host_can_touch_nothing_that_another_holds() {
    let gateway = TestGateway::start();
    let mut victim = gateway.udp_from(FIRST).await;
    let victims = victim.register().await;
    let binding = granted(victim.ask(listen(victims, 80)).await);
    let held = gateway.datapath.held();

    let mut thief = gateway.udp_from(SECOND).await;
    let thiefs = thief.register().await;
    let bind_id = binding.bind_id;
    for (client_id, code) in [(victims, ErrorCode::BadClientId), (thiefs, ErrorCode::BadBindId)] {
        assert_eq!(error(thief.ask(Body::FreeRequest { client_id, bind_id }).await), code);
        let extend = Body::ExtendRequest { client_id, bind_id, lease_time: Some(9999) };
        assert_eq!(error(thief.ask(extend).await), code);
    }
    assert_eq!(
        error(thief.ask(Body::DeRegisterRequest { client_id: victims }).await),
        ErrorCode::BadClientId
    );
    assert_eq!(error(thief.ask(listen(thiefs, 80)).await), ErrorCode::LocalAddrportInuse);
    assert_eq!(gateway.datapath.held(), held);
    assert_eq!(gateway.state().await.clients.len(), 2);
}

#[tokio::test]
async fn after_a_restart_everything_but_a_registration_is_told_to_register_first() {
    let gateway = TestGateway::start();
    let mut host = gateway.udp().await;
    // As if from the time before.
    let client_id = ClientId(0x1234_5678);
    let bind_id = rsip_proto::ids::BindId(1);
    for body in [
        Body::DeRegisterRequest { client_id },
        assign(client_id, 1),
        Body::ExtendRequest { client_id, bind_id, lease_time: None },
        Body::FreeRequest { client_id, bind_id },
        Body::QueryRequest { client_id, tuples: Vec::new() },
        listen(client_id, 80),
    ] {
        assert_eq!(error(host.ask(body.clone()).await), ErrorCode::RegisterFirst, "{body:?}");
    }
    assert!(gateway.datapath.calls().is_empty(), "nothing was done for a stranger");
    host.register().await;
}

#[tokio::test]
async fn the_counter_of_an_answer_is_that_of_its_request_and_0_is_for_what_was_not_asked() {
    let gateway = TestGateway::start();
    let mut host = gateway.udp().await;
    let client_id = host.register().await;
    // `ask` holds every answer against its request.
    let binding = granted(host.ask(listen(client_id, 80)).await);
    assert_eq!(error(host.ask(listen(client_id, 80)).await), ErrorCode::LocalAddrportInuse);
    gateway.ask(Request::Release { client: client_id.0, bind: Some(binding.bind_id.0) }).await.unwrap();
    let told = Message::parse(&host.receive().await).unwrap();
    assert_eq!(told.counter, Some(MessageCounter::ASYNCHRONOUS));
    assert_eq!(told.body, Body::FreeResponse { client_id, bind_id: binding.bind_id });
    gateway.ask(Request::Release { client: client_id.0, bind: None }).await.unwrap();
    let told = Message::parse(&host.receive().await).unwrap();
    assert_eq!(told.counter, Some(MessageCounter::ASYNCHRONOUS));
    assert_eq!(told.body, Body::DeRegisterResponse { client_id });
    // 0 is nobody's request.
    host.send(&encoded(0, Body::RegisterRequest)).await;
    let answer = Message::parse(&host.receive().await).unwrap();
    assert_eq!(error(answer.body), ErrorCode::BadParam);
}

#[tokio::test]
async fn the_largest_counter_is_followed_by_1() {
    let gateway = TestGateway::start();
    let host = gateway.udp().await;
    host.send(&encoded(u32::MAX - 1, Body::RegisterRequest)).await;
    let answer = Message::parse(&host.receive().await).unwrap();
    let Body::RegisterResponse { client_id, .. } = answer.body else { panic!("{answer:?}") };
    for (counter, port) in [(u32::MAX, 80), (1, 81), (2, 82)] {
        host.send(&encoded(counter, listen(client_id, port))).await;
        let answer = Message::parse(&host.receive().await).unwrap();
        assert_eq!(answer.counter, Some(MessageCounter(counter)));
        granted(answer.body);
    }
    // The last before the wrap is an old one now.
    host.send(&encoded(u32::MAX, listen(client_id, 83))).await;
    host.send(&encoded(3, listen(client_id, 84))).await;
    let answer = tokio::time::timeout(PATIENCE, host.receive()).await.unwrap();
    assert_eq!(Message::parse(&answer).unwrap().counter, Some(MessageCounter(3)));
    assert_eq!(gateway.datapath.held().len(), 4);
}
