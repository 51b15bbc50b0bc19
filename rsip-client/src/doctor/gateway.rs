//! The way to the gateway, and whether it answers.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rsip_proto::host::HostTransport;
use rsip_proto::wire::Body;
use rsip_sys::netlink::{Netlink, NetlinkError};

use super::arp;
use super::finding::{Finding, Trouble};
use super::icmp::{Echo, Pinger, SMALL};
use crate::discovery::{self, Question};
use crate::ping::ask::{AskError, Asker, HARMLESS};
use crate::tunnel::path::{self, Path, PathError};

/// A gateway on the private network answers in milliseconds; a busy one in a second.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a datagram is sent before it counts as lost.
const TRIES: u32 = 3;
/// How long strangers may take to claim an address.
const ARP_WAIT: Duration = Duration::from_millis(700);

/// Looks for gateways by SLP, where none is named and no agent knows one.
pub(super) async fn search(question: &Question) -> (Option<SocketAddrV4>, Finding) {
    let trouble = |saw: String, todo: &str| {
        Finding::fail(
            "discovery",
            saw,
            "rsip-client up without --gateway finds no gateway (exit code 3)",
            todo,
        )
    };
    match discovery::candidates(question).await {
        Ok(found) => match found.first() {
            Some(best) => {
                (Some(best.gateway), Finding::ok("discovery", format!("{} at {}", best.offer.url, best.gateway)))
            }
            None => (
                None,
                trouble(
                    "No service:rsip defined! No gateway answers SLP, and no directory agent knows one".to_owned(),
                    "see that rsipd runs with SLP = true, in the same --scope; that UDP port 427 passes firewalls, and multicast the switch; or name the gateway with --gateway",
                )
                .known_as(Trouble::NoService),
            ),
        },
        Err(error) => {
            let unknown = matches!(error, discovery::DiscoveryError::Netlink(NetlinkError::NoSuchInterface(_)));
            let finding = trouble(error.to_string(), "see `ip link` and `ip address` for interfaces that are up and have an IPv4 address");
            (None, finding.known_as(if unknown { Trouble::UnknownInterface } else { Trouble::NoService }))
        }
    }
}

/// The route to the gateway.
pub(super) async fn way(
    netlink: &Netlink,
    gateway: Ipv4Addr,
    interface: Option<&str>,
) -> (Option<Path>, Finding) {
    let error = match path::find(netlink, gateway, interface).await {
        Ok(path) => {
            let via =
                if path.next_hop == gateway { String::new() } else { format!(" via {}", path.next_hop) };
            let saw = format!("{gateway} over {}{via}, from {}", path.interface.name, path.source);
            if !path.interface.carrier {
                let finding = Finding::fail(
                    "way to the gateway",
                    format!("{saw}: {} has no carrier", path.interface.name),
                    "the cable is out, or the other end is down",
                    format!("look at the cable and the switch; `ip link show {}`", path.interface.name),
                );
                return (Some(path), finding);
            }
            return (Some(path), Finding::ok("way to the gateway", saw));
        }
        Err(error) => error,
    };
    let saw = error.to_string();
    let fail = |means: &str, todo: &str| Finding::fail("way to the gateway", saw.clone(), means, todo);
    let finding = match &error {
        PathError::Netlink(NetlinkError::NoSuchInterface(_)) => {
            fail("--interface names nothing that is there", "see `ip link` for the names")
                .known_as(Trouble::UnknownInterface)
        }
        PathError::Netlink(_) => fail("the kernel does not tell routes", "run as root"),
        PathError::NoRoute(_) | PathError::DeadEnd(_) => fail(
            "this host has no way to that address",
            "check --gateway; give the host an address on the gateway's network, or a route to it",
        ),
        PathError::OwnAddress(_) => {
            fail("a host cannot be its own gateway", "give the gateway's own private address with --gateway")
        }
        PathError::OtherInterface { .. } => {
            fail("--interface and the routing table do not agree", "leave --interface out, or mend the route")
        }
        PathError::Down(_) => fail("nothing can be sent there", "bring it up: ip link set IF up"),
    };
    (None, finding)
}

/// Whether the machine is there at all.
pub(super) fn machine(gateway: Ipv4Addr, path: &Path) -> Finding {
    let on_link = path.next_hop;
    let arp = arp::who_has(&path.interface, path.source, on_link, ARP_WAIT, true);
    if let Ok(Some(answers)) = &arp
        && answers.is_empty()
    {
        let name = if on_link == gateway { "the gateway" } else { "the router towards it" };
        return Finding::fail(
            "gateway's machine",
            format!("nobody on {} answers ARP for {on_link}", path.interface.name),
            format!("{name} is down, on another network, or its address is another"),
            "check the address in --gateway, cable, VLAN and switch",
        );
    }
    let echo = Pinger::open(None, gateway).and_then(|mut pinger| pinger.ping(SMALL, PATIENCE));
    let arp = match arp {
        Ok(Some(answers)) => {
            let macs: Vec<String> = answers.into_iter().map(arp::text).collect();
            format!("{on_link} is at {}", macs.join(" and "))
        }
        Ok(None) => format!("{} has no ARP", path.interface.name),
        Err(error) => format!("ARP cannot be tried: {error}"),
    };
    match echo {
        Ok(Echo::Answered) => Finding::ok("gateway's machine", format!("{arp}; {gateway} answers ping")),
        Ok(Echo::Unreachable(why)) => Finding::fail(
            "gateway's machine",
            format!("{arp}; ping of {gateway}: {why}"),
            "a router or a firewall on the way says that there is no way",
            "look at the route and at firewalls between",
        ),
        Ok(Echo::Silence | Echo::TooBig { .. }) => Finding::ok(
            "gateway's machine",
            format!("{arp}; {gateway} does not answer ping, which is its right"),
        ),
        Err(error) => Finding::ok("gateway's machine", format!("{arp}; ping cannot be tried: {error}")),
    }
}

