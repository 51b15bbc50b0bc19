//! RSIP over TCP: a stream of messages, however it is cut, filled, half-closed, left or torn.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say so")]

mod common;

use std::net::Ipv4Addr;
use std::time::Duration;

use common::{PATIENCE, TestGateway, assign, config, error, free, granted, hex, limits, listen, padded};
use proptest::prelude::*;
use rsip_proto::gateway::GatewayConfig;
use rsip_proto::ids::{BindId, ClientId, MessageCounter};
use rsip_proto::wire::{Body, ErrorCode, Message};
use rsipd::control::view::Request;
use rsipd::listener::tcp::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

fn query(client_id: ClientId) -> Body {
    Body::QueryRequest { client_id, tuples: Vec::new() }
}

fn encoded(counter: u32, body: Body) -> Vec<u8> {
    Message::new(MessageCounter(counter), body).encode().unwrap()
}

/// A request of the property: what, and about which binding or port.
#[derive(Clone, Debug)]
enum Ask {
    Register,
    Assign(u8),
    Listen(u16),
    Free(u32),
    Extend(u32),
    Query,
    Leave,
    /// Made as long as this by parameters that say nothing to us.
    Long(usize),
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        Just(Ask::Register),
        (1..20_u8).prop_map(Ask::Assign),
        (80..90_u16).prop_map(Ask::Listen),
        (0..8_u32).prop_map(Ask::Free),
        (0..8_u32).prop_map(Ask::Extend),
        Just(Ask::Query),
        Just(Ask::Leave),
        (40..9000_usize).prop_map(Ask::Long),
    ]
}

impl Ask {
    fn bytes(&self, counter: u32, client_id: ClientId) -> Vec<u8> {
        let body = match self {
            Self::Register => Body::RegisterRequest,
            Self::Assign(count) => assign(client_id, *count),
            Self::Listen(port) => listen(client_id, *port),
            Self::Free(bind) => free(client_id, BindId(*bind)),
            Self::Extend(bind) => {
                Body::ExtendRequest { client_id, bind_id: BindId(*bind), lease_time: Some(60) }
            }
            Self::Query => query(client_id),
            Self::Leave => Body::DeRegisterRequest { client_id },
            Self::Long(length) => return padded(&encoded(counter, query(client_id)), *length),
        };
        encoded(counter, body)
    }
}

/// What a gateway answers to these pieces of a stream; the next piece is sent when the gateway had time for the last, or
/// after each answer.
async fn answers(pieces: &[Vec<u8>], one_by_one: bool) -> Vec<u8> {
    let gateway = TestGateway::start();
    let mut host = gateway.tcp_from(FIRST).await.unwrap();
    let mut answers = Vec::new();
    for piece in pieces {
        host.send(piece).await;
        if one_by_one {
            answers.extend(host.receive().await.expect("an answer to each request"));
        } else {
            tokio::task::yield_now().await;
        }
    }
    host.stream.shutdown().await.unwrap();
    timeout(PATIENCE, host.stream.read_to_end(&mut answers)).await.expect("an end").unwrap();
    answers
}

/// The ID that the first host of a test gateway gets: its seed is always the same.
async fn first_client_id() -> ClientId {
    TestGateway::start().tcp_from(FIRST).await.unwrap().register().await
}

fn cut(stream: &[u8], cuts: &[prop::sample::Index]) -> Vec<Vec<u8>> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
    places.extend([0, stream.len()]);
    places.sort_unstable();
    places.dedup();
    places.windows(2).map(|pair| stream[pair[0]..pair[1]].to_vec()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_segmentation_of_any_requests_gives_the_same_answers(
        asked in prop::collection::vec(ask(), 1..24),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        byte_by_byte in prop::bool::weighted(0.1),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let client_id = first_client_id().await;
            let asked = [Ask::Register].into_iter().chain(asked);
            let requests: Vec<Vec<u8>> = asked.zip(1..).map(|(ask, n)| ask.bytes(n, client_id)).collect();
            let stream = requests.concat();
            let pieces = if byte_by_byte {
                stream.iter().map(|byte| vec![*byte]).collect()
            } else {
                cut(&stream, &cuts)
            };
            let expected = answers(&requests, true).await;
            assert_eq!(answers(&pieces, false).await, expected);
        });
    }
}

