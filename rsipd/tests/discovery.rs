//! How hosts find the gateway, on loopback: real sockets, and the test plays hosts and the SLP daemon.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say so")]

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use rsip_slp::template::Load;
use rsip_slp::wire::message::{AttrRply, AttrRqst, SrvReg, SrvRply, SrvRqst, UrlEntry};
use rsip_slp::wire::{Body, ErrorCode, Flags, Framer, GROUP, Message};
use rsipd::discovery::status::{Mode, Status};
use rsipd::discovery::{Discovery, Setup};
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::{sleep, timeout};

/// Long enough for a busy machine, and then it is a failure.
const PATIENCE: Duration = Duration::from_secs(20);
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// A port of loopback that nobody listens on, for both protocols.
async fn free_port() -> u16 {
    loop {
        let tcp = TcpListener::bind((HERE, 0)).await.unwrap();
        let port = tcp.local_addr().unwrap().port();
        if UdpSocket::bind((HERE, port)).await.is_ok() {
            return port;
        }
    }
}

/// A gateway on loopback; where nobody listens for a daemon, or at `daemon`.
async fn setup(daemon: Option<SocketAddrV4>) -> Setup {
    let service = SocketAddrV4::new(HERE, 4555);
    let nobody = SocketAddrV4::new(HERE, free_port().await);
    Setup {
        device: Some("lo".to_owned()),
        port: free_port().await,
        daemon: daemon.unwrap_or(nobody),
        // Nothing is searched: loopback has no directory agents.
        directories: vec![Ipv4Addr::new(127, 99, 0, 1)],
        ..Setup::new("lo", service, vec!["IP-IP".to_owned()])
    }
}

