//! Remote flow policies and data misuse, end to end: what the gateway lets through, what it drops, and what it tells the host
//! (RFC 3103 sections 7.2 and 10.4).
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rsip_lab::bpf::packet::{GRE, ICMP, Ip, UDP, echo, gre, udp};
use rsip_lab::lab::manual::{Lease, ManualHost};
use rsip_lab::lab::netns::Inside;
use rsip_lab::lab::system::{Options, System};
use rsip_lab::lab::topology::{EXTERNAL_IF, HOST_IF, INTERNET, PUBLIC};
use rsip_lab::lab::wait::{self, Look};
use rsip_lab::lab::{Host, Lab, exec, gateway, probe};
use rsip_proto::lease::Remote;
use rsip_proto::wire::{Body, ErrorCode};

/// Another host of the internet: an address more on the one that is there.
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
const WHOLE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 3);
/// Of a server on the internet.
const SERVICE: u16 = 9000;
/// Long enough for an error to come; shorter than the second for which the gateway is silent after one.
const HEARD: Duration = Duration::from_millis(500);

fn system(configuration: &str) -> System {
    let lab = Lab::new().unwrap();
    lab.internet.ip(&["address", "add", &format!("{OTHER}/24"), "dev", HOST_IF]).unwrap();
    lab.gateway.ip(&["address", "add", &format!("{WHOLE}/32"), "dev", EXTERNAL_IF]).unwrap();
    let options = Options { gateway: configuration.to_owned(), ..Options::default() };
    let mut system = System::in_lab(lab, options).unwrap();
    system.start_gateway().unwrap();
    system
}

fn registered(lab: &Lab, host: Host) -> ManualHost {
    let mut manual = ManualHost::new(lab, host).unwrap();
    manual.register().unwrap();
    manual
}

fn dropped(lab: &Lab, why: &str) -> u64 {
    gateway::state(lab).unwrap().counters.datapath(why)
}

fn wait_for_drops(lab: &Lab, why: &str, wanted: u64) {
    wait::until(&format!("{wanted} packets to be dropped for {why}"), exec::SHORT, || {
        Ok(match gateway::state(lab)?.counters.datapath(why) {
            seen if seen == wanted => Look::Ready(()),
            seen => Look::NotYet(seen.to_string()),
        })
    })
    .unwrap();
}

/// Whether a datagram to this address is answered.
fn is_answered(inside: &Inside, from: SocketAddrV4, to: SocketAddrV4) -> bool {
    probe::ask(inside, to, &["--udp", "--from", &from.to_string()]).is_ok()
}

fn pings(inside: &Inside, from: Ipv4Addr, to: Ipv4Addr) -> bool {
    let mut ping = inside.command("ping");
    ping.args(["-n", "-c", "1", "-W", "1", "-I", &from.to_string(), &to.to_string()]);
    exec::run(&mut ping, exec::SHORT).unwrap().status.success()
}

/// A datagram of this lease.
fn datagram(lease: &Lease, to: SocketAddrV4) -> Ip {
    let port = lease.ports.first().copied().unwrap_or(5000);
    Ip::new(lease.address, *to.ip(), UDP, udp(port, to.port(), b"hello"))
}

