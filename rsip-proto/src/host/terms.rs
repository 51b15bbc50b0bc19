//! Whether this host can work under a gateway's terms, and what they make of its requests (RFC 3103 section 7).

use crate::host::{HostConfig, Method, Mismatch};
use crate::lease::Remote;
use crate::wire::{Address, FlowPolicy, LocalPolicy, Ports, RemotePolicy, RsipMethod, TunnelType};

/// Why this host can lease nothing under this flow policy.
pub(super) fn against_policy(config: &HostConfig, policy: FlowPolicy) -> Option<Mismatch> {
    if config.method == Method::RsaIp && policy.local == LocalPolicy::Micro {
        return Some(Mismatch::LocalMicro);
    }
    match (policy.remote, config.remote) {
        (RemotePolicy::Macro, Remote::Any) => Some(Mismatch::RemoteAddress),
        (RemotePolicy::Micro, Remote::Any | Remote::Address(_)) => Some(Mismatch::RemotePort),
        (RemotePolicy::None | RemotePolicy::Macro | RemotePolicy::Micro, _) => None,
    }
}

/// Why this host can use nothing of what the gateway offers.
pub(super) fn against_offer(
    config: &HostConfig,
    methods: &[RsipMethod],
    tunnel_types: &[TunnelType],
) -> Option<Mismatch> {
    if !methods.contains(&config.method.on_the_wire()) {
        Some(Mismatch::Method(config.method))
    } else if favourite(&config.tunnels, tunnel_types).is_none() {
        Some(Mismatch::Tunnel)
    } else {
        None
    }
}

/// The first of the gateway's tunnel types that this host has, too: the gateway names its favourite first.
pub(super) fn favourite(ours: &[TunnelType], offered: &[TunnelType]) -> Option<TunnelType> {
    offered.iter().copied().find(|tunnel| ours.contains(tunnel))
}

/// With whom a binding under this policy may be used: no more is named than the policy asks for.
pub(super) fn remote(config: &HostConfig, policy: FlowPolicy) -> Remote {
    match (policy.remote, config.remote) {
        (RemotePolicy::None, _) => Remote::Any,
        (RemotePolicy::Macro, remote) => remote.address().map_or(Remote::Any, Remote::Address),
        (RemotePolicy::Micro, remote) => remote,
    }
}

/// The remote parameters that say so in a request.
pub(super) fn remote_parameters(remote: Remote) -> (Address, Ports) {
    let address = remote.address().map_or(Address::ANY, Address::Ipv4);
    (address, remote.port().map_or(Ports::ANY, Ports::single))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddrV4};

    use super::*;

    const PEER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 443);

    fn policy(local: LocalPolicy, remote: RemotePolicy) -> FlowPolicy {
        FlowPolicy { local, remote }
    }

    #[test]
    fn the_gateways_favourite_tunnel_is_taken_if_this_host_has_it() {
        use TunnelType::{Gre, IpIp, L2tp};
        for (ours, offered, expected) in [
            (&[IpIp][..], &[IpIp][..], Some(IpIp)),
            (&[IpIp, Gre], &[Gre, IpIp], Some(Gre)),
            (&[Gre, IpIp], &[IpIp, Gre], Some(IpIp)),
            (&[Gre], &[L2tp, IpIp, Gre], Some(Gre)),
            (&[Gre], &[IpIp], None),
            (&[IpIp], &[], None),
        ] {
            assert_eq!(favourite(ours, offered), expected, "{ours:?} of {offered:?}");
        }
    }

    #[test]
    fn names_what_the_remote_policy_wants_and_no_more() {
        let named = |remote, asked| {
            let config = HostConfig { remote, ..HostConfig::default() };
            let policy = policy(LocalPolicy::Macro, asked);
            (against_policy(&config, policy), remote_parameters(super::remote(&config, policy)))
        };
        let any = (Address::ANY, Ports::ANY);
        let address = (Address::Ipv4(*PEER.ip()), Ports::ANY);
        let port = (Address::Ipv4(*PEER.ip()), Ports::single(443));
        let peers = [Remote::Any, Remote::Address(*PEER.ip()), Remote::Port(PEER)];
        for peer in peers {
            assert_eq!(named(peer, RemotePolicy::None), (None, any.clone()));
        }
        assert_eq!(named(peers[0], RemotePolicy::Macro), (Some(Mismatch::RemoteAddress), any));
        assert_eq!(named(peers[1], RemotePolicy::Macro), (None, address.clone()));
        assert_eq!(named(peers[2], RemotePolicy::Macro), (None, address));
        assert_eq!(named(peers[0], RemotePolicy::Micro).0, Some(Mismatch::RemotePort));
        assert_eq!(named(peers[1], RemotePolicy::Micro).0, Some(Mismatch::RemotePort));
        assert_eq!(named(peers[2], RemotePolicy::Micro), (None, port));
    }

    #[test]
    fn a_whole_address_needs_the_local_macro_policy() {
        let config = HostConfig { method: Method::RsaIp, ..HostConfig::default() };
        let micro = policy(LocalPolicy::Micro, RemotePolicy::None);
        assert_eq!(against_policy(&config, micro), Some(Mismatch::LocalMicro));
        assert_eq!(against_policy(&config, policy(LocalPolicy::Macro, RemotePolicy::None)), None);
        assert_eq!(against_policy(&HostConfig::default(), micro), None);
    }

    #[test]
    fn what_is_not_known_does_not_count_as_an_offer() {
        let config = HostConfig::default();
        let (others, tunnels) = ([RsipMethod::RsaIp, RsipMethod::Other(77)], [TunnelType::IpIp]);
        let mismatch = against_offer(&config, &others, &tunnels);
        assert_eq!(mismatch, Some(Mismatch::Method(Method::RsapIp)));
        let methods = [RsipMethod::Other(77), RsipMethod::RsapIp];
        assert_eq!(against_offer(&config, &methods, &tunnels), None);
        let strange = [TunnelType::Gre, TunnelType::L2tp, TunnelType::Other(99)];
        assert_eq!(against_offer(&config, &methods, &strange), Some(Mismatch::Tunnel));
    }
}
