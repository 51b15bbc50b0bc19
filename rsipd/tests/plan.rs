//! What a configuration means on a system: defaults, problems, warnings with their cures.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say so")]

use std::net::Ipv4Addr;
use std::path::Path;

use rsip_proto::wire::RemotePolicy;
use rsip_sys::netlink::{InterfaceAddress, Link};
use rsipd::config::Config;
use rsipd::plan::{Plan, System};

fn link(index: u32, name: &str) -> Link {
    let mac = Some([2, 0, 0, 0, 0, u8::try_from(index).unwrap()]);
    Link { index, name: name.into(), mtu: 1500, mac, up: true, carrier: true, loopback: name == "lo" }
}

fn address(index: u32, address: [u8; 4], prefix_length: u8) -> InterfaceAddress {
    InterfaceAddress { index, address: address.into(), prefix_length }
}

fn system() -> System {
    System {
        links: vec![link(1, "lo"), link(2, "int0"), link(3, "ext0")],
        addresses: vec![
            address(1, [127, 0, 0, 1], 8),
            address(2, [10, 9, 3, 1], 22),
            address(2, [172, 16, 0, 1], 16),
            address(3, [192, 0, 2, 1], 24),
            address(3, [192, 0, 2, 2], 24),
        ],
        local_ports: Some(32768..=60999),
        local_reserved: Vec::new(),
    }
}

fn plan(extra: &str, system: &System) -> Result<Plan, Vec<String>> {
    let text = format!("INT_IF = \"int0\"\nEXT_IF = \"ext0\"\n{extra}\n");
    let config = Config::parse(&text, Path::new("gw.conf")).unwrap();
    Plan::new(&config, system).map_err(|error| error.lines().collect())
}

fn warnings(extra: &str, system: &System) -> Vec<String> {
    plan(extra, system).unwrap().warnings
}

#[test]
fn defaults_come_from_the_interfaces() {
    let plan = plan("", &system()).unwrap();
    assert_eq!(plan.listen, "10.9.3.1:4555".parse().unwrap());
    assert_eq!(plan.site.pool, [Ipv4Addr::new(192, 0, 2, 1)]);
    assert_eq!(plan.gateway.pool.addresses, plan.site.pool);
    assert_eq!((plan.site.internal.index, plan.site.external.index), (2, 3));
    assert_eq!((plan.site.internal_address, plan.site.internal_mtu), (Ipv4Addr::new(10, 9, 3, 1), 1500));
    assert_eq!(plan.gateway.private_nets, [([10, 9, 0, 0].into(), 22), ([172, 16, 0, 0].into(), 16)]);
    assert_eq!(plan.warnings, [""; 0]);
}

#[test]
fn what_is_set_wins() {
    let extra =
        "POOL = [\"192.0.2.2\"]\nMTU = 1400\nPRIVATE_NETS = []\nPORT = 5555\nLEASE_TIME = 7\nLISTEN = false";
    let plan = plan(extra, &system()).unwrap();
    assert_eq!(plan.gateway.pool.addresses, [Ipv4Addr::new(192, 0, 2, 2)]);
    assert_eq!((plan.site.internal_mtu, plan.listen.port()), (1400, 5555));
    assert!(plan.gateway.private_nets.is_empty() && !plan.gateway.listen);
    assert_eq!(plan.gateway.lease_time.as_secs(), 7);
}

#[test]
fn both_pools_reach_the_data_path_and_each_its_own_place_in_the_machine() {
    let extra = "POOL = [\"192.0.2.2\", \"192.0.2.1\"]\nRSA_POOL = [\"198.51.100.9\", \"192.0.2.2\"]\n\
                 MAX_ADDRESSES_PER_CLIENT = 3\nFLOW_POLICY = \"macro/micro\"\nREMOTE_DENY = [\"192.0.2.0/24:25\"]";
    let plan = plan(extra, &system()).unwrap();
    let [first, second, third] = [[192, 0, 2, 2], [192, 0, 2, 1], [198, 51, 100, 9]].map(Ipv4Addr::from);
    assert_eq!(plan.site.pool, [first, second, third]);
    assert_eq!(
        (plan.gateway.pool.addresses, plan.gateway.pool.whole),
        (vec![first, second], vec![third, first])
    );
    assert_eq!(plan.gateway.max_addresses_per_client, 3);
    assert_eq!(plan.gateway.flow_policy.remote, RemotePolicy::Micro);
    assert_eq!(plan.gateway.remote_deny[0].ports, 25..=25);
}

