//! The tables as people and their scripts see them.

use std::net::{Ipv4Addr, SocketAddrV4};

use rsipd::control::table;
use rsipd::control::view::{Binding, Client, Counters, Daemon, Events, Pool, State, Whole};
use rsipd::datapath::Stats;
use rsipd::discovery::status::{Mode, Registration, Status};

fn binding(bind_id: u32, ports: Vec<u16>, listen: bool) -> Binding {
    Binding {
        bind_id,
        address: Ipv4Addr::new(192, 0, 2, 1),
        whole: false,
        ports,
        remote: "any".into(),
        tunnel: "IP-IP".into(),
        listen,
        state: "active".into(),
        lease_time: 600,
        lease_left: 431,
        installed: Some(true),
    }
}

fn state() -> State {
    let client = |client_id, last, bindings: Vec<Binding>| Client {
        client_id,
        host: Ipv4Addr::new(10, 0, 0, last),
        transport: "udp".into(),
        state: if bindings.is_empty() { "registered" } else { "assigned" }.into(),
        lease_left: 431,
        registered_for: 169,
        bindings,
    };
    let lost = Binding {
        installed: Some(false),
        state: "removing".into(),
        lease_left: 0,
        ..binding(3, vec![8080], true)
    };
    let whole = Binding {
        address: Ipv4Addr::new(198, 51, 100, 200),
        whole: true,
        remote: "203.0.113.9:443".into(),
        ..binding(3, Vec::new(), false)
    };
    State {
        daemon: Daemon {
            version: "0.1.0".into(),
            pid: 77,
            uptime: 169,
            internal_interface: "eth1".into(),
            external_interface: "eth0".into(),
            listening: "10.0.0.1:4555".into(),
            datapath: "ebpf".into(),
            methods: vec!["RSAP-IP".into(), "RSA-IP".into()],
            flow_policy: "macro/micro".into(),
            connections: 2,
        },
        discovery: Status {
            mode: Mode::Alone,
            url: Some("service:rsip://10.0.0.1:4555".into()),
            load: Some(2),
            registrations: vec![
                Registration {
                    at: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 9), 427),
                    kind: "found".into(),
                    state: "registered".into(),
                    scopes: vec!["DEFAULT".into(), "Building 32".into()],
                    renewed_in: Some(1700),
                },
                Registration {
                    at: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 8), 427),
                    kind: "configured".into(),
                    state: "asking".into(),
                    scopes: vec![],
                    renewed_in: None,
                },
            ],
            problem: None,
        },
        clients: vec![
            client(
                17,
                2,
                vec![binding(1, (10000..10255).collect(), false), binding(2, vec![80], true), whole],
            ),
            client(2_817_000_001, 199, Vec::new()),
            client(
                4_294_967_295,
                254,
                vec![binding(1, vec![5000, 5001, 5003, 5005, 5006, 5007, 65535], false), lost],
            ),
        ],
        pool: vec![
            Pool {
                address: Ipv4Addr::new(192, 0, 2, 1),
                leasable: 32766,
                leased: 264,
                resting: 3,
                free: 32499,
                whole: Whole::Never,
            },
            Pool {
                address: Ipv4Addr::new(198, 51, 100, 200),
                leasable: 32766,
                leased: 32766,
                resting: 0,
                free: 0,
                whole: Whole::Leased,
            },
        ],
        counters: Counters {
            events: Events {
                received: 30,
                sent: 29,
                registered: 3,
                bound: 5,
                unbound: 1,
                misused: [("LOCAL_ADDR_UNALLOWED".to_owned(), 7)].into(),
                refused: [("BAD_MESSAGE".to_owned(), 2), ("LOCAL_ADDRPORT_INUSE".to_owned(), 1)].into(),
                ..Events::default()
            },
            datapath: Some(Stats {
                inward_packets: 10,
                inward_bytes: 1400,
                bad_source: 4,
                ..Stats::default()
            }),
        },
    }
}

#[test]
fn dump_is_the_historical_table() {
    assert_eq!(
        table::dump(&state()),
        "\
Client      Leased Address  STATE       ID          BID  LT   RLT  TUNNEL  PROTO    PORTS                           REMOTE
10.0.0.2    192.0.2.1       ASSIGNED    17          1    600  431  IP-IP   tcp,udp  10000-10254                     any
10.0.0.2    192.0.2.1       ASSIGNED    17          2    600  431  IP-IP   tcp,udp  80                              any
10.0.0.2    198.51.100.200  ASSIGNED    17          3    600  431  IP-IP   all      all                             203.0.113.9:443
10.0.0.199  -               REGISTERED  2817000001  -    -    -    -       -        -                               -
10.0.0.254  192.0.2.1       ASSIGNED    4294967295  1    600  431  IP-IP   tcp,udp  5000-5001,5003,5005-5007,65535  any
10.0.0.254  192.0.2.1       ASSIGNED    4294967295  3    600  0    IP-IP   tcp,udp  8080                            any
"
    );
}

#[test]
fn dump_of_nothing_is_the_header() {
    let empty = State { clients: Vec::new(), ..state() };
    assert_eq!(
        table::dump(&empty),
        "Client  Leased Address  STATE  ID  BID  LT  RLT  TUNNEL  PROTO  PORTS  REMOTE\n"
    );
}

