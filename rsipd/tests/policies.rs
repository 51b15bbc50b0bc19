//! Whole addresses and flow policies, from the request to what the data path and the administrator see.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say so")]

mod common;

use std::net::Ipv4Addr;

use common::{PUBLIC, TestGateway, assign, config, error, free, granted, limits, listen};
use rsip_proto::gateway::{GatewayConfig, RemoteDeny};
use rsip_proto::ids::{BindId, ClientId};
use rsip_proto::lease::{Leased, Remote};
use rsip_proto::wire::message::{AssignRequestRsaIp, AssignRequestRsapIp};
use rsip_proto::wire::{Address, Body, ErrorCode, FlowPolicy, LocalPolicy, Ports, RemotePolicy, RsipMethod};
use rsipd::control::table;
use rsipd::control::view::Whole;
use rsipd::datapath::fake::Call;

const WHOLE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SECOND: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

fn with_whole() -> GatewayConfig {
    let mut config = config();
    config.pool.whole = vec![WHOLE];
    config
}

fn with_policy(local: LocalPolicy, remote: RemotePolicy) -> GatewayConfig {
    GatewayConfig { flow_policy: FlowPolicy { local, remote }, ..config() }
}

fn assign_whole(client_id: ClientId) -> Body {
    Body::AssignRequestRsaIp(AssignRequestRsaIp {
        client_id,
        local_address: Address::ANY,
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: None,
        tunnel_type: None,
    })
}

fn assign_for(client_id: ClientId, count: u8, remote_address: Address, remote_ports: Ports) -> Body {
    let Body::AssignRequestRsapIp(request) = assign(client_id, count) else { panic!("an assignment") };
    Body::AssignRequestRsapIp(AssignRequestRsapIp { remote_address, remote_ports, ..request })
}

#[tokio::test]
async fn a_whole_address_is_leased_shown_and_given_back() {
    let gateway = TestGateway::with(with_whole(), limits());
    let mut host = gateway.udp_from(FIRST).await;
    let Body::RegisterResponse { client_id, methods, .. } = host.ask(Body::RegisterRequest).await else {
        panic!("not registered")
    };
    assert!(methods.contains(&RsipMethod::RsaIp) && methods.contains(&RsipMethod::RsapIp), "{methods:?}");
    let answer = host.ask(assign_whole(client_id)).await;
    let Body::AssignResponseRsaIp(binding) = answer else { panic!("not granted: {answer:?}") };
    assert_eq!(binding.local_address, Address::Ipv4(WHOLE));
    assert_eq!(gateway.datapath.held_whole().get(&WHOLE), Some(&FIRST));

    let state = gateway.state().await;
    let shown = &state.clients[0].bindings[0];
    assert_eq!((shown.address, shown.whole, shown.installed), (WHOLE, true, Some(true)));
    assert_eq!((shown.ports.len(), shown.remote.as_str()), (0, "any"));
    let used: Vec<_> = state.pool.iter().map(|pool| (pool.address, pool.whole)).collect();
    assert_eq!(used, [(PUBLIC, Whole::Never), (WHOLE, Whole::Leased)]);
    let dump = table::dump(&state);
    let row: Vec<_> = dump.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[1], &row[8..]), ("192.0.2.9", &["all", "all", "any"][..]), "{dump}");

    // Only one, for one and for all.
    assert_eq!(error(host.ask(assign_whole(client_id)).await), ErrorCode::LocalAddrUnavailable);
    let mut other = gateway.tcp_from(SECOND).await.unwrap();
    let others = other.register().await;
    assert_eq!(error(other.ask(assign_whole(others)).await), ErrorCode::LocalAddrUnavailable);
    // Ports of the shared address are another matter.
    granted(other.ask(assign(others, 8)).await);

    let freed = host.ask(free(client_id, binding.bind_id)).await;
    assert!(matches!(freed, Body::FreeResponse { .. }), "{freed:?}");
    assert!(gateway.datapath.held_whole().is_empty());
    let answer = other.ask(assign_whole(others)).await;
    assert!(matches!(answer, Body::AssignResponseRsaIp(_)), "{answer:?}");
    assert_eq!(gateway.datapath.held_whole().get(&WHOLE), Some(&SECOND));
}

#[tokio::test]
async fn without_addresses_to_lease_whole_there_is_no_rsa_ip() {
    let gateway = TestGateway::start();
    let mut host = gateway.udp().await;
    let Body::RegisterResponse { client_id, methods, .. } = host.ask(Body::RegisterRequest).await else {
        panic!("not registered")
    };
    assert_eq!(methods, [RsipMethod::RsapIp]);
    assert_eq!(error(host.ask(assign_whole(client_id)).await), ErrorCode::UnsupportedMessage);
}