#[tokio::test]
async fn many_requests_before_an_answer_is_read_are_answered_in_order() {
    let gateway = TestGateway::start();
    let mut host = gateway.tcp().await;
    let client_id = host.register().await;
    let mut batch = Vec::new();
    for counter in 2..=2001 {
        // Effects, too, come in the order of the requests.
        let body =
            if counter % 2 == 0 { listen(client_id, 80) } else { free(client_id, BindId(counter / 2)) };
        batch.extend(encoded(counter, body));
    }
    host.send(&batch).await;
    gateway.until("all were taken", |state| state.counters.events.received == 2001).await;
    for counter in 2..=2001 {
        let answer = Message::parse(&host.receive().await.expect("an answer to each")).unwrap();
        assert_eq!(answer.counter, Some(MessageCounter(counter)));
        let right = if counter % 2 == 0 {
            matches!(&answer.body, Body::ListenResponse(binding) if binding.bind_id == BindId(counter / 2))
        } else {
            matches!(&answer.body, Body::FreeResponse { bind_id, .. } if *bind_id == BindId(counter / 2))
        };
        assert!(right, "{answer:?}");
    }
    assert!(gateway.datapath.held().is_empty());
}

#[tokio::test]
async fn a_host_that_does_not_read_is_not_read_either_and_loses_nothing() {
    const REQUESTS: u32 = 12_000;
    // Answers that are much longer than their requests.
    let private_nets = (0..40).map(|i| (Ipv4Addr::new(10, i, 0, 0), 16)).collect();
    let limits = Limits { message: PATIENCE, ..limits() };
    let gateway = TestGateway::with(GatewayConfig { private_nets, ..config() }, limits);
    let mut other = gateway.tcp_from(SECOND).await.unwrap();
    let other_id = other.register().await;

    let mut host = gateway.deaf_tcp_from(FIRST).await.unwrap();
    let client_id = host.register().await;
    let (mut reader, mut writer) = host.stream.into_split();
    let writing = tokio::spawn(async move {
        for counter in 2..REQUESTS + 2 {
            writer.write_all(&encoded(counter, query(client_id))).await.unwrap();
        }
        writer
    });
    // Until it gets stuck.
    let stuck = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let taken = gateway.state().await.counters.events.received;
            if taken > 100 && taken == before {
                return taken;
            }
            before = taken;
        }
    };
    let taken = timeout(PATIENCE, stuck).await.expect("the gateway stops reading");
    assert!(taken < u64::from(REQUESTS) / 2, "{taken} requests were carried out for one who reads no answer");
    // Nobody else waits for it.
    granted(other.ask(listen(other_id, 80)).await);

    let reading = async {
        for counter in 2..REQUESTS + 2 {
            let mut message = vec![0; 4];
            reader.read_exact(&mut message).await.unwrap();
            message.resize(usize::from(u16::from_be_bytes([message[2], message[3]])), 0);
            reader.read_exact(&mut message[4..]).await.unwrap();
            assert_eq!(Message::parse(&message).unwrap().counter, Some(MessageCounter(counter)));
        }
    };
    timeout(3 * PATIENCE, reading).await.expect("all answers");
    drop(writing.await.unwrap());
}

#[tokio::test]
async fn a_host_that_shuts_its_side_down_gets_every_answer_and_then_the_end() {
    let gateway = TestGateway::start();
    let mut host = gateway.tcp().await;
    let client_id = host.register().await;
    let mut batch = Vec::new();
    for counter in 2..=301 {
        batch.extend(encoded(counter, query(client_id)));
    }
    batch.extend(encoded(302, listen(client_id, 80)));
    // Not a whole message: nobody will ever send the rest.
    batch.extend(&encoded(303, listen(client_id, 81))[..20]);
    host.send(&batch).await;
    host.stream.shutdown().await.unwrap();
    for counter in 2..=302 {
        let answer = Message::parse(&host.receive().await.expect("an answer to each")).unwrap();
        assert_eq!(answer.counter, Some(MessageCounter(counter)));
    }
    assert_eq!(host.receive().await, None);
    gateway.until("the connection is gone", |state| state.daemon.connections == 0).await;
    assert_eq!(gateway.datapath.held().len(), 1, "the lease outlives the connection");
}

