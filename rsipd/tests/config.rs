//! What `rsipd.conf` may say, and how each mistake is told.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say so")]

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use rsip_proto::gateway::RemoteDeny;
use rsip_proto::wire::{FlowPolicy, LocalPolicy, RemotePolicy, TunnelType};
use rsipd::config::{Config, Settings};

const SAMPLE: &str = include_str!("../rsipd.conf");
const FILE: &str = "gw.conf";

fn parse(text: &str) -> Result<Settings, Vec<String>> {
    match Config::parse(text, Path::new(FILE)) {
        Ok(config) => Ok(config.settings),
        Err(error) => Err(error.lines().collect()),
    }
}

/// The only complaint about a file that is good but for this line, which is its third.
fn complaint(line: &str) -> String {
    let text = format!("INT_IF = \"in\"\nEXT_IF = \"out\"\n{line}\n");
    let mut lines = parse(&text).expect_err(line);
    assert_eq!(lines.len(), 1, "{line}: {lines:?}");
    lines.remove(0)
}

#[test]
fn sample_file_is_good_and_changes_no_default() {
    let settings = parse(SAMPLE).unwrap();
    let defaults = Settings { int_if: "eth1".into(), ext_if: "eth0".into(), ..Settings::default() };
    assert_eq!(settings, defaults);
}

#[test]
fn sample_file_shows_every_key_with_its_default() {
    // As an administrator would: take the comment sign away.
    let mut text = String::new();
    for line in SAMPLE.lines() {
        text.push_str(line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line));
        text.push('\n');
    }
    let settings = parse(&text).unwrap();
    let shown = settings.to_toml();
    for key in shown.lines().filter_map(|line| line.split([' ', ':']).find(|word| word.len() > 1)) {
        assert!(text.lines().any(|line| line.starts_with(&format!("{key} ="))), "{key} is not in the sample");
    }
    let system_dependent =
        ["POOL", "MAX_CONNECTIONS", "MTU", "PRIVATE_NETS", "STATUS_FILE", "INT_IF", "EXT_IF"];
    for key in settings.differences(&Settings::default()) {
        assert!(system_dependent.contains(&key), "the sample's {key} is not the default");
    }
}

#[test]
fn every_key_is_read() {
    let settings = parse(
        r#"
        INT_IF = ["lan0"]
        EXT_IF = "wan0"
        POOL = ["192.0.2.1", "198.51.100.7"]
        RSA_POOL = ["198.51.100.7", "198.51.100.8"]
        PORT_RANGE = "20000-29999"
        LISTEN_RANGE = "80"
        RESERVED_PORTS = [443, "6000-6002", 443]
        MAX_CLIENTS = 1_000
        MAX_PORTS_PER_CLIENT = 0x10
        MAX_ADDRESSES_PER_CLIENT = 2
        MAX_CONNECTIONS = 2000
        MAX_CONNECTIONS_PER_HOST = 3
        IDLE_TIMEOUT = 90
        MESSAGE_TIMEOUT = 5
        LEASE_TIME = 60
        MAX_LEASE_TIME = 61
        REST_TIME = 0
        PORT = 14555
        MTU = 1400
        TUNNEL = ["ipip"]
        FLOW_POLICY = "macro/micro"
        REMOTE_DENY = ["192.0.2.0/24", "0.0.0.0/0:25", "198.51.100.7:6000-6063", "198.51.100.0/24:1-65535"]
        PRIVATE_NETS = ["10.0.0.0/8", "0.0.0.0/0"]
        LISTEN = false
        DATAPATH = "ebpf"
        LOG_LEVEL = "debug"
        STATUS_FILE = "/tmp/x"
        "#,
    )
    .unwrap();
    assert_eq!(settings.int_if, "lan0");
    assert_eq!(settings.pool, Some(vec![Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 7)]));
    let whole = [Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(198, 51, 100, 8)];
    assert_eq!((settings.rsa_pool.as_slice(), settings.max_addresses_per_client), (&whole[..], 2));
    assert_eq!((settings.max_connections, settings.max_connections_per_host), (Some(2000), 3));
    assert_eq!(
        (settings.idle_timeout, settings.message_timeout),
        (Duration::from_secs(90), Duration::from_secs(5))
    );
    assert_eq!(settings.flow_policy, FlowPolicy { local: LocalPolicy::Macro, remote: RemotePolicy::Micro });
    let deny = |network: [u8; 4], length, ports| RemoteDeny { network: (network.into(), length), ports };
    assert_eq!(
        settings.remote_deny,
        [
            deny([192, 0, 2, 0], 24, 0..=65535),
            deny([0, 0, 0, 0], 0, 25..=25),
            deny([198, 51, 100, 7], 32, 6000..=6063),
            deny([198, 51, 100, 0], 24, 0..=65535),
        ]
    );
    assert_eq!((settings.port_range.clone(), settings.listen_range.clone()), (20000..=29999, 80..=80));
    assert_eq!(settings.reserved_ports, [443, 6000, 6001, 6002]);
    assert_eq!((settings.max_clients, settings.max_ports_per_client), (1000, 16));
    assert_eq!(
        (settings.lease_time, settings.max_lease_time),
        (Duration::from_secs(60), Duration::from_secs(61))
    );
    assert_eq!((settings.rest_time, settings.port, settings.mtu), (Duration::ZERO, 14555, Some(1400)));
    assert_eq!(
        settings.private_nets,
        Some(vec![(Ipv4Addr::new(10, 0, 0, 0), 8), (Ipv4Addr::UNSPECIFIED, 0)])
    );
    assert!(!settings.listen);
    // What is shown is a file that says the same.
    assert_eq!(parse(&settings.to_toml()).unwrap(), settings);
}

