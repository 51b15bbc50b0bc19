//! How large packets may be: tried, not computed.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::finding::{Finding, Trouble};
use super::icmp::{Echo, Pinger, SMALL};
use crate::status::Tunnel;
use crate::tunnel::path::Path;

/// For one echo; a second one is sent where the first gets no answer.
const PATIENCE: Duration = Duration::from_millis(400);
/// Before a size is said not to come through.
const LAST_PATIENCE: Duration = Duration::from_millis(1500);

/// What a way lets through.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Size {
    /// All that was asked for.
    All,
    /// Not more than this; and who says so, where somebody does.
    UpTo(u32, Option<Ipv4Addr>),
    /// Not even a small one is answered.
    Nothing(Echo),
}

/// The way to the gateway, outside of the tunnel.
pub(super) fn outside(gateway: Ipv4Addr, path: &Path, tunnel: Option<&Tunnel>) -> Finding {
    let interface = &path.interface;
    let wanted = interface.mtu;
    // What the tunnel makes of its largest packet.
    let needed =
        tunnel.map_or(wanted, |tunnel| tunnel.mtu.saturating_add(overhead(interface.mtu, tunnel.mtu)));
    match probe(None, gateway, wanted) {
        Ok(Size::All) => Finding::ok(
            "MTU to the gateway",
            format!("{wanted} bytes, as {} has it, come through unfragmented", interface.name),
        ),
        Ok(Size::UpTo(size, by)) => {
            let who = by.map_or_else(
                || "larger ones get no answer and no error".to_owned(),
                |by| format!("{by} says so by ICMP"),
            );
            let saw = format!(
                "{size} bytes come through unfragmented, of {wanted} that {} has; {who}",
                interface.name
            );
            if needed <= size {
                return Finding::ok("MTU to the gateway", format!("{saw}; the tunnel needs {needed}"));
            }
            Finding::fail(
                "MTU to the gateway",
                saw,
                "some packets seem to vanish: small ones (ping, DNS, the start of a connection) work, large ones (pages, files) hang",
                format!(
                    "let the interface say what comes through, and the tunnel follows: ip link set dev {} mtu {size}; or mend the switch or the gateway's interface",
                    interface.name
                ),
            )
            .known_as(Trouble::Mtu)
        }
        Ok(Size::Nothing(Echo::Unreachable(why))) => Finding::warn(
            "MTU to the gateway",
            why,
            "sizes cannot be tried",
            "see the findings about the way to the gateway",
        ),
        Ok(Size::Nothing(_)) => Finding::warn(
            "MTU to the gateway",
            format!("{gateway} does not answer ping, so sizes cannot be tried"),
            "it is not known whether large packets come through",
            "let ICMP echo requests from the private network pass the gateway's firewall",
        ),
        Err(error) => not_tried("MTU to the gateway", &error),
    }
}

/// Outer headers, told from what the agent took off.
fn overhead(outer: u32, inner: u32) -> u32 {
    /// IPv4.
    const IPIP: u32 = 20;
    /// IPv4, GRE with a key at most.
    const GRE: u32 = 28;
    outer.checked_sub(inner).filter(|taken| (IPIP..=GRE).contains(taken)).unwrap_or(IPIP)
}

/// Through the tunnel, to a host of the internet.
pub(super) fn inside(peer: Ipv4Addr, tunnel: &Tunnel) -> Finding {
    let Some(public) = tunnel.address else {
        return Finding::ok("through the tunnel", "not tried: no address is leased");
    };
    match probe(Some(public), peer, tunnel.mtu) {
        Ok(Size::All) => {
            Finding::ok("through the tunnel", format!("{peer} answers {public}, also to packets of {} bytes", tunnel.mtu))
        }
        Ok(Size::UpTo(size, Some(by))) => Finding::ok(
            "through the tunnel",
            format!("{peer} answers {public}; {by} says that {size} bytes come through, and programs are told so"),
        ),
        Ok(Size::UpTo(size, None)) => Finding::fail(
            "through the tunnel",
            format!("{peer} answers {public}, but not to packets of more than {size} bytes, and nobody says why"),
            "some packets seem to vanish: a router or a firewall on the way drops large packets and the ICMP messages about them",
            format!("let ICMP type 3 code 4 pass; or make the tunnel's packets smaller: ip link set dev {} mtu {size}", tunnel.device),
        )
        .known_as(Trouble::Mtu),
        Ok(Size::Nothing(Echo::Unreachable(why))) => vanish(peer, public, &why),
        Ok(Size::Nothing(_)) => vanish(peer, public, "no answer"),
        Err(error) => not_tried("through the tunnel", &error),
    }
}

