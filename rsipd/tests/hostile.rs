//! Hosts that do not behave: garbage, slowness and floods never disturb a registered host.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say so")]

mod common;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use common::{TestGateway, assign, granted, hex, limits, listen};
use rsip_proto::wire::{Body, ErrorCode, Message};
use rsipd::listener::tcp::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const GOOD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const BAD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Bytes that no test chose: a linear congruential generator, the same in every run.
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    })
}

#[tokio::test]
async fn garbage_disturbs_nobody() {
    let gateway = TestGateway::start();
    let mut good = gateway.udp_from(GOOD).await;
    let client_id = good.register().await;
    granted(good.ask(listen(client_id, 80)).await);
    let held = gateway.datapath.held();

    let bad = gateway.udp_from(BAD).await;
    // Also from the good host's own address, where somebody else may run what he likes.
    let neighbour = gateway.udp_from(GOOD).await;
    for round in 0..300_u64 {
        let length = usize::try_from(round % 200).unwrap();
        let mut bytes: Vec<u8> = noise(round).take(length).collect();
        if round % 3 == 0 && length >= 4 {
            // A header that is right, so that the rest is looked at too.
            bytes[..2].copy_from_slice(&[1, u8::try_from(round % 18).unwrap()]);
            bytes[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        }
        bad.send(&bytes).await;
        neighbour.send(&bytes).await;
    }
    let mut stream = gateway.tcp_from(BAD).await.unwrap();
    let bytes: Vec<u8> = noise(7).take(100_000).collect();
    drop(stream.stream.write_all(&bytes).await);

    granted(good.ask(assign(client_id, 8)).await);
    let now = gateway.datapath.held();
    assert!(held.iter().all(|(port, holder)| now.get(port) == Some(holder)));
    assert_eq!(gateway.state().await.clients.len(), 1);
}

#[tokio::test]
async fn a_stream_out_of_step_is_answered_and_closed() {
    for (bytes, code) in
        [("01 02 00 03", ErrorCode::BadMessage), ("47 45 54 20", ErrorCode::UnsupportedRsipVersion)]
    {
        let gateway = TestGateway::start();
        let mut bad = gateway.tcp().await;
        bad.send(&hex(bytes)).await;
        let answer = Message::parse(&bad.receive().await.expect(bytes)).unwrap();
        assert!(
            matches!(answer.body, Body::ErrorResponse { error, .. } if error == code),
            "{bytes}: {answer:?}"
        );
        assert!(bad.is_closed().await, "{bytes}");
        gateway.until("the connection is gone", |state| state.daemon.connections == 0).await;
    }
}

#[tokio::test]
async fn slow_senders_are_closed_and_cost_nobody_time() {
    let patience = Duration::from_millis(1500);
    let limits = Limits { idle: patience, message: patience, ..limits() };
    let gateway = TestGateway::with(common::config(), limits);
    let mut good = gateway.tcp_from(GOOD).await.unwrap();
    let client_id = good.register().await;

    // One that says nothing; one that sends a byte now and then; one that was proven and then sends half a message.
    let began = Instant::now();
    let mut silent = gateway.tcp_from(BAD).await.unwrap();
    let mut dripping = gateway.tcp_from(BAD).await.unwrap();
    let mut half = gateway.tcp_from(BAD).await.unwrap();
    half.register().await;
    half.send(&hex("01 08 00 2d 04")).await;
    let (mut reader, mut writer) = dripping.stream.split();
    let drip = async {
        for byte in hex("01 08 00 2d 04 00 04 00 00 00 01 01 00 01 01") {
            if writer.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(patience / 4).await;
        }
    };
    let mut byte = [0];
    tokio::select! {
        () = drip => panic!("a slow sender was waited for"),
        read = reader.read(&mut byte) => assert!(matches!(read, Ok(0) | Err(_)), "{read:?}"),
    }
    assert!(began.elapsed() >= patience, "closed before its time");
    assert!(silent.is_closed().await && half.is_closed().await);

    // Idle, but proven and between messages: stays.
    granted(good.ask(listen(client_id, 80)).await);
    gateway.until("only the good one is left", |state| state.daemon.connections == 1).await;
}

#[tokio::test]
async fn a_flood_of_connections_is_bounded_and_does_not_shut_others_out() {
    let limits = Limits { total: 12, per_host: 8, ..limits() };
    let gateway = TestGateway::with(common::config(), limits);
    let mut good = gateway.tcp_from(GOOD).await.unwrap();
    let client_id = good.register().await;

    let mut flood = Vec::new();
    for i in 0..120_u8 {
        // From one host, and from its good neighbour's own address.
        let from = if i % 2 == 0 { BAD } else { GOOD };
        flood.push(gateway.tcp_from(from).await.unwrap());
    }
    let state = gateway.until("the flood was seen", |state| state.daemon.connections > 8).await;
    assert!(state.daemon.connections <= 12, "{}", state.daemon.connections);
    // The registered host's connection was not the one to make room.
    granted(good.ask(listen(client_id, 80)).await);
    // A third host gets in.
    let mut third = gateway.tcp_from(Ipv4Addr::new(127, 0, 0, 4)).await.unwrap();
    third.register().await;
}

#[tokio::test]
async fn a_host_that_takes_no_answers_is_closed_and_stays_registered() {
    let gateway =
        TestGateway::with(common::config(), Limits { message: Duration::from_millis(300), ..limits() });
    let mut good = gateway.udp_from(GOOD).await;
    let good_id = good.register().await;
    let mut deaf = gateway.deaf_tcp_from(BAD).await.unwrap();
    let client_id = deaf.register().await;
    let mut batch = Vec::new();
    for counter in 2..2000 {
        let query = Body::QueryRequest { client_id, tuples: Vec::new() };
        batch.extend(Message::new(rsip_proto::ids::MessageCounter(counter), query).encode().unwrap());
    }
    let pump = async {
        loop {
            if deaf.stream.write_all(&batch).await.is_err() {
                return;
            }
        }
    };
    let served = async {
        for port in 100..150 {
            granted(good.ask(listen(good_id, port)).await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let (pumped, ()) = tokio::join!(tokio::time::timeout(common::PATIENCE, pump), served);
    pumped.expect("closed at last");
    let state = gateway.until("the deaf connection is gone", |state| state.daemon.connections == 0).await;
    assert_eq!(state.clients.len(), 2);
}

#[tokio::test]
async fn control_socket_is_served_during_a_flood_of_datagrams() {
    let gateway = TestGateway::start();
    let bad = gateway.udp_from(BAD).await;
    let flood = tokio::spawn(async move {
        loop {
            drop(bad.socket.send(&[1, 2, 0, 9]).await);
            tokio::task::yield_now().await;
        }
    });
    let first = gateway.state().await.counters.events.received;
    gateway.until("the flood arrives", |state| state.counters.events.received > first + 1000).await;
    let mut good = gateway.udp_from(GOOD).await;
    good.register().await;
    flood.abort();
}