#[test]
fn each_mistake_is_told_with_place_key_and_cure() {
    let range = "write \"FIRST-LAST\" within 1 to 65535, for example \"10000-32767\"";
    let policy = "write LOCAL/REMOTE, LOCAL one of macro and micro, REMOTE one of none, macro and micro, for example \
                  \"macro/none\"";
    let deny = "write a list of NETWORK, NETWORK:PORT or NETWORK:FIRST-LAST, for example [\"192.0.2.0/24\", \"0.0.0.0/0:25\"]";
    let whole =
        "write a list of public IPv4 addresses, up to 256 together with POOL, for example [\"192.0.2.9\"]";
    let table = [
        ("PORT_RNGE = \"1-2\"", "gw.conf:3:1: PORT_RNGE: unknown key: did you mean PORT_RANGE?".to_owned()),
        ("port_range = \"1-2\"", "gw.conf:3:1: port_range: unknown key: did you mean PORT_RANGE?".to_owned()),
        ("PORT_RANGE = \"10-\"", format!("gw.conf:3:14: PORT_RANGE: \"10-\" is not a range of ports: {range}")),
        ("PORT_RANGE = \"0-9\"", format!("gw.conf:3:14: PORT_RANGE: \"0-9\" is not a range of ports: {range}")),
        ("PORT_RANGE = \"1-65536\"", format!("gw.conf:3:14: PORT_RANGE: \"1-65536\" is not a range of ports: {range}")),
        ("PORT_RANGE = \"9-8\"", format!("gw.conf:3:14: PORT_RANGE: \"9-8\" ends before it begins: {range}")),
        (
            "PORT_RANGE = 5000",
            format!("gw.conf:3:14: PORT_RANGE: a number stands where a string in quotes should be: {range}"),
        ),
        (
            "RESERVED_PORTS = [22, 70000]",
            "gw.conf:3:23: RESERVED_PORTS: 70000 is outside 1 to 65535: write a list of ports and of ranges in quotes, \
             for example [22, \"6000-6063\"]"
                .to_owned(),
        ),
        ("MAX_CLIENTS = 0", "gw.conf:3:15: MAX_CLIENTS: 0 is outside 1 to 1000000: write 1 to 1000000, for example 256".to_owned()),
        ("PORT = -1", "gw.conf:3:8: PORT: -1 is outside 1 to 65535: write 1 to 65535; RSIP's own is 4555".to_owned()),
        (
            "PORT = 99999999999999999999",
            "gw.conf:3:8: PORT: 99999999999999999999 is outside 1 to 65535: write 1 to 65535; RSIP's own is 4555".to_owned(),
        ),
        ("MTU = 100", "gw.conf:3:7: MTU: 100 is outside 576 to 65535: write bytes, 576 to 65535, for example 1500".to_owned()),
        (
            "POOL = [\"192.0.2.1\", \"192.0.2.256\"]",
            "gw.conf:3:22: POOL: \"192.0.2.256\" is not an IPv4 address: write a list of up to 256 public IPv4 addresses, for \
             example [\"192.0.2.1\"]"
                .to_owned(),
        ),
        (
            "POOL = []",
            "gw.conf:3:8: POOL: is empty: write a list of up to 256 public IPv4 addresses, for example [\"192.0.2.1\"]".to_owned(),
        ),
        (
            "TUNNEL = [\"GRE\", \"l2tp\"]",
            "gw.conf:3:18: TUNNEL: this version has no l2tp tunnels: write \"IP-IP\", \"GRE\" or a list of them, best \
             first, for example [\"IP-IP\", \"GRE\"]"
                .to_owned(),
        ),
        (
            "FLOW_POLICY = \"micro\"",
            format!("gw.conf:3:15: FLOW_POLICY: \"micro\" is not a flow policy: {policy}"),
        ),
        (
            "FLOW_POLICY = \"none/macro\"",
            format!("gw.conf:3:15: FLOW_POLICY: \"none/macro\" is not a flow policy: {policy}"),
        ),
        (
            "REMOTE_DENY = [\"192.0.2.1/24\"]",
            format!(
                "gw.conf:3:16: REMOTE_DENY: \"192.0.2.1/24\" has bits beyond its prefix: 192.0.2.0/24 is meant?: {deny}"
            ),
        ),
        (
            "REMOTE_DENY = [\"192.0.2.1\", \"192.0.2.0/24:0\"]",
            format!("gw.conf:3:29: REMOTE_DENY: \"0\" is neither a port nor a range of ports: {deny}"),
        ),
        (
            "REMOTE_DENY = [\"192.0.2.1:9-8\"]",
            format!("gw.conf:3:16: REMOTE_DENY: \"9-8\" is neither a port nor a range of ports: {deny}"),
        ),
        (
            "REMOTE_DENY = [\"mail.example\"]",
            format!("gw.conf:3:16: REMOTE_DENY: \"mail.example\" is not a network: {deny}"),
        ),
        (
            "REMOTE_DENY = [\"192.0.2.0/24:25\"]",
            "gw.conf:3:15: REMOTE_DENY: nothing keeps hosts from 192.0.2.0/24:25: FLOW_POLICY \"macro/none\" lets them talk \
             to everybody: set a remote policy, for example FLOW_POLICY = \"macro/macro\", or take REMOTE_DENY away"
                .to_owned(),
        ),
        (
            "RSA_POOL = [\"127.0.0.1\"]",
            format!("gw.conf:3:13: RSA_POOL: 127.0.0.1 cannot be the address of a host: {whole}"),
        ),
        (
            "RSA_POOL = [\"192.0.2.1\", \"192.0.2.1\"]",
            format!("gw.conf:3:26: RSA_POOL: 192.0.2.1 is listed twice: {whole}"),
        ),
        (
            "IDLE_TIMEOUT = 0",
            "gw.conf:3:16: IDLE_TIMEOUT: 0 is outside 1 to 31536000: write seconds, 1 to 31536000, for example 60".to_owned(),
        ),
        (
            "MAX_CONECTIONS = 1",
            "gw.conf:3:1: MAX_CONECTIONS: unknown key: did you mean MAX_CONNECTIONS?".to_owned(),
        ),
        (
            "DATAPATH = \"kernel\"",
            "gw.conf:3:12: DATAPATH: the kernel data path is not in this version: write \"auto\" or \"ebpf\"".to_owned(),
        ),
        (
            "PRIVATE_NETS = [\"10.0.0.1/8\"]",
            "gw.conf:3:17: PRIVATE_NETS: \"10.0.0.1/8\" has bits beyond its prefix: 10.0.0.0/8 is meant?: write a list of IPv4 \
             networks, for example [\"10.0.0.0/24\"]"
                .to_owned(),
        ),
        ("LISTEN = \"yes\"", "gw.conf:3:10: LISTEN: a string stands where true or false should be: write true or false".to_owned()),
        (
            "LEASE_TIME = 7200",
            "gw.conf:3:14: LEASE_TIME: LEASE_TIME 7200 is longer than MAX_LEASE_TIME 3600: lower the one or raise the other"
                .to_owned(),
        ),
        (
            "LOG_LEVEL = \"loud\"",
            "gw.conf:3:13: LOG_LEVEL: \"loud\" is not a level: write \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\""
                .to_owned(),
        ),
        (
            "STATUS_FILE = \"status\"",
            "gw.conf:3:15: STATUS_FILE: status is not an absolute path of a file: write an absolute path, for example \
             \"/run/rsipd/rsipd.status\""
                .to_owned(),
        ),
        (
            "RESERVED_PORTS = [\"1-65535\"]",
            "gw.conf: PORT_RANGE: every port of it is in RESERVED_PORTS: leave some to lease".to_owned(),
        ),
    ];
    for (line, expected) in table {
        assert_eq!(complaint(line), expected, "{line}");
    }
}