#[test]
fn a_pool_by_default_counts_among_the_256() {
    let whole = (1..=256_u32).map(|i| format!("\"{}\"", Ipv4Addr::from_bits(0xc633_6400 + i)));
    let extra = format!("RSA_POOL = [{}]", whole.collect::<Vec<_>>().join(", "));
    let told = plan(&extra, &system()).unwrap_err();
    assert_eq!(
        told,
        [
            "gw.conf:3:12: RSA_POOL: with POOL these are 257 addresses; 256 can be served: lease fewer addresses"
        ]
    );
}

#[test]
fn leasing_an_address_of_the_gateway_whole_is_warned_about() {
    let own = warnings("RSA_POOL = [\"192.0.2.1\"]", &system());
    assert_eq!(
        own,
        [
            "RSA_POOL address 192.0.2.1 is the gateway's own, on ext0: while a host leases it whole, nobody outside reaches \
          the gateway's services there, and the gateway reaches nobody from it; lease an address that is only for \
          that: `ip addr add ADDRESS/32 dev ext0`"
        ]
    );
    // Added beside the first one: that is what it is for.
    assert_eq!(warnings("RSA_POOL = [\"192.0.2.2\"]", &system()), [""; 0]);
    let other = warnings("RSA_POOL = [\"172.16.0.1\"]", &system());
    assert!(other[0].contains("is the gateway's own, on int0"), "{other:?}");
    let foreign = warnings("RSA_POOL = [\"203.0.113.9\"]", &system());
    assert!(foreign[0].starts_with("RSA_POOL address 203.0.113.9 is on no interface"), "{foreign:?}");
}

#[test]
fn settings_without_effect_are_warned_about() {
    let cases = [
        (
            "FLOW_POLICY = \"micro/none\"\nRSA_POOL = [\"192.0.2.2\"]",
            "RSA_POOL: nobody gets a whole address while the local FLOW_POLICY is micro",
        ),
        (
            "FLOW_POLICY = \"macro/macro\"\nREMOTE_DENY = [\"192.0.2.0/24\", \"0.0.0.0/0:25\"]",
            "REMOTE_DENY \"0.0.0.0/0:25\": no effect while the remote FLOW_POLICY is macro",
        ),
        ("FLOW_POLICY = \"macro/micro\"", "LISTEN: under a remote FLOW_POLICY of micro"),
        ("MAX_CONNECTIONS = 255", "MAX_CONNECTIONS 255 is less than MAX_CLIENTS 256"),
    ];
    for (extra, expected) in cases {
        let told = warnings(extra, &system());
        assert!(told.len() == 1 && told[0].starts_with(expected), "{extra}: {told:?}");
    }
    for good in ["FLOW_POLICY = \"macro/micro\"\nLISTEN = true", "MAX_CONNECTIONS = 256"] {
        assert_eq!(warnings(good, &system()), [""; 0], "{good}");
    }
}

#[test]
fn problems_name_the_key_and_the_cure() {
    let without = |names: &[&str], indexes: &[u32]| {
        let mut system = system();
        system.links.retain(|link| !names.contains(&link.name.as_str()));
        system.addresses.retain(|address| !indexes.contains(&address.index));
        system
    };
    let cases = [
        (
            without(&["int0"], &[2]),
            "",
            vec![
                "gw.conf:1:10: INT_IF: there is no interface \"int0\" in this network namespace: there are lo, ext0",
            ],
        ),
        (
            without(&["int0", "ext0"], &[2, 3]),
            "",
            vec![
                "gw.conf:1:10: INT_IF: there is no interface \"int0\" in this network namespace: there are lo",
                "gw.conf:2:10: EXT_IF: there is no interface \"ext0\" in this network namespace: there are lo",
            ],
        ),
        (
            without(&[], &[2]),
            "",
            vec![
                "gw.conf:1:10: INT_IF: int0 has no IPv4 address: give it the one that hosts know as their gateway: \
                 `ip addr add ADDRESS/24 dev int0`",
            ],
        ),
        (
            without(&[], &[3]),
            "",
            vec![
                "gw.conf:2:10: EXT_IF: ext0 has no IPv4 address, and POOL is not set: give it a public address \
                 (`ip addr add ADDRESS/24 dev ext0`), or set POOL",
            ],
        ),
        (
            system(),
            "POOL = [\"192.0.2.1\", \"10.9.3.1\"]",
            vec![
                "gw.conf:3:8: POOL: 10.9.3.1 is the gateway's own address on the internal network: lease public addresses only",
            ],
        ),
        (
            system(),
            "RSA_POOL = [\"192.0.2.9\", \"10.9.3.1\"]",
            vec![
                "gw.conf:3:12: RSA_POOL: 10.9.3.1 is the gateway's own address on the internal network: lease public addresses \
                 only",
            ],
        ),
    ];
    for (system, extra, expected) in cases {
        assert_eq!(plan(extra, &system).unwrap_err(), expected);
    }
}

