//! Every way to open a socket: its result, its lease at the gateway, its count, and its end.
//!
//! Each way is a [`Way`]: a name and the steps of one program. All of them run one after the other in one lab, on one host;
//! what takes time (lingering, TIME_WAIT) is promised by a way and looked at in the end, for all ways together.
//!
//! `RSIP_WAIT` is given to `rsip-client up --wait`. With `RSIP_TABLE_DIR`, a line for each way is added to
//! `socket_ways.tsv` there: way, kernel, how bind() waits, outcome.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test ends at the first surprise")]

mod binds;
mod held;
mod look;
mod outbound;
mod privileged;
mod shared;
mod stage;
mod table;
mod unusual;

use nix::libc;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{HOST_IF, INTERNET};
use rsip_lab::lab::{Host, agent, probe};
use socket2::{Domain, Protocol, Socket, Type};

use self::look::{Daemons, Eye};
use self::stage::{Stage, Way};

/// Arguments for `rsip-client up`: the way of waiting that the environment asks for, and more.
fn arguments(more: &[&str]) -> Vec<String> {
    let wait = std::env::var("RSIP_WAIT").ok();
    let wait = wait.iter().flat_map(|way| ["--wait".to_owned(), way.clone()]);
    wait.chain(more.iter().map(|word| (*word).to_owned())).collect()
}

/// Has the kernel load what it has of the protocols that ways use: a module brings settings into every namespace, and what is
/// there is compared in the end.
fn load_protocols() {
    let all = [
        (Type::STREAM, libc::IPPROTO_SCTP),
        (Type::DGRAM, libc::IPPROTO_UDPLITE),
        (Type::STREAM, libc::IPPROTO_MPTCP),
    ];
    for (kind, protocol) in all {
        // Where it is not there, its way says so.
        drop(Socket::new(Domain::IPV4, kind, Some(Protocol::from(protocol))));
    }
}

/// Runs the ways on host-a; `before` are done before the agent starts.
fn run(options: Options, ways: &[&[Way]]) {
    load_protocols();
    let mut system = System::new(options).unwrap();
    let host = system.lab.host(Host::A).clone();
    stage::add_addresses(&host).unwrap();
    system.start_gateway().unwrap();
    let tcp = probe::serve(&system.lab, &system.lab.internet, &["0.0.0.0:9000"]).unwrap();
    let udp = probe::serve(&system.lab, &system.lab.internet, &["--udp", "0.0.0.0:9000"]).unwrap();
    let early = host.enter(held::Early::bind).unwrap().unwrap();
    system.start_agent(Host::A).unwrap();

    let mode = agent::status(&system.lab, Host::A).unwrap().waiting.way;
    let failures = {
        let daemons = Daemons::of(&system.lab).unwrap();
        let eye = Eye::open(&daemons);
        let mut table = table::Table::new(&mode);
        let mut stage = Stage::new(&system, daemons, &eye, early);
        host.enter(|| {
            for way in ways.iter().copied().flatten() {
                let outcome = stage.play(way);
                table.add(way.name, outcome);
            }
            stage.finish(&mut table);
        })
        .unwrap();
        table.finish()
    };
    assert!(failures.is_empty(), "{mode}:\n{}", failures.join("\n"));
    stage::expect_no_counts(&mut system).unwrap();
    drop((tcp, udp));
    stage::remove_addresses(&host).unwrap();
    system.finish().unwrap();
}

#[test]
fn every_way_to_open_a_socket_has_its_lease_its_count_and_its_end() {
    let options = Options { agent: arguments(&[]), ..Options::default() };
    run(options, &[held::WAYS, binds::WAYS, shared::WAYS, outbound::WAYS, unusual::WAYS, privileged::OFF]);
}

#[test]
fn a_leased_port_below_1024_needs_no_capability_where_the_operator_says_so() {
    let gateway = format!("RESERVED_PORTS = [22, {}]", privileged::RESERVED);
    let options = Options { agent: arguments(&["--privileged-ports", "leased"]), gateway };
    run(options, &[privileged::ON]);
}

#[test]
fn a_count_that_went_wrong_keeps_no_port_where_the_kernel_lists_every_socket() {
    let options = Options { agent: arguments(&[]), ..Options::default() };
    let mut system = System::new(options).unwrap();
    system.start_gateway().unwrap();
    system.start_agent(Host::A).unwrap();
    let host = system.lab.host(Host::A).clone();
    if !host.enter(rsip_client::usage::diag::lists_idle_sockets).unwrap() {
        // Then the count is all there is.
        system.finish().unwrap();
        return;
    }
    let (program, bound) = probe::bind(&system.lab, &host, &["0.0.0.0:5950"]).unwrap();
    bound.expect_ok().unwrap();
    look::miscount(system.agent(Host::A).unwrap().process.pid(), 5950, 3).unwrap();
    drop(program);
    system.gateway_sees_listening(Host::A, &[]).unwrap();
    system.finish().unwrap();
}

/// Where the servers on the internet are.
const SERVER: std::net::SocketAddrV4 = std::net::SocketAddrV4::new(INTERNET, 9000);
/// The host's interface to the private network.
const PRIVATE_IF: &str = HOST_IF;