#[test]
fn all_six_flow_policies_are_read_and_shown() {
    for local in ["macro", "micro"] {
        for remote in ["none", "macro", "micro"] {
            let line = format!("FLOW_POLICY = \"{local}/{remote}\"");
            let settings = parse(&format!("INT_IF = \"in\"\nEXT_IF = \"out\"\n{line}\n")).unwrap();
            let policy = settings.flow_policy;
            assert_eq!(policy.local == LocalPolicy::Macro, local == "macro", "{line}");
            let expected = match remote {
                "none" => RemotePolicy::None,
                "macro" => RemotePolicy::Macro,
                _ => RemotePolicy::Micro,
            };
            assert_eq!(policy.remote, expected, "{line}");
            assert!(settings.to_toml().contains(&line), "{line}: {}", settings.to_toml());
        }
    }
}

#[test]
fn a_reload_can_name_every_key_that_waits_for_a_restart() {
    let before = Settings::default();
    let changed = r#"
        RSA_POOL = ["198.51.100.7"]
        MAX_ADDRESSES_PER_CLIENT = 2
        MAX_CONNECTIONS = 2000
        MAX_CONNECTIONS_PER_HOST = 3
        IDLE_TIMEOUT = 90
        MESSAGE_TIMEOUT = 5
        FLOW_POLICY = "micro/micro"
        REMOTE_DENY = ["192.0.2.0/24"]
    "#;
    let after = parse(&format!("INT_IF = \"in\"\nEXT_IF = \"out\"\n{changed}")).unwrap();
    let named = before.differences(&after);
    for key in changed.lines().filter_map(|line| Some(line.split_once('=')?.0.trim())) {
        assert!(named.contains(&key), "{key} is not among {named:?}");
    }
}