#[test]
fn under_remote_macro_a_lease_is_for_one_address() {
    let system = system("FLOW_POLICY = \"macro/macro\"");
    let lab = &system.lab;
    let inside = lab.host(Host::A);
    let mut host = registered(lab, Host::A);
    let lease = host.assign_ports(4, Remote::Address(INTERNET), None).unwrap();
    let server = host.listen(6000, Remote::Address(INTERNET)).unwrap();
    assert_eq!(server.ports, [6000]);
    host.attach(PUBLIC).unwrap();
    let at = |address, port| SocketAddrV4::new(address, port);
    let service = probe::serve(lab, &lab.internet, &["--udp", "0.0.0.0:9000"]).unwrap();
    let inner = probe::serve(lab, inside, &["--udp", "198.51.100.1:6000"]).unwrap();

    // From inside: any port of the one address, no other address.
    assert!(is_answered(inside, at(PUBLIC, lease.ports[0]), at(INTERNET, SERVICE)));
    assert!(pings(inside, PUBLIC, INTERNET));
    assert_eq!((dropped(lab, "bad_remote"), host.errors(HEARD).unwrap()), (0, vec![]));
    assert!(!is_answered(inside, at(PUBLIC, lease.ports[0]), at(OTHER, SERVICE)));
    assert!(!pings(inside, PUBLIC, OTHER));
    let told = host.errors(HEARD).unwrap();
    assert!(
        !told.is_empty() && told.iter().all(|error| *error == ErrorCode::RemoteAddrUnallowed),
        "{told:?}"
    );

    // From outside: any port of the one address, no other address; and nobody is told.
    let before = dropped(lab, "bad_remote");
    for port in [6001, 6002] {
        assert!(is_answered(&lab.internet, at(INTERNET, port), at(PUBLIC, 6000)), "{port}");
    }
    assert_eq!(dropped(lab, "bad_remote"), before);
    assert!(!is_answered(&lab.internet, at(OTHER, 6001), at(PUBLIC, 6000)));
    assert!(dropped(lab, "bad_remote") > before);
    assert_eq!(host.errors(HEARD).unwrap(), []);

    // What is not leased is the gateway's, for everybody.
    let own = probe::serve(lab, &lab.gateway, &["--udp", "0.0.0.0:7777"]).unwrap();
    assert!(is_answered(&lab.internet, at(OTHER, 6001), at(PUBLIC, 7777)));
    drop((service, inner, own, host));
    system.finish().unwrap();
}

#[test]
fn under_remote_micro_a_lease_is_for_one_port_of_one_address() {
    let system = system("FLOW_POLICY = \"macro/micro\"");
    let lab = &system.lab;
    let inside = lab.host(Host::A);
    let at = |address, port| SocketAddrV4::new(address, port);
    let mut host = registered(lab, Host::A);
    let lease = host.assign_ports(2, Remote::Port(at(INTERNET, SERVICE)), None).unwrap();
    host.listen(6000, Remote::Port(at(INTERNET, 6001))).unwrap();
    host.attach(PUBLIC).unwrap();
    let service = probe::serve(lab, &lab.internet, &["--udp", "0.0.0.0:9000"]).unwrap();
    let second = probe::serve(lab, &lab.internet, &["--udp", "0.0.0.0:9001"]).unwrap();
    let inner = probe::serve(lab, inside, &["--udp", "198.51.100.1:6000"]).unwrap();

    assert!(is_answered(inside, at(PUBLIC, lease.ports[0]), at(INTERNET, SERVICE)));
    assert_eq!((dropped(lab, "bad_remote"), host.errors(HEARD).unwrap()), (0, vec![]));
    for wrong in [at(INTERNET, 9001), at(OTHER, SERVICE)] {
        assert!(!is_answered(inside, at(PUBLIC, lease.ports[0]), wrong), "{wrong}");
        assert_eq!(host.errors(HEARD).unwrap(), [ErrorCode::RemoteAddrportUnallowed], "{wrong}");
    }
    assert!(!pings(inside, PUBLIC, INTERNET), "echo has no port");
    assert_eq!(host.errors(HEARD).unwrap(), [ErrorCode::RemoteAddrportUnallowed]);

    let before = dropped(lab, "bad_remote");
    assert!(is_answered(&lab.internet, at(INTERNET, 6001), at(PUBLIC, 6000)));
    assert_eq!(dropped(lab, "bad_remote"), before);
    assert!(!is_answered(&lab.internet, at(INTERNET, 6002), at(PUBLIC, 6000)));
    assert!(!is_answered(&lab.internet, at(OTHER, 6001), at(PUBLIC, 6000)));
    assert_eq!(dropped(lab, "bad_remote"), before + 2);
    drop((service, second, inner, host));
    system.finish().unwrap();
}

#[test]
fn a_whole_address_obeys_the_remote_policy() {
    let system = system(&format!("FLOW_POLICY = \"macro/macro\"\nRSA_POOL = [\"{WHOLE}\"]"));
    let lab = &system.lab;
    let inside = lab.host(Host::A);
    let at = |address, port| SocketAddrV4::new(address, port);
    let mut host = registered(lab, Host::A);
    let lease = host.assign_address(Remote::Address(INTERNET), None).unwrap();
    assert_eq!(lease.address, WHOLE);
    host.attach(WHOLE).unwrap();
    let inner = probe::serve(lab, inside, &["--udp", "198.51.100.3:53"]).unwrap();
    assert!(is_answered(&lab.internet, at(INTERNET, 6001), at(WHOLE, 53)));
    assert!(!is_answered(&lab.internet, at(OTHER, 6001), at(WHOLE, 53)));
    assert!(pings(&lab.internet, INTERNET, WHOLE));
    assert!(!pings(&lab.internet, OTHER, WHOLE));
    assert!(pings(inside, WHOLE, INTERNET));
    assert_eq!((dropped(lab, "bad_remote"), host.errors(HEARD).unwrap()), (2, vec![]));
    assert!(!pings(inside, WHOLE, OTHER));
    assert_eq!(host.errors(HEARD).unwrap(), [ErrorCode::RemoteAddrUnallowed]);
    drop((inner, host));
    system.finish().unwrap();
}