#[test]
fn binds_say_what_the_data_path_does_not_hold() {
    assert_eq!(
        table::binds(&state()),
        "\
ID          BID  Client      Leased Address  KIND    STATE     DATAPATH  LT   RLT  TUNNEL  PORTS                           REMOTE
17          1    10.0.0.2    192.0.2.1       ASSIGN  ACTIVE    holds     600  431  IP-IP   10000-10254                     any
17          2    10.0.0.2    192.0.2.1       LISTEN  ACTIVE    holds     600  431  IP-IP   80                              any
17          3    10.0.0.2    198.51.100.200  ASSIGN  ACTIVE    holds     600  431  IP-IP   all                             203.0.113.9:443
4294967295  1    10.0.0.254  192.0.2.1       ASSIGN  ACTIVE    holds     600  431  IP-IP   5000-5001,5003,5005-5007,65535  any
4294967295  3    10.0.0.254  192.0.2.1       LISTEN  REMOVING  MISSING   600  0    IP-IP   8080                            any
"
    );
}

#[test]
fn clients_and_pool() {
    assert_eq!(
        table::clients(&state()),
        "\
ID          Client      STATE       TRANSPORT  REGISTERED  RLT  BINDS  PORTS  ADDRESSES
17          10.0.0.2    ASSIGNED    udp        169         431  3      256    1
2817000001  10.0.0.199  REGISTERED  udp        169         431  0      0      0
4294967295  10.0.0.254  ASSIGNED    udp        169         431  2      8      0
"
    );
    assert_eq!(
        table::pool(&state()),
        "\
Address         LEASED  RESTING  FREE   WHOLE
192.0.2.1       264     3        32499  -
198.51.100.200  32766   0        0      leased
"
    );
}

#[test]
fn status_counts() {
    assert_eq!(
        table::status(&state()),
        "\
rsipd             version 0.1.0, process 77, up 169 s
interfaces        eth1 (internal), eth0 (external)
listening         10.0.0.1:4555 (udp, tcp), 2 connections
discovery         answers itself, load 2; 10.0.0.9:427 registered in DEFAULT,Building 32; 10.0.0.8:427 asking
datapath          ebpf
methods           RSAP-IP, RSA-IP
flow policy       macro/micro
clients           3
bindings          5
ports leased      264
addresses leased  1
messages          30 received, 29 sent
registrations     3 begun, 0 ended
leases            5 given, 0 extended, 1 ended
refused           BAD_MESSAGE 2, LOCAL_ADDRPORT_INUSE 1
misused           LOCAL_ADDR_UNALLOWED 7
to hosts          10 packets, 1400 bytes
from hosts        0 packets, 0 bytes
dropped           4 not leased, 0 malformed, 0 ttl, 0 unsupported, 0 too big, 0 martian, 0 bad remote, 0 bad tunnel, 0 bad gre, 0 failed
"
    );
}

#[test]
fn json_names_stay() {
    let json = serde_json::to_value(state()).unwrap();
    assert_eq!(json["clients"][0]["bindings"][1]["ports"], serde_json::json!([80]));
    assert_eq!(json["clients"][0]["bindings"][1]["listen"], true);
    let whole = &json["clients"][0]["bindings"][2];
    assert_eq!(whole["whole"], true);
    assert_eq!(whole["ports"], serde_json::json!([]));
    assert_eq!(whole["remote"], "203.0.113.9:443");
    assert_eq!(json["clients"][0]["bindings"][0]["remote"], "any");
    assert_eq!(json["pool"][1]["whole"], "leased");
    assert_eq!(json["daemon"]["methods"], serde_json::json!(["RSAP-IP", "RSA-IP"]));
    assert_eq!(json["daemon"]["flow_policy"], "macro/micro");
    assert_eq!(json["counters"]["datapath"]["bad_source"], 4);
    assert_eq!(json["counters"]["events"]["refused"]["BAD_MESSAGE"], 2);
    assert_eq!(json["discovery"]["mode"], "alone");
    assert_eq!(json["discovery"]["url"], "service:rsip://10.0.0.1:4555");
    assert_eq!(json["discovery"]["registrations"][0]["at"], "10.0.0.9:427");
    assert_eq!(
        json["discovery"]["registrations"][0]["scopes"],
        serde_json::json!(["DEFAULT", "Building 32"])
    );
    let back: State = serde_json::from_value(json).unwrap();
    assert_eq!(back, state());
}

#[test]
fn one_line_tells_how_hosts_find_the_gateway() {
    let line = |status: Status| status.to_string();
    assert_eq!(line(Status::new(Mode::Off)), "off");
    assert_eq!(line(Status::new(Mode::Starting)), "starting");
    assert_eq!(line(Status::new(Mode::Daemon)), "by this host's SLP daemon");
    let problem = Some("cannot listen on UDP 10.0.0.1:427".to_owned());
    let failed = Status { problem, ..Status::new(Mode::Failed) };
    assert_eq!(line(failed), "FAILED: cannot listen on UDP 10.0.0.1:427");
}