#[tokio::test]
async fn the_longest_message_is_a_message() {
    let gateway = TestGateway::start();
    let mut host = gateway.tcp().await;
    let longest = padded(&encoded(1, Body::RegisterRequest), 65_535);
    let mut both = longest.clone();
    both.extend(padded(&encoded(2, Body::RegisterRequest), 65_534));
    host.send(&both).await;
    let answer = Message::parse(&host.receive().await.unwrap()).unwrap();
    assert!(matches!(answer.body, Body::RegisterResponse { .. }), "{answer:?}");
    let answer = Message::parse(&host.receive().await.unwrap()).unwrap();
    assert_eq!(error(answer.body), ErrorCode::AlreadyRegistered);
}

#[tokio::test]
async fn a_bad_length_ends_the_stream_after_the_answers_to_what_was_good() {
    for bad in ["01 02 00 00", "01 02 00 03"] {
        let gateway = TestGateway::start();
        let mut host = gateway.tcp().await;
        let client_id = host.register().await;
        let mut batch = encoded(2, listen(client_id, 80));
        batch.extend(encoded(3, query(client_id)));
        batch.extend(hex(bad));
        // More than the gateway will read: the end must not be a reset that takes the answers away.
        batch.extend(vec![0x55; 100_000]);
        let (mut reader, mut writer) = host.stream.into_split();
        let writing = tokio::spawn(async move {
            // It may be cut short.
            drop(writer.write_all(&batch).await);
            writer
        });
        let mut answers = Vec::new();
        timeout(PATIENCE, reader.read_to_end(&mut answers)).await.expect("an end").unwrap();
        drop(writing.await.unwrap());
        let mut said = Vec::new();
        while !answers.is_empty() {
            let length = usize::from(u16::from_be_bytes([answers[2], answers[3]]));
            let message: Vec<u8> = answers.drain(..length).collect();
            said.push(Message::parse(&message).unwrap().body);
        }
        assert!(
            matches!(
                said.as_slice(),
                [
                    Body::ListenResponse(_),
                    Body::QueryResponse { .. },
                    Body::ErrorResponse { error: ErrorCode::BadMessage, .. }
                ]
            ),
            "{bad}: {said:?}"
        );
        let state = gateway.until("it is gone", |state| state.daemon.connections == 0).await;
        assert_eq!(state.clients[0].bindings.len(), 1, "the registration stays");
    }
}

#[tokio::test]
async fn another_version_is_told_so_and_not_listened_to() {
    for version in [0, 2, 255] {
        let gateway = TestGateway::start();
        let mut host = gateway.tcp().await;
        host.send(&[version, 2, 0, 4]).await;
        let answer = Message::parse(&host.receive().await.expect("an answer")).unwrap();
        assert_eq!(error(answer.body), ErrorCode::UnsupportedRsipVersion, "version {version}");
        assert!(host.is_closed().await, "where its next message begins, nobody knows");
    }
}

#[tokio::test]
async fn a_wrong_parameter_spoils_its_message_only() {
    let gateway = TestGateway::start();
    let mut host = gateway.tcp().await;
    let client_id = host.register().await;
    // An unknown parameter; a length that leaves the message; a response; an unknown type.
    for (bytes, code) in [
        ("01 0e 00 08  c8 0001 00", ErrorCode::IllegalParam),
        ("01 0e 00 08  04 0004 00", ErrorCode::BadMessage),
        ("01 0d 00 12  04 0004 00000001  05 0004 00000001", ErrorCode::IllegalMessage),
        ("01 63 00 04", ErrorCode::IllegalMessage),
    ] {
        host.send(&hex(bytes)).await;
        let answer = Message::parse(&host.receive().await.expect(bytes)).unwrap();
        assert_eq!(error(answer.body), code, "{bytes}");
    }
    granted(host.ask(listen(client_id, 80)).await);
}

#[tokio::test]
async fn a_registered_hosts_idle_connection_stays_and_a_strangers_does_not() {
    let idle = Duration::from_millis(600);
    let gateway = TestGateway::with(config(), Limits { idle, ..limits() });
    let mut silent = gateway.tcp_from(SECOND).await.unwrap();
    let mut refused = gateway.tcp_from(SECOND).await.unwrap();
    assert_eq!(error(refused.ask(query(ClientId(1))).await), ErrorCode::RegisterFirst);
    let mut host = gateway.tcp_from(FIRST).await.unwrap();
    let client_id = host.register().await;
    assert!(silent.is_closed().await && refused.is_closed().await);
    // Much longer than anybody else may.
    tokio::time::sleep(3 * idle).await;
    granted(host.ask(listen(client_id, 80)).await);
    // When it has left it is a stranger, too.
    assert_eq!(host.ask(Body::DeRegisterRequest { client_id }).await, Body::DeRegisterResponse { client_id });
    assert!(host.is_closed().await);
}

