//! What is missing in a file, and what of it cannot be true together.

use std::collections::BTreeSet;

use rsip_ebpf_common::gateway::MAX_ADDRESSES;
use rsip_proto::wire::RemotePolicy;

use super::settings::KEYS;
use super::{Config, Problem, policy};

pub(super) fn of(config: &Config) -> Vec<Problem> {
    let mut problems = interfaces(config);
    problems.extend(lease_times(config));
    problems.extend(ports(config));
    problems.extend(addresses(config));
    problems.extend(unenforced_denials(config));
    problems
}

fn interfaces(config: &Config) -> Vec<Problem> {
    let settings = &config.settings;
    let missing =
        KEYS.iter().filter(|key| ["INT_IF", "EXT_IF"].contains(&key.name) && !config.sets(key.name));
    let mut problems: Vec<_> = missing
        .map(|key| {
            config.problem(key.name, "required, but not set".to_owned(), format!("write {}", key.allowed))
        })
        .collect();
    if !settings.int_if.is_empty() && settings.int_if == settings.ext_if {
        problems.push(config.problem(
            "EXT_IF",
            format!("{:?} is INT_IF too", settings.ext_if),
            "internal and external hosts must be on two interfaces".to_owned(),
        ));
    }
    problems
}

fn lease_times(config: &Config) -> Option<Problem> {
    let settings = &config.settings;
    let key = if config.sets("LEASE_TIME") { "LEASE_TIME" } else { "MAX_LEASE_TIME" };
    let what = format!(
        "LEASE_TIME {} is longer than MAX_LEASE_TIME {}",
        settings.lease_time.as_secs(),
        settings.max_lease_time.as_secs()
    );
    (settings.lease_time > settings.max_lease_time)
        .then(|| config.problem(key, what, "lower the one or raise the other".to_owned()))
}

fn ports(config: &Config) -> Option<Problem> {
    let settings = &config.settings;
    let mut ports = settings.port_range.clone();
    let nothing_left = ports.all(|port| settings.reserved_ports.binary_search(&port).is_ok());
    nothing_left.then(|| {
        let what = "every port of it is in RESERVED_PORTS".to_owned();
        config.problem("PORT_RANGE", what, "leave some to lease".to_owned())
    })
}

/// The data path has one table for both lists.
fn addresses(config: &Config) -> Option<Problem> {
    let settings = &config.settings;
    let all: BTreeSet<_> = settings.pool.iter().flatten().chain(&settings.rsa_pool).collect();
    (all.len() > MAX_ADDRESSES as usize).then(|| {
        let what = format!("with POOL these are {} addresses; {MAX_ADDRESSES} can be served", all.len());
        config.problem("RSA_POOL", what, "lease fewer addresses".to_owned())
    })
}

fn unenforced_denials(config: &Config) -> Option<Problem> {
    let settings = &config.settings;
    let first = settings.remote_deny.first()?;
    (settings.flow_policy.remote == RemotePolicy::None).then(|| {
        let what = format!(
            "nothing keeps hosts from {}: FLOW_POLICY {:?} lets them talk to everybody",
            policy::remote_deny_text(first),
            policy::flow_policy_name(settings.flow_policy)
        );
        let hint = "set a remote policy, for example FLOW_POLICY = \"macro/macro\", or take REMOTE_DENY away";
        config.problem("REMOTE_DENY", what, hint.to_owned())
    })
}