async fn until(discovery: &Discovery, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
    let wait = async {
        loop {
            let status = discovery.status();
            if condition(&status) {
                return status;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never {what}: {:?}", discovery.status()))
}

fn message(flags: Flags, body: Body) -> Vec<u8> {
    Message { flags, xid: 4711, language: "en".to_owned(), body }.encode().unwrap()
}

fn request(predicate: &str) -> Body {
    Body::SrvRqst(SrvRqst {
        service_type: "service:rsip".to_owned(),
        scopes: "DEFAULT".to_owned(),
        predicate: predicate.to_owned(),
        ..SrvRqst::default()
    })
}

fn load_request() -> Body {
    Body::AttrRqst(AttrRqst {
        url: "service:rsip://127.0.0.1:4555".to_owned(),
        scopes: "DEFAULT".to_owned(),
        tags: "load".to_owned(),
        ..AttrRqst::default()
    })
}

fn urls(body: Body) -> Vec<String> {
    match body {
        Body::SrvRply(SrvRply { error: None, entries }) => {
            entries.into_iter().map(|entry| entry.url).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// The answer to a datagram; `patience`: how long to wait for one.
async fn ask(to: SocketAddrV4, bytes: &[u8], patience: Duration) -> Option<(SocketAddr, Message)> {
    let socket = UdpSocket::bind((HERE, 0)).await.unwrap();
    SockRef::from(&socket).set_multicast_if_v4(&HERE).unwrap();
    socket.send_to(bytes, to).await.unwrap();
    let mut buffer = [0; 2048];
    let (length, from) = timeout(patience, socket.recv_from(&mut buffer)).await.ok()?.unwrap();
    Some((from, Message::parse(&buffer[..length]).unwrap()))
}

async fn next(stream: &mut TcpStream, framer: &mut Framer) -> Message {
    loop {
        if let Some(bytes) = framer.next_message().unwrap() {
            return Message::parse(&bytes).unwrap();
        }
        let mut piece = [0; 512];
        let length = stream.read(&mut piece).await.unwrap();
        assert!(length > 0, "closed");
        framer.push(&piece[..length]);
    }
}

#[tokio::test]
async fn answers_datagrams_and_the_group_where_there_is_no_daemon() {
    let setup = setup(None).await;
    let at = SocketAddrV4::new(HERE, setup.port);
    let discovery = Discovery::start(setup, 1);
    let status = until(&discovery, "alone", |status| status.mode == Mode::Alone).await;
    assert_eq!(status.url.as_deref(), Some("service:rsip://127.0.0.1:4555"));

    let unicast = message(Flags::default(), request("(&(tunnel-type=IP-IP)(transport=TCP))"));
    let (from, answer) = ask(at, &unicast, PATIENCE).await.unwrap();
    assert_eq!(from, SocketAddr::V4(at), "from the address that was asked");
    assert_eq!(answer.xid, 4711);
    assert_eq!(urls(answer.body), ["service:rsip://127.0.0.1:4555"]);

    let mcast = Flags { request_mcast: true, ..Flags::default() };
    let group = SocketAddrV4::new(GROUP, at.port());
    let (from, answer) = ask(group, &message(mcast, request("")), PATIENCE).await.unwrap();
    assert_eq!(from, SocketAddr::V4(at), "by unicast, from port 427");
    assert_eq!(urls(answer.body), ["service:rsip://127.0.0.1:4555"]);

    // Nothing found: an empty answer to the one, silence to the other.
    let nothing = message(Flags::default(), request("(tunnel-type=L2TP)"));
    assert_eq!(urls(ask(at, &nothing, PATIENCE).await.unwrap().1.body), Vec::<String>::new());
    let patience = Duration::from_millis(300);
    assert!(ask(group, &message(mcast, request("(tunnel-type=L2TP)")), patience).await.is_none());
    assert!(ask(at, b"garbage", patience).await.is_none());
    discovery.stop().await;
    assert!(UdpSocket::bind(at).await.is_ok(), "the port is free again");
}

#[tokio::test]
async fn tells_its_load_over_connections_too() {
    let setup = setup(None).await;
    let at = SocketAddrV4::new(HERE, setup.port);
    let discovery = Discovery::start(setup, 1);
    until(&discovery, "alone", |status| status.mode == Mode::Alone).await;
    let mut stream = TcpStream::connect(at).await.unwrap();
    let mut framer = Framer::new(4096);
    for load in [0, 42] {
        discovery.set_load(Load::new(load));
        until(&discovery, "the load", |status| status.load == Some(load)).await;
        // In pieces, and two at a time.
        let both =
            [message(Flags::default(), load_request()), message(Flags::default(), request(""))].concat();
        for piece in both.chunks(7) {
            stream.write_all(piece).await.unwrap();
        }
        let attributes = AttrRply { error: None, attributes: format!("(load={load})") };
        assert_eq!(soon("attributes", next(&mut stream, &mut framer)).await.body, Body::AttrRply(attributes));
        assert_eq!(urls(soon("a service", next(&mut stream, &mut framer)).await.body).len(), 1);
    }
    stream.write_all(&[9; 20]).await.unwrap();
    let mut rest = Vec::new();
    assert_eq!(soon("the end", stream.read_to_end(&mut rest)).await.unwrap(), 0, "what is no SLP is closed");
    discovery.stop().await;
}

#[tokio::test]
async fn a_host_has_a_few_connections_and_no_more() {
    let setup = setup(None).await;
    let at = SocketAddrV4::new(HERE, setup.port);
    let discovery = Discovery::start(setup, 1);
    until(&discovery, "alone", |status| status.mode == Mode::Alone).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(at).await.unwrap();
        stream.write_all(&message(Flags::default(), request(""))).await.unwrap();
        soon("an answer", next(&mut stream, &mut Framer::new(4096))).await;
        open.push(stream);
    }
    let mut fifth = TcpStream::connect(at).await.unwrap();
    let mut byte = [0];
    let end = soon("the end", fifth.read(&mut byte)).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    drop(open);
    let again = async {
        loop {
            let mut stream = TcpStream::connect(at).await.unwrap();
            let sent = stream.write_all(&message(Flags::default(), request(""))).await;
            if sent.is_ok() && matches!(stream.read(&mut byte).await, Ok(1)) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    soon("a place", again).await;
    discovery.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_hinders_nobody() {
    let setup = setup(None).await;
    let taken = UdpSocket::bind((HERE, setup.port)).await.unwrap();
    let port = setup.port;
    let discovery = Discovery::start(setup, 1);
    let status = until(&discovery, "failed", |status| status.mode == Mode::Failed).await;
    let problem = status.problem.unwrap();
    assert!(problem.starts_with(&format!("cannot listen on UDP 127.0.0.1:{port}: ")), "{problem}");
    assert!(problem.contains("SLP = false"), "{problem}");
    drop(taken);
    soon("the end", discovery.stop()).await;
}

/// The registration that came, after it was acknowledged.
async fn take(daemon: &TcpListener, error: Option<ErrorCode>) -> Message {
    let (mut stream, _) = soon("a connection", daemon.accept()).await.unwrap();
    let request = soon("a message", next(&mut stream, &mut Framer::new(4096))).await;
    let flags = Flags::default();
    let ack = Message { flags, body: Body::SrvAck { error }, ..request.clone() };
    stream.write_all(&ack.encode().unwrap()).await.unwrap();
    request
}

/// The daemon answers the probe, which says nothing.
async fn probed(daemon: &TcpListener) {
    let (mut stream, _) = soon("the probe", daemon.accept()).await.unwrap();
    let mut byte = [0];
    assert_eq!(soon("its end", stream.read(&mut byte)).await.unwrap(), 0);
}

fn registration(message: &Message) -> &SrvReg {
    match &message.body {
        Body::SrvReg(registration) => registration,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_daemon_gets_the_registration_and_port_427_is_left_to_it() {
    let daemon = TcpListener::bind((HERE, 0)).await.unwrap();
    let SocketAddr::V4(at) = daemon.local_addr().unwrap() else { panic!("IPv4") };
    let setup = setup(Some(at)).await;
    let port = setup.port;
    let discovery = Discovery::start(setup, 1);
    probed(&daemon).await;
    let first = take(&daemon, None).await;
    assert!(first.flags.fresh);
    let body = registration(&first);
    assert_eq!((body.entry.url.as_str(), body.entry.lifetime), ("service:rsip://127.0.0.1:4555", 3600));
    assert_eq!((body.service_type.as_str(), body.scopes.as_str()), ("service:rsip", "DEFAULT"));
    assert!(body.attributes.ends_with("(transport=TCP,UDP),(load=0)"), "{}", body.attributes);
    let status = until(&discovery, "registered", |status| {
        status.registrations.iter().any(|r| r.state == "registered")
    })
    .await;
    assert_eq!((status.mode, status.registrations[0].at), (Mode::Daemon, at));
    assert!(UdpSocket::bind((HERE, port)).await.is_ok() && TcpListener::bind((HERE, port)).await.is_ok());
    let stopping = tokio::spawn(discovery.stop());
    let end = take(&daemon, None).await;
    let Body::SrvDeReg(end) = end.body else { panic!("{end:?}") };
    assert_eq!((end.entry.url.as_str(), end.scopes.as_str()), ("service:rsip://127.0.0.1:4555", "DEFAULT"));
    soon("the end", stopping).await.unwrap();
}

#[tokio::test]
async fn a_daemon_that_takes_only_datagrams_is_found() {
    let daemon = UdpSocket::bind((HERE, 0)).await.unwrap();
    let SocketAddr::V4(at) = daemon.local_addr().unwrap() else { panic!("IPv4") };
    let discovery = Discovery::start(setup(Some(at)).await, 1);
    let mut buffer = [0; 2048];
    for expected in ["probe", "registration"] {
        let (length, from) = soon(expected, daemon.recv_from(&mut buffer)).await.unwrap();
        let request = Message::parse(&buffer[..length]).unwrap();
        let body = match &request.body {
            Body::SrvRqst(_) if expected == "probe" => Body::SrvRply(SrvRply::default()),
            Body::SrvReg(_) if expected == "registration" => Body::SrvAck { error: None },
            other => panic!("{expected}: {other:?}"),
        };
        let reply = Message { flags: Flags::default(), body, ..request };
        daemon.send_to(&reply.encode().unwrap(), from).await.unwrap();
    }
    let registered = |status: &Status| status.registrations.iter().any(|r| r.state == "registered");
    assert_eq!(until(&discovery, "registered", registered).await.mode, Mode::Daemon);
    // The end goes to a daemon that does not answer, and does not wait for ever.
    soon("the end", discovery.stop()).await;
}

#[tokio::test]
async fn a_daemon_that_goes_is_replaced() {
    let daemon = TcpListener::bind((HERE, 0)).await.unwrap();
    let SocketAddr::V4(at) = daemon.local_addr().unwrap() else { panic!("IPv4") };
    let setup = setup(Some(at)).await;
    let port = setup.port;
    let discovery = Discovery::start(setup, 1);
    probed(&daemon).await;
    take(&daemon, None).await;
    drop(daemon);
    // A change of load wants to be told after 15 s; it finds nobody.
    discovery.set_load(Load::new(50));
    let wait = async {
        while discovery.status().mode != Mode::Alone {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(60), wait).await.unwrap();
    assert_eq!(discovery.status().load, Some(50));
    let answer =
        ask(SocketAddrV4::new(HERE, port), &message(Flags::default(), load_request()), PATIENCE).await;
    let told = AttrRply { error: None, attributes: "(load=50)".to_owned() };
    assert_eq!(answer.unwrap().1.body, Body::AttrRply(told));
    discovery.stop().await;
}

/// Answers the question whether the gateway is still registered.
async fn asked_again(daemon: &TcpListener, known: &[&str]) {
    let (mut stream, _) = soon("a question", daemon.accept()).await.unwrap();
    let question = soon("a message", next(&mut stream, &mut Framer::new(4096))).await;
    let Body::SrvRqst(request) = &question.body else { panic!("{question:?}") };
    assert_eq!((request.service_type.as_str(), request.scopes.as_str()), ("service:rsip", "DEFAULT"));
    let entries = known.iter().map(|url| UrlEntry { lifetime: 100, url: (*url).to_owned() }).collect();
    let body = Body::SrvRply(SrvRply { error: None, entries });
    let reply = Message { flags: Flags::default(), body, ..question };
    stream.write_all(&reply.encode().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_daemon_that_was_started_anew_gets_the_registration_again() {
    let daemon = TcpListener::bind((HERE, 0)).await.unwrap();
    let SocketAddr::V4(at) = daemon.local_addr().unwrap() else { panic!("IPv4") };
    let setup = Setup { probe_interval: Duration::from_millis(200), ..setup(Some(at)).await };
    let discovery = Discovery::start(setup, 1);
    probed(&daemon).await;
    let first = take(&daemon, None).await;
    asked_again(&daemon, &["service:rsip://192.0.2.9:4555", "service:rsip://127.0.0.1:4555"]).await;
    asked_again(&daemon, &["service:rsip://192.0.2.9:4555"]).await;
    probed(&daemon).await;
    let second = take(&daemon, None).await;
    assert!(second.flags.fresh);
    assert_eq!(registration(&second), registration(&first));
    // One that is gone for good is noticed without a reason to tell it anything.
    drop(daemon);
    until(&discovery, "alone", |status| status.mode == Mode::Alone).await;
    discovery.stop().await;
}