#[tokio::test]
async fn a_connection_of_a_registration_that_ended_is_closed() {
    let limits = Limits { idle: Duration::from_millis(300), ..limits() };
    let lease_time = Duration::from_secs(2);
    let gateway = TestGateway::with(GatewayConfig { lease_time, ..config() }, limits);
    let mut host = gateway.tcp().await;
    let client_id = host.register().await;
    let told = Message::parse(&host.receive().await.expect("told that it is over")).unwrap();
    assert_eq!(told.counter, Some(MessageCounter::ASYNCHRONOUS));
    assert_eq!(told.body, Body::DeRegisterResponse { client_id });
    assert!(host.is_closed().await);
}

#[tokio::test]
async fn a_registered_host_that_leaves_a_message_half_said_is_closed_and_stays_registered() {
    let limits = Limits { message: Duration::from_millis(500), ..limits() };
    let gateway = TestGateway::with(config(), limits);
    let mut host = gateway.tcp().await;
    let client_id = host.register().await;
    granted(host.ask(listen(client_id, 80)).await);
    host.send(&encoded(9, listen(client_id, 81))[..30]).await;
    assert!(host.is_closed().await);
    let mut again = gateway.tcp().await;
    granted(again.ask(listen(client_id, 82)).await);
    assert_eq!(gateway.datapath.held().len(), 2);
}

#[tokio::test]
async fn a_slow_sender_that_is_fast_enough_is_served() {
    let gateway = TestGateway::start();
    let mut host = gateway.tcp().await;
    let client_id = host.register().await;
    for byte in encoded(2, listen(client_id, 80)) {
        host.send(&[byte]).await;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    granted(Message::parse(&host.receive().await.unwrap()).unwrap().body);
}

#[tokio::test]
async fn a_torn_connection_loses_neither_registration_nor_what_was_asked() {
    let gateway = TestGateway::start();
    let mut host = gateway.tcp_from(FIRST).await.unwrap();
    let client_id = host.register().await;
    host.send(&encoded(2, listen(client_id, 80))).await;
    gateway.until("carried out", |state| state.counters.events.bound == 1).await;
    host.stream.set_zero_linger().unwrap();
    drop(host);
    let state = gateway.until("the connection is gone", |state| state.daemon.connections == 0).await;
    assert_eq!((state.clients.len(), gateway.datapath.held().len()), (1, 1));
    let mut again = gateway.tcp_from(FIRST).await.unwrap();
    assert_eq!(error(again.ask(Body::RegisterRequest).await), ErrorCode::AlreadyRegistered);
    granted(again.ask(listen(client_id, 81)).await);
}

#[tokio::test]
async fn what_is_told_unasked_goes_to_the_connection_that_was_used_last() {
    let gateway = TestGateway::start();
    let mut old = gateway.tcp().await;
    let client_id = old.register().await;
    for port in [80, 81, 82] {
        granted(old.ask(listen(client_id, port)).await);
    }
    let mut new = gateway.tcp().await;
    assert!(matches!(new.ask(query(client_id)).await, Body::QueryResponse { .. }));
    let release = |bind| gateway.ask(Request::Release { client: client_id.0, bind: Some(bind) });

    release(1).await.unwrap();
    let told = Message::parse(&new.receive().await.expect("told over the new one")).unwrap();
    assert_eq!(told.counter, Some(MessageCounter::ASYNCHRONOUS));
    assert_eq!(told.body, Body::FreeResponse { client_id, bind_id: BindId(1) });
    // The old one was told nothing in between: the next that it hears is its own answer.
    assert!(matches!(old.ask(query(client_id)).await, Body::QueryResponse { .. }));
    release(2).await.unwrap();
    let told = Message::parse(&old.receive().await.expect("now this one was used last")).unwrap();
    assert_eq!(told.body, Body::FreeResponse { client_id, bind_id: BindId(2) });

    // Without any connection nobody is told, and it is done all the same.
    drop((old, new));
    gateway.until("both are gone", |state| state.daemon.connections == 0).await;
    release(3).await.unwrap();
    assert!(gateway.datapath.held().is_empty());
}