#[test]
fn loopback_is_no_side_of_a_gateway() {
    let config = Config::parse("INT_IF = \"lo\"\nEXT_IF = \"ext0\"", Path::new("gw.conf")).unwrap();
    let error = Plan::new(&config, &system()).unwrap_err();
    assert!(error.lines().next().unwrap().starts_with("gw.conf:1:10: INT_IF: lo is the loopback interface"));
}

#[test]
fn local_ports_that_overlap_are_a_conflict() {
    let conflict = warnings("PORT_RANGE = \"30000-40000\"", &system());
    assert_eq!(
        conflict,
        [
            "Conflict with the local ports: net.ipv4.ip_local_port_range 32768-60999 overlaps PORT_RANGE 30000-40000: the \
          gateway's own connections may lose to leases; `sysctl -w net.ipv4.ip_local_port_range=\"40001 65535\"`"
        ]
    );
    let both = warnings("PORT_RANGE = \"1024-65535\"\nLISTEN_RANGE = \"1-40000\"", &system());
    assert!(both[0].contains("overlaps PORT_RANGE 1024-65535 and LISTEN_RANGE 1-40000"), "{both:?}");
    assert!(both[0].contains("net.ipv4.ip_local_reserved_ports=1-65535`"), "{both:?}");

    // Not when the kernel is kept from these ports, nor when no leased address is the gateway's own.
    let reserved = System { local_reserved: vec![32768..=40000], ..system() };
    assert_eq!(warnings("PORT_RANGE = \"30000-40000\"", &reserved), [""; 0]);
    assert_eq!(
        warnings("PORT_RANGE = \"30000-40000\"\nRESERVED_PORTS = [\"32768-60999\"]", &system()),
        [""; 0]
    );
    let routed = warnings("PORT_RANGE = \"30000-40000\"\nPOOL = [\"198.51.100.1\"]", &system());
    assert!(!routed.iter().any(|warning| warning.contains("Conflict")), "{routed:?}");
}

#[test]
fn odd_systems_are_warned_about() {
    let routed = warnings("POOL = [\"192.0.2.1\", \"198.51.100.1\"]", &system());
    assert_eq!(
        routed,
        [
            "POOL address 198.51.100.1 is on no interface of this gateway: unless it is routed here nobody outside will find \
          it; `ip addr add 198.51.100.1/32 dev ext0`"
        ]
    );
    assert!(warnings("MTU = 9000", &system())[0].contains("larger than that of int0, 1500"));
    assert!(warnings("MTU = 1000", &system())[0].contains("leaves 980 bytes in the tunnel"));
    let mut down = system();
    down.links[2].up = false;
    assert_eq!(warnings("", &down), ["interface ext0 is down: `ip link set ext0 up`"]);
}

#[test]
fn hosts_find_the_gateway_at_its_internal_address_only() {
    let setup = plan("PORT = 4600", &system()).unwrap().discovery.unwrap();
    assert_eq!(setup.device.as_deref(), Some("int0"));
    assert_eq!((setup.address, setup.port), (Ipv4Addr::new(10, 9, 3, 1), 427));
    assert_eq!(setup.broadcast, Some(Ipv4Addr::new(10, 9, 3, 255)));
    assert_eq!(setup.daemon, "127.0.0.1:427".parse().unwrap());
    assert_eq!(setup.service_port, 4600);
    assert_eq!(setup.tunnel_types, ["IP-IP"]);
    assert!(setup.own.contains(&Ipv4Addr::new(192, 0, 2, 2)), "previous responders are looked for among all");
    assert_eq!(plan("SLP = false", &system()).unwrap().discovery, None);
    let extra = "SLP_SCOPES = [\"A\"]\nSLP_DA = [\"10.9.0.9\"]\nSLP_LIFETIME = 99";
    let setup = plan(extra, &system()).unwrap().discovery.unwrap();
    assert_eq!((setup.scopes.to_string().as_str(), setup.lifetime), ("A", 99));
    assert_eq!(setup.directories, [Ipv4Addr::new(10, 9, 0, 9)]);
}

#[test]
fn networks_of_two_addresses_have_no_broadcast() {
    for (length, expected) in [(30, Some([10, 9, 3, 3])), (31, None), (32, None)] {
        let mut system = system();
        system.addresses[1].prefix_length = length;
        let setup = plan("", &system).unwrap().discovery.unwrap();
        assert_eq!(setup.broadcast, expected.map(Ipv4Addr::from), "/{length}");
    }
}
