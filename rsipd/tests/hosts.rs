//! Hosts that behave: the protocol by bytes, over both transports, and what the data path and the status hold then.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say so")]

mod common;

use std::net::Ipv4Addr;
use std::time::Duration;

use common::{PUBLIC, TestGateway, assign, config, error, free, granted, hex, limits, listen};
use rsip_proto::ids::BindId;
use rsip_proto::wire::{Body, ErrorCode, Message, Ports};
use rsipd::control::table;
use rsipd::control::view::{Answer, Request};
use rsipd::datapath::fake::Call;
use rsipd::signals::Signal;

const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

#[tokio::test]
async fn register_assign_listen_free_leave_byte_by_byte_over_udp() {
    let gateway = TestGateway::start();
    let host = gateway.udp().await;

    host.send(&hex("01 02 00 0b  0b 0004 00000001")).await;
    let answer = host.receive().await;
    let client_id = [answer[7], answer[8], answer[9], answer[10]];
    let id: String = client_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        answer,
        hex(&format!(
            "01 03 00 26  04 0004 {id}  03 0004 00000258  09 0002 01 03  0b 0004 00000001  07 0001 02  06 0001 01"
        ))
    );

    host.send(&hex(&format!(
        "01 08 00 2d  04 0004 {id}  01 0001 01  02 0001 10  01 0001 01  02 0001 01  0b 0004 00000002  03 0004 00000e10
         06 0001 01"
    )))
    .await;
    assert_eq!(
        host.receive().await,
        hex(&format!(
            "01 09 00 3a  04 0004 {id}  05 0004 00000001  01 0005 01 c0000201  02 0003 10 2710  01 0001 01  02 0001 01
             03 0004 00000e10  06 0001 01  0b 0004 00000002"
        ))
    );

    host.send(&hex(&format!(
        "01 10 00 33  04 0004 {id}  01 0005 01 c0000201  02 0003 01 0050  01 0001 01  02 0001 01  0b 0004 00000003
         03 0004 00000e10  06 0001 01"
    )))
    .await;
    // Tunnel Type stands before Lease Time here.
    assert_eq!(
        host.receive().await,
        hex(&format!(
            "01 11 00 3a  04 0004 {id}  05 0004 00000002  01 0005 01 c0000201  02 0003 01 0050  01 0001 01  02 0001 01
             06 0001 01  03 0004 00000e10  0b 0004 00000003"
        ))
    );
    let held = gateway.datapath.held();
    assert_eq!(held.len(), 17);
    assert!(held.values().all(|holder| *holder == HOST));
    assert!(held.contains_key(&(PUBLIC, 80)) && held.contains_key(&(PUBLIC, 10015)));

    host.send(&hex(&format!("01 0c 00 19  04 0004 {id}  05 0004 00000002  0b 0004 00000004"))).await;
    assert_eq!(
        host.receive().await,
        hex(&format!("01 0d 00 19  04 0004 {id}  05 0004 00000002  0b 0004 00000004"))
    );
    assert!(!gateway.datapath.held().contains_key(&(PUBLIC, 80)));

    host.send(&hex(&format!("01 04 00 12  04 0004 {id}  0b 0004 00000005"))).await;
    assert_eq!(host.receive().await, hex(&format!("01 05 00 12  04 0004 {id}  0b 0004 00000005")));
    assert!(gateway.datapath.held().is_empty());
}

#[tokio::test]
async fn the_same_over_tcp_however_the_stream_is_cut() {
    let gateway = TestGateway::start();
    let mut host = gateway.tcp().await;
    let client_id = host.register().await;
    // Byte by byte.
    let request = Message::new(rsip_proto::ids::MessageCounter(2), assign(client_id, 3)).encode().unwrap();
    for byte in request {
        host.send(&[byte]).await;
        tokio::task::yield_now().await;
    }
    let answer = Message::parse(&host.receive().await.unwrap()).unwrap();
    assert_eq!(granted(answer.body).local_ports, Ports::Range { first: 10000, count: 3 });
    // Two in one segment; a host that waits for no answer still gets both, in order.
    let mut both = Message::new(rsip_proto::ids::MessageCounter(3), listen(client_id, 80)).encode().unwrap();
    both.extend(Message::new(rsip_proto::ids::MessageCounter(4), listen(client_id, 81)).encode().unwrap());
    host.send(&both).await;
    for port in [80, 81] {
        let answer = Message::parse(&host.receive().await.unwrap()).unwrap();
        assert_eq!(granted(answer.body).local_ports, Ports::single(port));
    }
    assert_eq!(gateway.datapath.held().len(), 5);
}

