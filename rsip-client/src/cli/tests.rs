use clap::CommandFactory as _;

use super::*;
use crate::rules::Action;
use crate::rules::set::RuleSet;

#[test]
fn is_a_valid_command_line() {
    Cli::command().debug_assert();
}

#[test]
fn ignores_what_a_host_needs_on_its_private_side() {
    let up = |more: &[&str]| {
        let line = ["rsip-client", "up", "--gateway", "10.0.0.1"].iter().chain(more);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Up(up) => up.rules.set().unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let ignores = |set: &RuleSet, port| set.decides(port) == Some(Action::Ignore);
    let more = up(&["--ignore", "6010", "--rule", "lease 22"]);
    assert!([68, 5353, 6010].iter().all(|port| ignores(&more, *port)));
    assert!(!ignores(&more, 80) && !ignores(&more, 22), "rules come first");
    assert_eq!(up(&["--no-default-ignores", "--ignore", "6010"]).entries().len(), 1);
    assert!(up(&["--no-default-ignores"]).entries().is_empty());
}

#[test]
fn ports_come_in_blocks() {
    let blocks = |more: &[&str]| {
        let line = ["rsip-client", "up", "--gateway", "10.0.0.1"].iter().chain(more);
        match Cli::try_parse_from(line).unwrap().command {
            Command::Up(up) => up.blocks(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(blocks(&[]), Blocks { size: 255, first: 1, most: 256 });
    for (ports, size, first) in
        [("0", 0, 1), ("1", 1, 1), ("255", 255, 1), ("256", 128, 2), ("510", 255, 2), ("511", 171, 3)]
    {
        let wanted = Blocks { size, first, most: first };
        assert_eq!(blocks(&["--no-hooks", "--ports", ports]), wanted, "{ports}");
    }
    let most = blocks(&["--ports", "64512"]);
    assert!(u32::from(most.size) * u32::from(most.first) >= 64_512 && most.most >= most.first);
    assert_eq!(blocks(&["--ports", "255"]).most, 256, "with hooks there may be more later");
}

#[test]
fn reads_gateways() {
    let ip = Ipv4Addr::new(10, 0, 0, 1);
    assert_eq!(parse_gateway("10.0.0.1"), Ok(SocketAddrV4::new(ip, 4555)));
    assert_eq!(parse_gateway("10.0.0.1:99"), Ok(SocketAddrV4::new(ip, 99)));
    for bad in
        ["", "10.0.0", "10.0.0.1:", "10.0.0.1:0", "0.0.0.0", "224.0.0.1", "gw", "::1", "255.255.255.255"]
    {
        assert!(parse_gateway(bad).is_err(), "{bad}");
    }
}

#[test]
fn reads_peers() {
    let ip = Ipv4Addr::new(198, 51, 100, 7);
    assert_eq!(parse_remote("198.51.100.7"), Ok(Remote::Address(ip)));
    assert_eq!(parse_remote("198.51.100.7:443"), Ok(Remote::Port(SocketAddrV4::new(ip, 443))));
    for bad in
        ["", "198.51.100", "198.51.100.7:", "198.51.100.7:0", "0.0.0.0", "127.0.0.1", "224.0.0.1:5", "peer"]
    {
        assert!(parse_remote(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_private_network_is_not_everything() {
    assert_eq!(parse_private_net("10.0.0.0/8").map(|net| net.to_string()), Ok("10.0.0.0/8".to_owned()));
    for bad in ["0.0.0.0/0", "10.0.0.1/8", "10.0.0.0/33", "net"] {
        assert!(parse_private_net(bad).is_err(), "{bad}");
    }
}

#[test]
fn reads_seconds() {
    assert_eq!(parse_seconds("2.5"), Ok(Duration::from_millis(2_500)));
    for bad in ["", "-1", "x", "NaN", "inf", "1e9"] {
        assert!(parse_seconds(bad).is_err(), "{bad}");
    }
    assert!(parse_positive_seconds("0").is_err());
}

#[test]
fn every_sub_command_has_an_example() {
    for command in Cli::command().get_subcommands() {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.contains(&format!("rsip-client {}", command.get_name())), "{}", command.get_name());
    }
}
