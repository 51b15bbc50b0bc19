use std::collections::BTreeSet;
use std::time::Duration;

use clap::Parser as _;

use super::*;
use crate::cli::{Command, Up};

const SAMPLE: &str = include_str!("../../rsip-client.conf");

fn lines(text: &str) -> Vec<String> {
    let error = parse(text, Path::new("f")).expect_err(text);
    error.lines().collect()
}

/// What `up` makes of a file and a command line.
fn up(file: &str, line: &[&str]) -> Up {
    let settings = parse(file, Path::new("f")).expect("the file is right");
    let line: Vec<OsString> = ["rsip-client", "up"].iter().chain(line).map(OsString::from).collect();
    let matches = Cli::command().try_get_matches_from(&line).expect("the command line is right");
    let together = merge(&line, matches.subcommand_matches(UP).expect("up"), &settings);
    match Cli::try_parse_from(together).expect("they fit together").command {
        Command::Up(up) => *up,
        other => panic!("{other:?}"),
    }
}

/// The keys of the sample, with their examples.
fn examples() -> impl Iterator<Item = (&'static str, &'static str)> {
    let is_key = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let lines = SAMPLE.split("# [[rule]]\n").next().unwrap_or_default().lines();
    lines.filter_map(|line| line.strip_prefix("# ")?.split_once(" = ")).filter(move |(name, _)| is_key(name))
}

#[test]
fn the_sample_is_right_and_changes_nothing() {
    assert_eq!(parse(SAMPLE, Path::new("f")), Ok(Vec::new()));
}

#[test]
fn the_sample_names_every_key_with_a_value_that_it_takes() {
    let named: BTreeSet<_> = examples().map(|(name, _)| name.to_owned()).collect();
    let keys: BTreeSet<_> = keys::all().into_iter().map(|key| key.name).collect();
    assert_eq!(named, keys);
    for (name, value) in examples() {
        let line = format!("{name} = {value}");
        assert!(parse(&line, Path::new("f")).is_ok(), "{line}: {:?}", lines(&line));
    }
    let (_, tables) = SAMPLE.split_once("# [[rule]]\n").expect("it has a table");
    let uncommented: String =
        tables.lines().map(|line| format!("{}\n", line.trim_start_matches("# "))).collect();
    let table = format!("[[rule]]\n{}", uncommented.replace("user = \"root\"", "user = \"0\""));
    let up = up(&table, &[]);
    let shown = "I6010-6019 tcp program=sshd user=0 cgroup=/system.slice/ssh.service";
    assert_eq!(up.rules.rules.iter().map(ToString::to_string).collect::<Vec<_>>(), [shown]);
}

#[test]
fn values_reach_their_options() {
    let file = "gateway = \"10.0.0.1\"\nblock = 0x10\nlinger = 0.5\npersist = true\nno_query = false\n\
        listen = [80, 443]\nrule = [\"deny 25\", {action = \"ignore\", program = \"Web Content\"}]\n";
    let up = up(file, &[]);
    assert_eq!(up.gateway.map(|gateway| gateway.to_string()), Some("10.0.0.1:4555".to_owned()));
    assert_eq!((up.block, up.linger, up.persist, up.no_query), (16, Duration::from_millis(500), true, false));
    assert_eq!(up.listen, [80, 443]);
    let rules: Vec<_> = up.rules.rules.iter().map(ToString::to_string).collect();
    assert_eq!(rules, ["D25-25", "I1-65535 program=\"Web Content\""]);
}

#[test]
fn the_command_line_wins_option_by_option() {
    let file = "gateway = \"10.0.0.1\"\nblock = 16\nlisten = [80, 443]\nlinger = 7\n";
    let up = up(file, &["--gateway", "10.0.0.2", "--listen", "22", "--ports", "300"]);
    assert_eq!(up.gateway.map(|gateway| gateway.ip().to_string()), Some("10.0.0.2".to_owned()));
    assert_eq!(up.listen, [22], "a list as a whole");
    assert_eq!(up.ports, Some(300), "which does not go together with the file's block");
    assert_eq!(up.linger, Duration::from_secs(7));
}

#[test]
fn each_mistake_is_named_with_its_place_and_what_to_write() {
    let text = "gatway = \"10.0.0.1\"\nblock = 256\nlinger = \"soon\"\npersist = 1\ntransport = \"sctp\"\n\
        listen = [80, 0]\ngateway = [\"10.0.0.1\"]\nrule = [\"allow 80\", {ports = 80}, {action = \"deny\", port = 1}]\n";
    let found = lines(text);
    for part in [
        "f:1:1: gatway: unknown key: did you mean gateway?",
        "f:2:9: block: ",
        "f:3:10: linger: \"soon\" is not a number of seconds",
        "f:4:11: persist: a number stands where true or false should be: write persist = true or false",
        "f:5:13: transport: \"sctp\" is none of tcp, udp",
        "f:6:15: listen: ",
        "f:7:11: gateway: a list stands where text or a number should be: write gateway = ADDR[:PORT]",
        "f:8:9: rule: a rule begins with ignore, lease or deny",
    ] {
        assert!(found.iter().any(|line| line.starts_with(part)), "{part}: {found:#?}");
    }
    assert!(lines("rule = [{ports = 80}]")[0].contains("a rule needs action"));
    assert!(
        lines("rule = [{action = \"deny\", port = 1}]")[0]
            .contains("a rule has no port; it has action, ports")
    );
    assert!(
        lines("ports = 10\nblock = 5")[0].contains("cannot be used with"),
        "{:?}",
        lines("ports = 10\nblock = 5")
    );
    assert!(lines("gateway = ")[0].starts_with("f:1:"));
    assert!(lines("no-hooks = true")[0].contains("did you mean no_hooks?"));
}

#[test]
fn other_sub_commands_have_no_use_for_it() {
    let cli = command_line(["rsip-client", "status", "--json"].map(OsString::from)).expect("no file is read");
    assert!(matches!(cli.command, Command::Status { json: true, .. }), "{cli:?}");
}