#[tokio::test]
async fn a_host_that_has_said_all_still_gets_its_answer() {
    use tokio::io::AsyncWriteExt as _;
    let gateway = TestGateway::start();
    let mut host = gateway.tcp().await;
    host.send(&hex("01 02 00 0b  0b 0004 00000001")).await;
    host.stream.shutdown().await.unwrap();
    let answer = Message::parse(&host.receive().await.unwrap()).unwrap();
    assert!(matches!(answer.body, Body::RegisterResponse { .. }));
}

#[tokio::test]
async fn registration_and_leases_outlive_the_connection() {
    let gateway = TestGateway::start();
    let mut host = gateway.tcp().await;
    let client_id = host.register().await;
    granted(host.ask(listen(client_id, 80)).await);
    drop(host);
    let state = gateway.until("connection is gone", |state| state.daemon.connections == 0).await;
    assert_eq!(state.clients.len(), 1);
    assert_eq!(gateway.datapath.held().len(), 1);
    let mut again = gateway.tcp().await;
    let bind_id = BindId(1);
    assert!(
        matches!(again.ask(free(client_id, bind_id)).await, Body::FreeResponse { bind_id: freed, .. } if freed == bind_id)
    );
}

#[tokio::test]
async fn answers_only_what_the_data_path_holds() {
    let gateway = TestGateway::start();
    let mut host = gateway.udp().await;
    let client_id = host.register().await;
    gateway.datapath.fail_next(1);
    assert_eq!(error(host.ask(listen(client_id, 80)).await), ErrorCode::InternalServerError);
    assert!(gateway.datapath.held().is_empty());
    // The port went back: the next request gets it.
    assert_eq!(granted(host.ask(listen(client_id, 80)).await).local_ports, Ports::single(80));
    let calls = gateway.datapath.calls();
    assert!(matches!(calls.as_slice(), [Call::Install(_, false), Call::Install(_, true)]), "{calls:?}");
    assert_eq!(gateway.state().await.counters.events.datapath_failures, 1);
}

#[tokio::test]
async fn two_hosts_do_not_get_one_port() {
    let gateway = TestGateway::start();
    let mut first = gateway.udp_from(Ipv4Addr::new(127, 0, 0, 2)).await;
    let mut second = gateway.tcp_from(Ipv4Addr::new(127, 0, 0, 3)).await.unwrap();
    let (a, b) = (first.register().await, second.register().await);
    assert_ne!(a, b);
    granted(first.ask(listen(a, 80)).await);
    assert_eq!(error(second.ask(listen(b, 80)).await), ErrorCode::LocalAddrportInuse);
    assert!(matches!(first.ask(free(a, BindId(1))).await, Body::FreeResponse { .. }));
    granted(second.ask(listen(b, 80)).await);
    assert_eq!(gateway.datapath.held()[&(PUBLIC, 80)], Ipv4Addr::new(127, 0, 0, 3));
}

#[tokio::test]
async fn a_lease_ends_by_itself() {
    let short = Duration::from_secs(3);
    let gateway =
        TestGateway::with(rsip_proto::gateway::GatewayConfig { lease_time: short, ..config() }, limits());
    let mut host = gateway.udp().await;
    let client_id = host.register().await;
    granted(host.ask(assign(client_id, 2)).await);
    gateway.until("the lease has ended", |state| state.clients.is_empty()).await;
    assert!(gateway.datapath.held().is_empty());
}