#[test]
fn a_host_hears_what_is_wrong_with_its_source() {
    let system = system("");
    let lab = &system.lab;
    let mut a = registered(lab, Host::A);
    let mut b = registered(lab, Host::B);
    let to = SocketAddrV4::new(INTERNET, SERVICE);
    let sink = lab.internet.enter(|| std::net::UdpSocket::bind((INTERNET, SERVICE)).unwrap()).unwrap();
    sink.set_read_timeout(Some(Duration::from_millis(300))).unwrap();

    // Registered, but nothing is leased yet (RFC 3103 section 6).
    let of_b = b.assign_ports(2, Remote::Any, None).unwrap();
    a.send(&datagram(&of_b, to)).unwrap();
    a.send(&Ip::new(PUBLIC, INTERNET, ICMP, echo(8, 1, 1))).unwrap();
    assert_eq!(a.errors(HEARD).unwrap(), [ErrorCode::LocalAddrUnallowed]);
    wait_for_drops(lab, "bad_source", 2);

    // Once it holds something of the address, only the port is wrong.
    let of_a = a.assign_ports(2, Remote::Any, None).unwrap();
    a.send(&datagram(&of_b, to)).unwrap();
    assert_eq!(a.errors(HEARD).unwrap(), [ErrorCode::LocalAddrportUnallowed]);
    // Its private address, and one of somebody out there, are not leased to anybody.
    std::thread::sleep(Duration::from_millis(600));
    for source in [Host::A.address(), OTHER] {
        a.send(&Ip { source, ..datagram(&of_a, to) }).unwrap();
    }
    assert_eq!(a.errors(HEARD).unwrap(), [ErrorCode::LocalAddrUnallowed]);
    // The other host has done nothing.
    assert_eq!(b.errors(Duration::from_millis(100)).unwrap(), []);
    assert!(sink.recv(&mut [0; 64]).is_err(), "nothing of it left the gateway");
    a.send(&datagram(&of_a, to)).unwrap();
    b.send(&datagram(&of_b, to)).unwrap();
    for _ in 0..2 {
        assert_eq!(sink.recv(&mut [0; 64]).unwrap(), 5, "what is right leaves");
    }
    a.free(&of_a).unwrap();
    a.send(&datagram(&of_a, to)).unwrap();
    assert!(sink.recv(&mut [0; 64]).is_err(), "given back");
    drop((a, b));
    system.finish().unwrap();
}

#[test]
fn a_host_hears_that_its_tunnel_is_of_the_wrong_type() {
    let system = system("");
    let lab = &system.lab;
    let mut host = registered(lab, Host::A);
    let lease = host.assign_ports(1, Remote::Any, None).unwrap();
    let inner = datagram(&lease, SocketAddrV4::new(INTERNET, SERVICE));
    host.send_to_gateway(GRE, &gre(0, &inner.bytes())).unwrap();
    assert_eq!(host.errors(HEARD).unwrap(), [ErrorCode::BadTunnelType]);
    wait_for_drops(lab, "bad_tunnel", 1);
    // The right one works on.
    let sink = lab.internet.enter(|| std::net::UdpSocket::bind((INTERNET, SERVICE)).unwrap()).unwrap();
    sink.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    host.send(&inner).unwrap();
    assert_eq!(sink.recv(&mut [0; 64]).unwrap(), 5);
    drop(host);
    system.finish().unwrap();
}