#[tokio::test]
async fn an_address_that_the_data_path_does_not_hold_is_not_leased() {
    let gateway = TestGateway::with(with_whole(), limits());
    let mut host = gateway.udp().await;
    let client_id = host.register().await;
    gateway.datapath.fail_next(1);
    assert_eq!(error(host.ask(assign_whole(client_id)).await), ErrorCode::InternalServerError);
    assert!(gateway.datapath.held_whole().is_empty());
    let answer = host.ask(assign_whole(client_id)).await;
    assert!(matches!(answer, Body::AssignResponseRsaIp(_)), "the address went back: {answer:?}");
}

#[tokio::test]
async fn remote_policies_demand_a_peer_and_the_data_path_hears_of_it() {
    let peer = || Address::Ipv4(PEER);
    for (policy, too_little, asked, remote, shown) in [
        (
            RemotePolicy::Macro,
            (Address::ANY, Ports::ANY),
            (peer(), Ports::ANY),
            Remote::Address(PEER),
            "203.0.113.7",
        ),
        (
            RemotePolicy::Micro,
            (peer(), Ports::ANY),
            (peer(), Ports::single(443)),
            Remote::Port(std::net::SocketAddrV4::new(PEER, 443)),
            "203.0.113.7:443",
        ),
    ] {
        let gateway = TestGateway::with(with_policy(LocalPolicy::Macro, policy), limits());
        let mut host = gateway.udp().await;
        let client_id = host.register().await;
        let vague = assign_for(client_id, 4, too_little.0, too_little.1);
        assert_eq!(error(host.ask(vague).await), ErrorCode::FlowPolicyViolation, "{policy:?}");
        assert!(gateway.datapath.calls().is_empty());
        let binding = granted(host.ask(assign_for(client_id, 4, asked.0.clone(), asked.1.clone())).await);
        assert_eq!((binding.remote_address, binding.remote_ports), asked);
        let calls = gateway.datapath.calls();
        assert!(
            matches!(calls.as_slice(), [Call::Install(rule, true)] if rule.remote == remote
                && rule.leased == Leased::Ports(Ports::Range { first: 10000, count: 4 })),
            "{calls:?}"
        );
        let state = gateway.state().await;
        assert_eq!(state.clients[0].bindings[0].remote, shown);
        assert!(table::dump(&state).lines().nth(1).unwrap().ends_with(shown));
    }
}

#[tokio::test]
async fn peers_that_the_administrator_denies_are_refused() {
    let deny = |ports| vec![RemoteDeny { network: ([203, 0, 113, 0].into(), 24), ports }];
    let macro_ = with_policy(LocalPolicy::Macro, RemotePolicy::Macro);
    let gateway = TestGateway::with(GatewayConfig { remote_deny: deny(0..=65535), ..macro_ }, limits());
    let mut host = gateway.udp().await;
    let client_id = host.register().await;
    let ask = assign_for(client_id, 1, Address::Ipv4(PEER), Ports::ANY);
    assert_eq!(error(host.ask(ask).await), ErrorCode::RemoteAddrUnallowed);

    let micro = with_policy(LocalPolicy::Macro, RemotePolicy::Micro);
    let gateway = TestGateway::with(GatewayConfig { remote_deny: deny(25..=25), ..micro }, limits());
    let mut host = gateway.udp().await;
    let client_id = host.register().await;
    let ask = |port| assign_for(client_id, 1, Address::Ipv4(PEER), Ports::single(port));
    assert_eq!(error(host.ask(ask(25)).await), ErrorCode::RemoteAddrportUnallowed);
    granted(host.ask(ask(26)).await);
}

#[tokio::test]
async fn local_micro_gives_one_port_at_a_time() {
    let gateway = TestGateway::with(with_policy(LocalPolicy::Micro, RemotePolicy::None), limits());
    let mut host = gateway.udp().await;
    let client_id = host.register().await;
    assert_eq!(error(host.ask(assign(client_id, 2)).await), ErrorCode::FlowPolicyViolation);
    for _ in 0..3 {
        granted(host.ask(assign(client_id, 1)).await);
    }
    granted(host.ask(listen(client_id, 80)).await);
    assert_eq!(gateway.datapath.held().len(), 4);
    let freed = host.ask(free(client_id, BindId(2))).await;
    assert!(matches!(freed, Body::FreeResponse { .. }), "{freed:?}");
    assert_eq!(gateway.datapath.held().len(), 3);
}
