//! How many connections there are, and who makes room for whom.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say so")]

mod common;

use std::net::Ipv4Addr;

use common::{Tcp, TestGateway, config, error, granted, limits, listen};
use rsip_proto::ids::ClientId;
use rsip_proto::wire::{Body, ErrorCode};
use rsipd::config::Settings;
use rsipd::listener::tcp::Limits;

const fn host(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, last)
}

async fn served(gateway: &TestGateway, from: Ipv4Addr) -> (Tcp, ClientId) {
    let mut connection = gateway.tcp_from(from).await.unwrap();
    let client_id = connection.register().await;
    (connection, client_id)
}

/// One of a host that does not know its client ID.
async fn of_a_stranger(gateway: &TestGateway, from: Ipv4Addr) -> Tcp {
    let mut connection = gateway.tcp_from(from).await.unwrap();
    let query = Body::QueryRequest { client_id: ClientId(1), tuples: Vec::new() };
    assert!(matches!(error(connection.ask(query).await), ErrorCode::RegisterFirst | ErrorCode::BadClientId));
    connection
}

async fn still_works(connection: &mut Tcp, client_id: ClientId, port: u16) {
    granted(connection.ask(listen(client_id, port)).await);
}

#[test]
fn what_the_administrator_decides_is_what_holds() {
    let settings = Settings { max_clients: 100, ..Settings::default() };
    let limits = Limits::new(&settings);
    assert_eq!((limits.total, limits.per_host), (164, 8));
    assert_eq!((limits.idle.as_secs(), limits.message.as_secs()), (60, 30));
    let limits = Limits::new(&Settings { max_connections: Some(7), max_connections_per_host: 2, ..settings });
    assert_eq!((limits.total, limits.per_host), (7, 2));
    assert_eq!(limits.capped(5).total, 5, "no more than the process may have");
}

#[tokio::test]
async fn a_host_that_has_all_it_may_loses_its_oldest_for_its_newest() {
    let gateway = TestGateway::with(config(), Limits { per_host: 3, ..limits() });
    let (mut first, client_id) = served(&gateway, host(2)).await;
    let (mut neighbour, neighbours_id) = served(&gateway, host(3)).await;
    // Silent ones go before those that serve.
    let mut silent = Vec::new();
    for _ in 0..4 {
        silent.push(gateway.tcp_from(host(2)).await.unwrap());
    }
    assert!(silent[0].is_closed().await && silent[1].is_closed().await);
    still_works(&mut first, client_id, 80).await;
    // And when all serve, the oldest one goes.
    for (connection, port) in silent[2..].iter_mut().zip(81..) {
        still_works(connection, client_id, port).await;
    }
    let mut newest = gateway.tcp_from(host(2)).await.unwrap();
    still_works(&mut newest, client_id, 83).await;
    assert!(first.is_closed().await);
    still_works(&mut silent[2], client_id, 84).await;
    still_works(&mut neighbour, neighbours_id, 85).await;
    assert_eq!(gateway.state().await.daemon.connections, 4);
}

#[tokio::test]
async fn strangers_make_room_before_hosts_and_the_silent_before_those() {
    let gateway = TestGateway::with(config(), Limits { total: 4, ..limits() });
    let mut stranger = of_a_stranger(&gateway, host(9)).await;
    let mut silent = gateway.tcp_from(host(8)).await.unwrap();
    let (mut a, a_id) = served(&gateway, host(2)).await;
    let (mut b, b_id) = served(&gateway, host(3)).await;
    // Full. The silent one goes for the third host, though the stranger is older.
    let (mut c, c_id) = served(&gateway, host(4)).await;
    assert!(silent.is_closed().await);
    let (mut d, d_id) = served(&gateway, host(5)).await;
    assert!(stranger.is_closed().await);
    // All that is left are hosts with one connection each: whoever comes now finds no place.
    let mut late = gateway.tcp_from(host(6)).await.unwrap();
    assert!(late.is_closed().await);
    for (connection, client_id, port) in
        [(&mut a, a_id, 80), (&mut b, b_id, 81), (&mut c, c_id, 82), (&mut d, d_id, 83)]
    {
        still_works(connection, client_id, port).await;
    }
    assert_eq!(gateway.state().await.daemon.connections, 4);
}

#[tokio::test]
async fn a_host_with_several_connections_makes_room_for_one_that_has_none() {
    let gateway = TestGateway::with(config(), Limits { total: 4, ..limits() });
    let (mut only, only_id) = served(&gateway, host(2)).await;
    let (mut oldest, many_id) = served(&gateway, host(3)).await;
    let mut others = Vec::new();
    for port in [80, 81] {
        let mut connection = gateway.tcp_from(host(3)).await.unwrap();
        still_works(&mut connection, many_id, port).await;
        others.push(connection);
    }
    let (mut newcomer, newcomers_id) = served(&gateway, host(4)).await;
    assert!(oldest.is_closed().await);
    still_works(&mut only, only_id, 82).await;
    still_works(&mut newcomer, newcomers_id, 83).await;
    still_works(&mut others[1], many_id, 84).await;
}

#[tokio::test]
async fn a_host_that_left_is_a_stranger() {
    let gateway = TestGateway::with(config(), Limits { total: 2, ..limits() });
    let (mut left, client_id) = served(&gateway, host(2)).await;
    let (mut stays, stays_id) = served(&gateway, host(3)).await;
    assert!(matches!(left.ask(Body::DeRegisterRequest { client_id }).await, Body::DeRegisterResponse { .. }));
    let (_third, _) = served(&gateway, host(4)).await;
    assert!(left.is_closed().await);
    still_works(&mut stays, stays_id, 80).await;
}

#[tokio::test]
async fn places_come_back() {
    let gateway = TestGateway::with(config(), Limits { total: 3, per_host: 2, ..limits() });
    for _ in 0..10 {
        let mut connections = Vec::new();
        for last in 2..5 {
            connections.push(of_a_stranger(&gateway, host(last)).await);
        }
        assert_eq!(gateway.state().await.daemon.connections, 3);
        drop(connections);
        gateway.until("all are gone", |state| state.daemon.connections == 0).await;
    }
}