#[test]
fn both_pools_together_have_at_most_256_addresses() {
    let list = |first: u32, count: u32| {
        let address = |i| format!("\"{}\"", Ipv4Addr::from_bits(Ipv4Addr::new(192, 0, 2, 0).to_bits() + i));
        (first..first + count).map(address).collect::<Vec<_>>().join(", ")
    };
    let file = |shared, whole| {
        parse(&format!("INT_IF = \"in\"\nEXT_IF = \"out\"\nPOOL = [{shared}]\nRSA_POOL = [{whole}]\n"))
    };
    // Those in both lists count once.
    file(list(1, 200), list(101, 156)).unwrap();
    let told = file(list(1, 200), list(101, 157)).unwrap_err();
    assert_eq!(
        told,
        [
            "gw.conf:4:12: RSA_POOL: with POOL these are 257 addresses; 256 can be served: lease fewer addresses"
        ]
    );
    assert!(
        file(list(1, 1), list(1, 257)).unwrap_err()[0].contains("lists 257 addresses; 256 can be served")
    );
}

#[test]
fn a_key_twice_a_missing_quote_and_other_languages_are_mistakes() {
    for (line, place) in [
        ("INT_IF = \"x\"", "gw.conf:3:"),
        ("POOL = [\"192.0.2.1\"", "gw.conf:3:"),
        ("PORT 4555", "gw.conf:3:"),
    ] {
        let told = complaint(line);
        assert!(told.starts_with(place), "{line}: {told}");
        assert_eq!(told.lines().count(), 1, "{told:?}");
    }
    assert!(parse("{\"INT_IF\": \"x\"}").is_err());
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let lines = parse("PORT = 0\nMTU = 1\nBOGUS = 1\n[TABLE]\nx = 1\n").unwrap_err();
    let places: Vec<_> =
        lines.iter().map(|line| line.split(": ").take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        places,
        [
            "gw.conf:1:8 PORT",
            "gw.conf:2:7 MTU",
            "gw.conf:3:1 BOGUS",
            "gw.conf:4:2 TABLE",
            "gw.conf INT_IF",
            "gw.conf EXT_IF"
        ]
    );
}