fn vanish(peer: Ipv4Addr, public: Ipv4Addr, why: &str) -> Finding {
    Finding::fail(
        "through the tunnel",
        format!("ping from {public} to {peer} through the tunnel: {why}"),
        "packets vanish on the way there or back, or that host does not answer ping",
        "try a --peer that answers ping; at the gateway: `dropped` in rsipdctl status, rsipdctl binds (is the lease in the data path?), its route to the internet, and firewalls that drop protocol 4 (IP-IP) between here and there",
    )
    .known_as(Trouble::VanishingPackets)
}

fn not_tried(check: &'static str, error: &io::Error) -> Finding {
    Finding::warn(
        check,
        format!("cannot send echo requests: {error}"),
        "it is not known whether large packets come through",
        "run as root (CAP_NET_RAW)",
    )
}

/// The largest size up to `wanted` that is answered.
fn probe(source: Option<Ipv4Addr>, destination: Ipv4Addr, wanted: u32) -> io::Result<Size> {
    let mut pinger = Pinger::open(source, destination)?;
    let mut answers = |size: u32, patience: Duration| -> io::Result<Echo> {
        let first = pinger.ping(size, PATIENCE)?;
        if first == Echo::Silence { pinger.ping(size, patience) } else { Ok(first) }
    };
    largest(wanted.min(65_535), &mut answers)
}

fn largest(wanted: u32, answers: &mut dyn FnMut(u32, Duration) -> io::Result<Echo>) -> io::Result<Size> {
    match answers(SMALL, LAST_PATIENCE)? {
        Echo::Answered => {}
        other => return Ok(Size::Nothing(other)),
    }
    let mut told = None;
    let (mut good, mut bad) = (SMALL, wanted.saturating_add(1));
    let mut next = wanted;
    while good.saturating_add(1) < bad {
        match answers(next, if next == wanted { LAST_PATIENCE } else { PATIENCE })? {
            Echo::Answered => good = next,
            Echo::TooBig { mtu, by } => {
                bad = next;
                told = told.or(by);
                // Whoever says what fits is tried at his word.
                if mtu > good && mtu < bad {
                    next = mtu;
                    continue;
                }
            }
            Echo::Silence | Echo::Unreachable(_) => bad = next,
        }
        next = good.midpoint(bad);
    }
    Ok(if good >= wanted { Size::All } else { Size::UpTo(good, told) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(limit: u32, told: Option<Ipv4Addr>) -> impl FnMut(u32, Duration) -> io::Result<Echo> {
        move |size, _| {
            Ok(match told {
                _ if size <= limit => Echo::Answered,
                Some(by) => Echo::TooBig { mtu: limit, by: Some(by) },
                None => Echo::Silence,
            })
        }
    }

    #[test]
    fn finds_the_largest_packet_to_the_byte() {
        for limit in [SMALL, 85, 576, 1279, 1280, 1479, 1499] {
            assert_eq!(largest(1500, &mut over(limit, None)).expect("no error"), Size::UpTo(limit, None));
        }
        for limit in [1500, 9000] {
            assert_eq!(largest(1500, &mut over(limit, None)).expect("no error"), Size::All);
        }
        assert!(matches!(
            largest(1500, &mut over(20, None)).expect("no error"),
            Size::Nothing(Echo::Silence)
        ));
        assert_eq!(largest(SMALL, &mut over(9000, None)).expect("no error"), Size::All);
    }

    #[test]
    fn believes_a_router_that_says_what_fits_and_tries_it() {
        let router = Ipv4Addr::new(10, 0, 0, 9);
        let mut asked = 0;
        let mut network = over(1400, Some(router));
        let mut counted = |size, patience| {
            asked += 1;
            network(size, patience)
        };
        assert_eq!(largest(1500, &mut counted).expect("no error"), Size::UpTo(1400, Some(router)));
        assert!(asked < 12, "{asked}");
    }

    #[test]
    fn the_outer_header_is_what_the_agent_took_off() {
        assert_eq!((overhead(1500, 1480), overhead(1500, 1476), overhead(1500, 1300)), (20, 24, 20));
        assert_eq!(overhead(68, 68), 20);
    }
}