#[tokio::test]
async fn stop_takes_all_back_and_tells_the_hosts() {
    let gateway = TestGateway::start();
    let mut by_udp = gateway.udp_from(Ipv4Addr::new(127, 0, 0, 2)).await;
    let mut by_tcp = gateway.tcp_from(Ipv4Addr::new(127, 0, 0, 3)).await.unwrap();
    let (a, b) = (by_udp.register().await, by_tcp.register().await);
    granted(by_udp.ask(assign(a, 4)).await);
    granted(by_tcp.ask(listen(b, 80)).await);
    let datapath = gateway.datapath.clone();
    gateway.signals.send(Signal::Stop).await.unwrap();
    gateway.stopped().await.unwrap();
    for (bytes, client_id) in [(by_udp.receive().await, a), (by_tcp.receive().await.unwrap(), b)] {
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.counter, Some(rsip_proto::ids::MessageCounter::ASYNCHRONOUS));
        assert_eq!(message.body, Body::DeRegisterResponse { client_id });
    }
    assert!(by_tcp.is_closed().await);
    let calls = datapath.calls();
    assert!(matches!(calls.last(), Some(Call::Close)), "{calls:?}");
    let removed = calls.iter().filter(|call| matches!(call, Call::Remove(_, true))).count();
    assert_eq!(removed, 2, "rule by rule, before the end: {calls:?}");
}

#[tokio::test]
async fn administrator_sees_releases_and_stops() {
    let gateway = TestGateway::start();
    let mut host = gateway.udp().await;
    let client_id = host.register().await;
    granted(host.ask(assign(client_id, 2)).await);
    granted(host.ask(listen(client_id, 80)).await);
    let state = gateway.state().await;
    let bindings = &state.clients[0].bindings;
    assert_eq!(
        bindings.iter().map(|b| (b.listen, b.installed)).collect::<Vec<_>>(),
        [(false, Some(true)), (true, Some(true))]
    );
    assert_eq!((state.pool[0].leased, state.counters.events.bound), (3, 2));

    gateway.ask(Request::Release { client: client_id.0, bind: Some(2) }).await.unwrap();
    assert_eq!(gateway.datapath.held().len(), 2, "done when answered");
    let told = Message::parse(&host.receive().await).unwrap();
    assert_eq!(told.body, Body::FreeResponse { client_id, bind_id: BindId(2) });
    let refused = gateway.ask(Request::Release { client: client_id.0, bind: Some(2) }).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("there is no binding {client_id}/2"));
    gateway.ask(Request::Release { client: client_id.0, bind: None }).await.unwrap();
    assert!(gateway.state().await.clients.is_empty());
    assert!(gateway.ask(Request::Release { client: 1, bind: None }).await.is_err());

    assert_eq!(gateway.ask(Request::Stop).await.unwrap(), Answer::Done);
    gateway.stopped().await.unwrap();
}

#[tokio::test]
async fn status_file_holds_the_table() {
    let gateway = TestGateway::start();
    let mut host = gateway.udp().await;
    let client_id = host.register().await;
    granted(host.ask(listen(client_id, 80)).await);
    gateway.signals.send(Signal::WriteStatus).await.unwrap();
    let path = gateway.directory.path().join("rsipd.status");
    let wait = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(common::PATIENCE, wait).await.expect("the status file appears");
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.starts_with("Client"), "{text}");
    let row: Vec<_> = text.lines().nth(1).unwrap().split_whitespace().collect();
    let id = client_id.to_string();
    assert_eq!(row[..5], ["127.0.0.1", "192.0.2.1", "ASSIGNED", &id, "1"]);
    assert_eq!(row[7..], ["IP-IP", "tcp,udp", "80", "any"]);
}

#[tokio::test]
async fn reload_drops_nothing() {
    let gateway = TestGateway::start();
    let mut host = gateway.udp().await;
    let client_id = host.register().await;
    granted(host.ask(listen(client_id, 80)).await);
    let file = gateway.directory.path().join("rsipd.conf");
    let status = gateway.directory.path().join("elsewhere");
    for text in
        ["BOGUS = 1".to_owned(), format!("INT_IF = \"a\"\nEXT_IF = \"b\"\nSTATUS_FILE = {status:?}\n")]
    {
        std::fs::write(&file, text).unwrap();
        gateway.signals.send(Signal::Reload).await.unwrap();
        let state = gateway.state().await;
        assert_eq!(state.clients[0].bindings.len(), 1);
        assert_eq!(state.daemon.internal_interface, "in0", "waits for a restart");
    }
    gateway.signals.send(Signal::WriteStatus).await.unwrap();
    gateway.state().await;
    assert!(table::dump(&gateway.state().await).contains("tcp,udp"));
    assert!(status.exists(), "the status file's place changed");
}