#[test]
fn internal_and_external_must_differ_and_must_be_names() {
    assert!(
        parse("INT_IF = \"a\"\nEXT_IF = \"a\"").unwrap_err()[0]
            .starts_with("gw.conf:2:10: EXT_IF: \"a\" is INT_IF too")
    );
    for name in ["", "a b", "a/b", "..", "sixteen-characte"] {
        let told = parse(&format!("INT_IF = \"{name}\"\nEXT_IF = \"x\"")).unwrap_err();
        assert!(told[0].contains("cannot be the name of an interface"), "{told:?}");
    }
    assert!(parse("INT_IF = [\"a\", \"b\"]\nEXT_IF = \"x\"").unwrap_err()[0].contains("names 2 interfaces"));
}

#[test]
fn discovery_is_on_and_can_be_told_scopes_directory_agents_and_a_lifetime() {
    let settings = parse("INT_IF = \"in\"\nEXT_IF = \"out\"").unwrap();
    assert!(settings.slp);
    assert_eq!((settings.slp_scopes.to_string().as_str(), settings.slp_lifetime), ("DEFAULT", 3600));
    assert!(settings.slp_da.is_empty());
    let text = "INT_IF = \"in\"\nEXT_IF = \"out\"\nSLP = false\nSLP_SCOPES = [\"A\", \"Building (32)\", \"a\"]\n\
                SLP_DA = [\"10.0.0.9\", \"10.0.0.8\"]\nSLP_LIFETIME = 60";
    let settings = parse(text).unwrap();
    assert!(!settings.slp);
    assert_eq!(settings.slp_scopes.to_string(), "A,Building \\2832\\29");
    assert_eq!(settings.slp_da, [[10, 0, 0, 9], [10, 0, 0, 8]].map(std::net::Ipv4Addr::from));
    assert_eq!(settings.slp_lifetime, 60);
    let again = parse(&settings.to_toml()).unwrap();
    assert_eq!(again, settings);
    assert_eq!(
        parse("INT_IF = \"in\"\nEXT_IF = \"out\"\nSLP_SCOPES = \"A\"").unwrap().slp_scopes.to_string(),
        "A"
    );
}

#[test]
fn mistakes_about_discovery_are_told() {
    for (line, what) in [
        ("SLP = \"yes\"", "a string stands where true or false should be"),
        ("SLP_SCOPES = []", "is empty"),
        ("SLP_SCOPES = [\"A\", \" \"]", "names an empty scope"),
        ("SLP_SCOPES = [7]", "where a string in quotes should be"),
        ("SLP_DA = [\"da.example\"]", "is not an IPv4 address"),
        ("SLP_DA = [\"10.0.0.9\", \"10.0.0.9\"]", "10.0.0.9 is listed twice"),
        ("SLP_LIFETIME = 9", "9 is outside 10 to 65535"),
        ("SLP_LIFETIME = 65536", "65536 is outside 10 to 65535"),
    ] {
        let complaint = complaint(line);
        assert!(complaint.contains(what), "{line}: {complaint}");
    }
    let many: Vec<String> = (1..=17).map(|host| format!("\"10.0.0.{host}\"")).collect();
    let complaint = complaint(&format!("SLP_DA = [{}]", many.join(", ")));
    assert!(complaint.contains("lists 17 addresses; 16 can be served"), "{complaint}");
}

#[test]
fn tunnels_are_one_or_several_best_first() {
    use TunnelType::{Gre, IpIp};
    for (text, expected) in [
        ("\"IP-IP\"", vec![IpIp]),
        ("\"GRE\"", vec![Gre]),
        ("[\"gre\", \"ipip\"]", vec![Gre, IpIp]),
        ("[\"IP-IP\", \"GRE\"]", vec![IpIp, Gre]),
    ] {
        let settings = parse(&format!("INT_IF = \"a\"\nEXT_IF = \"b\"\nTUNNEL = {text}\n")).unwrap();
        assert_eq!(settings.tunnel, expected, "{text}");
        assert_eq!(parse(&settings.to_toml()).unwrap(), settings, "{text}");
    }
    for text in ["[]", "[\"GRE\", \"gre\"]", "\"L2TP\"", "3"] {
        assert!(parse(&format!("INT_IF = \"a\"\nEXT_IF = \"b\"\nTUNNEL = {text}\n")).is_err(), "{text}");
    }
}