/// Whether RSIP is spoken there, over both transports; `wanted` is the one that counts.
pub(super) async fn rsip(gateway: SocketAddrV4, wanted: HostTransport) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (kind, check, name) in
        [(HostTransport::Tcp, "RSIP over TCP", "TCP"), (HostTransport::Udp, "RSIP over UDP", "UDP")]
    {
        let finding = match exchange(kind, gateway).await {
            Ok(answer) => Finding::ok(check, format!("{gateway} answers: {answer}")),
            Err(error) => refused(check, name, gateway, &error),
        };
        findings.push(if kind == wanted || finding.trouble == Some(Trouble::ConnectionRefused) {
            finding
        } else {
            milder(finding)
        });
    }
    findings
}

/// The transport that nobody asked for need not work.
fn milder(mut finding: Finding) -> Finding {
    use super::finding::Verdict;
    if finding.verdict == Verdict::Fail {
        finding.verdict = Verdict::Warn;
    }
    finding
}

async fn exchange(kind: HostTransport, gateway: SocketAddrV4) -> Result<String, AskError> {
    let mut asker = Asker::open(kind, gateway, PATIENCE).await?;
    let mut outcome = Err(AskError::Silence(PATIENCE));
    for _ in 0..TRIES {
        outcome = asker.ask(HARMLESS, PATIENCE / TRIES).await;
        if !matches!(outcome, Err(AskError::Silence(_))) {
            break;
        }
    }
    outcome.map(|answer| match answer {
        Body::ErrorResponse { error, .. } => error.to_string(),
        other => other.message_type().name().to_owned(),
    })
}

fn refused(check: &'static str, transport: &str, gateway: SocketAddrV4, error: &AskError) -> Finding {
    let fail = |means: String, todo: &str| Finding::fail(check, format!("{gateway}: {error}"), means, todo);
    match error {
        AskError::Refused => fail(
            format!("the machine is there, and nobody listens on {transport} port {}", gateway.port()),
            "start rsipd there (systemctl status rsipd), and check that INT_IF is the interface with this address; check the port in --gateway (RSIP's is 4555)",
        )
        .known_as(Trouble::ConnectionRefused),
        AskError::Silence(_) => fail(
            format!("packets to {transport} port {} get no answer: a firewall drops them, or the machine is gone", gateway.port()),
            "let TCP and UDP port 4555 pass the firewalls of this host and of the gateway; see `rsipdctl status` there",
        )
        .known_as(Trouble::UnableToRegister),
        AskError::Closed => fail(
            "something listens there and says nothing: rsipd does not serve the interface that the packets arrive at, or it is another service".to_owned(),
            "check INT_IF at the gateway, and address and port of --gateway",
        )
        .known_as(Trouble::UnableToRegister),
        AskError::NotRsip(_) => fail(
            "another service has that port".to_owned(),
            "check address and port of --gateway (RSIP's port is 4555)",
        )
        .known_as(Trouble::UnableToRegister),
        AskError::Unreachable(_) => fail(
            "no packet gets there".to_owned(),
            "see the findings about the way and the gateway's machine",
        )
        .known_as(Trouble::UnableToRegister),
    }
}

/// Whether somebody on the private network, other than the gateway, claims the leased address.
pub(super) fn claimed(public: Ipv4Addr, path: &Path) -> Finding {
    let ask = |target, enough| arp::who_has(&path.interface, path.source, target, ARP_WAIT, enough);
    let (gateways, claimants) = match (ask(path.next_hop, true), ask(public, false)) {
        (Ok(Some(gateways)), Ok(Some(claimants))) => (gateways, claimants),
        (Ok(None), _) | (_, Ok(None)) => {
            return Finding::ok(
                "leased address",
                format!("{} has no ARP: nobody can claim it there", path.interface.name),
            );
        }
        (Err(error), _) | (_, Err(error)) => {
            return Finding::warn(
                "leased address",
                format!("cannot ask by ARP: {error}"),
                "it is not known whether somebody else claims it",
                "run as root",
            );
        }
    };
    // A gateway on Linux answers for all of its addresses, which does no harm.
    let strangers: Vec<String> = claimants.difference(&gateways).copied().map(arp::text).collect();
    if strangers.is_empty() {
        return Finding::ok(
            "leased address",
            format!("nobody else on {} answers for {public}", path.interface.name),
        );
    }
    Finding::warn(
        "leased address",
        format!("{} on {} answers ARP for {public}", strangers.join(" and "), path.interface.name),
        "another host has the public address on an interface where it shows: packets to it may go astray",
        "an RSIP host has it on its tunnel device and stays silent; find who has that Ethernet address, and take the address from its interface",
    )
    .known_as(Trouble::VanishingPackets)
}