#[test]
fn a_flood_of_misuse_brings_one_error_a_second() {
    let system = system("");
    let lab = &system.lab;
    let mut host = registered(lab, Host::A);
    let lease = host.assign_ports(1, Remote::Any, None).unwrap();
    let to = SocketAddrV4::new(INTERNET, SERVICE);
    let wrong = Ip::new(lease.address, INTERNET, UDP, udp(lease.ports[0] ^ 1, SERVICE, b""));
    let start = std::time::Instant::now();
    let mut sent = 0;
    while start.elapsed() < Duration::from_millis(2500) {
        host.send(&wrong).unwrap();
        sent += 1;
    }
    let told = host.errors(HEARD).unwrap();
    assert!(told.iter().all(|error| *error == ErrorCode::LocalAddrportUnallowed), "{told:?}");
    assert!((2..=4).contains(&told.len()), "{} errors for {sent} packets", told.len());
    assert!(sent > 20, "{sent}");
    wait_for_drops(lab, "bad_source", sent);
    // Who floods is served as before.
    let request = host.assign_ports(1, Remote::Any, None).unwrap();
    assert_eq!(request.ports.len(), 1);
    host.send(&datagram(&lease, to)).unwrap();
    drop(host);
    system.finish().unwrap();
}

#[test]
fn who_is_not_registered_is_dropped_and_not_answered() {
    let system = system("");
    let lab = &system.lab;
    let stranger = ManualHost::new(lab, Host::B).unwrap();
    let mut host = registered(lab, Host::A);
    let lease = host.assign_ports(1, Remote::Any, None).unwrap();
    stranger.send(&datagram(&lease, SocketAddrV4::new(INTERNET, SERVICE))).unwrap();
    stranger
        .send_to_gateway(GRE, &gre(0, &datagram(&lease, SocketAddrV4::new(INTERNET, 1)).bytes()))
        .unwrap();
    wait_for_drops(lab, "bad_source", 1);
    wait_for_drops(lab, "bad_tunnel", 1);
    assert_eq!(host.errors(HEARD).unwrap(), [], "the holder has nothing to do with it");
    // It registers now, and hears nothing of what was before.
    let mut stranger = stranger;
    stranger.register().unwrap();
    assert_eq!(stranger.errors(HEARD).unwrap(), []);
    drop((stranger, host));
    system.finish().unwrap();
}

#[test]
fn a_lease_that_ran_out_is_forwarded_no_more() {
    let system = system("");
    let lab = &system.lab;
    let mut host = registered(lab, Host::A);
    let lease = host.assign_ports(1, Remote::Any, Some(2)).unwrap();
    let longer = host.assign_ports(1, Remote::Any, None).unwrap();
    let sink = lab.internet.enter(|| std::net::UdpSocket::bind((INTERNET, SERVICE)).unwrap()).unwrap();
    sink.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let to = SocketAddrV4::new(INTERNET, SERVICE);
    host.send(&datagram(&lease, to)).unwrap();
    assert_eq!(sink.recv(&mut [0; 64]).unwrap(), 5);
    wait::until("the lease to run out", Duration::from_secs(10), || {
        let state = gateway::state(lab)?;
        Ok(match state.holder(lease.ports[0]) {
            None => Look::Ready(()),
            Some(host) => Look::NotYet(format!("{host} holds it")),
        })
    })
    .unwrap();
    host.send(&datagram(&lease, to)).unwrap();
    assert!(sink.recv(&mut [0; 64]).is_err());
    wait_for_drops(lab, "bad_source", 1);
    host.send(&datagram(&longer, to)).unwrap();
    assert_eq!(sink.recv(&mut [0; 64]).unwrap(), 5, "the other lease holds");
    drop(host);
    system.finish().unwrap();
}

#[test]
fn counters_of_misuse_are_shown_to_the_administrator() {
    let system = system("FLOW_POLICY = \"macro/macro\"");
    let lab = &system.lab;
    let mut host = registered(lab, Host::A);
    let lease = host.assign_ports(1, Remote::Address(INTERNET), None).unwrap();
    host.send(&datagram(&lease, SocketAddrV4::new(OTHER, SERVICE))).unwrap();
    assert_eq!(host.errors(HEARD).unwrap(), [ErrorCode::RemoteAddrUnallowed]);
    let status = gateway::ctl(lab, &["status"]).unwrap().success().unwrap();
    let line = status.lines().find(|line| line.starts_with("dropped")).unwrap();
    assert!(line.contains("1 bad remote") && line.contains("0 bad tunnel"), "{line}");
    // It still answers the host: an error that nobody asked for does not disturb the numbering.
    assert!(matches!(host.request(Body::RegisterRequest).unwrap(), Body::ErrorResponse { .. }));
    drop(host);
    system.finish().unwrap();
}
