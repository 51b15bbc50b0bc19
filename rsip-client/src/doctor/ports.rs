//! The kernel's own choice of ports, and who sits on leased ones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::finding::{Finding, Trouble};
use crate::ports;
use crate::status::{Lease, Status};
use crate::usage::diag::{Snapshot, Socket};

/// Ports of a lease; none for a whole address.
pub(super) fn of_lease(lease: &Lease) -> impl Iterator<Item = u16> {
    ports::parse_list(&lease.ports).into_iter().flatten()
}

fn of_kind(status: &Status, kind: &str) -> BTreeSet<u16> {
    status.leases.iter().filter(|lease| lease.kind == kind).flat_map(of_lease).collect()
}

/// All checks of ports.
pub(super) fn check(status: &Status) -> Vec<Finding> {
    let current = match ports::current() {
        Ok(current) => current,
        Err(error) => {
            return vec![Finding::warn(
                "port range",
                error.to_string(),
                "it is not known which ports the kernel chooses for connections",
                "look whether /proc/sys is mounted",
            )];
        }
    };
    let block = of_kind(status, "block");
    let mut findings = Vec::new();
    if !block.is_empty() {
        findings.push(range(&current, &block));
    }
    if let Ok(sockets) = Snapshot::take() {
        findings.push(conflicts(status, &sockets));
    }
    findings
}

/// The kernel may choose exactly what is leased, less what the administrator reserved.
fn range(current: &ports::SavedSysctls, block: &BTreeSet<u16>) -> Finding {
    let admitted = ports::admitted(current);
    let outside: BTreeSet<u16> = admitted.difference(block).copied().collect();
    if admitted.is_empty() {
        return Finding::fail(
            "port range",
            format!("range {}, reserved {}: no port is left", current.range, current.reserved),
            "the kernel finds no port for connections: connect() fails with EADDRNOTAVAIL",
            "take leased ports out of net.ipv4.ip_local_reserved_ports, or rsip-client down and up",
        )
        .known_as(Trouble::PortConflict);
    }
    if !outside.is_empty() {
        return Finding::fail(
            "port range",
            format!(
                "net.ipv4.ip_local_port_range is {}: the kernel may choose {} ports that are not leased ({}…)",
                current.range,
                outside.len(),
                outside.first().copied().unwrap_or_default()
            ),
            "somebody changed ip_local_port_range or ip_local_reserved_ports after the agent had set them: connections leave with ports of other hosts, and no answer comes",
            "find who does it (sysctl.d, tuned, another agent); rsip-client down and up sets them again",
        )
        .known_as(Trouble::PortConflict);
    }
    Finding::ok("port range", format!("the kernel chooses among {} leased ports", admitted.len()))
}

fn conflicts(status: &Status, sockets: &Snapshot) -> Finding {
    let leased: BTreeSet<u16> = status.leases.iter().flat_map(of_lease).collect();
    let Some(public) = status.leases.first().map(|lease| lease.address) else {
        return Finding::ok("local ports", "nothing is leased that could be in conflict");
    };
    let mut private: BTreeMap<u16, String> = BTreeMap::new();
    for socket in sockets.all().filter(|socket| socket.is_server && leased.contains(&socket.port)) {
        if is_private(socket, public) {
            private.entry(socket.port).or_insert_with(|| format!("{}:{}", socket.address, socket.port));
        }
    }
    if private.is_empty() {
        return Finding::ok("local ports", "no program serves a private address on a leased port");
    }
    let list: Vec<String> = private.into_values().collect();
    Finding::warn(
        "local ports",
        format!("served privately, and leased: {}", list.join(", ")),
        "whoever asks for the port at the leased address does not reach that program, and a connection from the same port may be refused (EADDRINUSE)",
        "move the program to another port, or reserve the port before the start (net.ipv4.ip_local_reserved_ports); rsip-client ports shows who it is",
    )
    .known_as(Trouble::PortConflict)
}

/// Bound to an address of this host that is neither the leased one, nor all of them, nor loopback.
fn is_private(socket: &Socket, public: std::net::Ipv4Addr) -> bool {
    match socket.address {
        IpAddr::V4(address) => !socket.serves(public) && !address.is_loopback(),
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;
    use crate::ports::SavedSysctls;

    fn sysctls(range: &str, reserved: &str) -> SavedSysctls {
        SavedSysctls { range: range.to_owned(), reserved: reserved.to_owned() }
    }

    #[test]
    fn the_kernels_choice_is_what_is_leased() {
        let block: BTreeSet<u16> = (10_000..=10_003).chain(10_010..=10_012).collect();
        assert_eq!(range(&sysctls("10000\t10012", "10004-10009"), &block).verdict, Verdict::Ok);
        // The administrator's own reservation takes away, which is well.
        assert_eq!(range(&sysctls("10000 10012", "10004-10010"), &block).verdict, Verdict::Ok);
        let open = range(&sysctls("10000 10012", ""), &block);
        assert_eq!((open.verdict, open.trouble), (Verdict::Fail, Some(Trouble::PortConflict)));
        assert!(open.saw.contains("6 ports") && open.saw.contains("10004"), "{}", open.saw);
        assert_eq!(range(&sysctls("32768 60999", ""), &block).verdict, Verdict::Fail);
        assert!(range(&sysctls("10000 10003", "10000-10003"), &block).saw.contains("no port is left"));
    }
}
