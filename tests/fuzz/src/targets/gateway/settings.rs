//! Settings in which everything is scarce, so that limits are met after a few steps.

use std::net::Ipv4Addr;
use std::time::Duration;

use rsip_proto::gateway::{GatewayConfig, RemoteDeny};
use rsip_proto::pool::PoolConfig;
use rsip_proto::wire::{FlowPolicy, LocalPolicy, RemotePolicy, TunnelType};

use crate::input::Input;

/// The first byte of the input chooses.
pub(super) fn read(input: &mut Input<'_>) -> GatewayConfig {
    let choice = input.byte();
    let remote = match choice % 3 {
        0 => RemotePolicy::None,
        1 => RemotePolicy::Macro,
        _ => RemotePolicy::Micro,
    };
    let local = if choice & 64 == 0 { LocalPolicy::Macro } else { LocalPolicy::Micro };
    let more = input.byte();
    let address = |last| Ipv4Addr::new(192, 0, 2, last);
    let whole = match more & 3 {
        0 => vec![],
        1 => vec![address(2)],
        2 => vec![address(2), address(3)],
        _ => vec![address(1), address(2), address(3)],
    };
    GatewayConfig {
        max_clients: 3,
        max_ports_per_client: if more & 4 == 0 { 40 } else { 12 },
        max_addresses_per_client: if more & 8 == 0 { 1 } else { 2 },
        lease_time: Duration::from_secs(5),
        max_lease_time: Duration::from_secs(20),
        flow_policy: FlowPolicy { local, remote },
        remote_deny: if remote == RemotePolicy::None {
            vec![]
        } else {
            vec![
                RemoteDeny { network: (Ipv4Addr::new(198, 51, 100, 0), 30), ports: 0..=u16::MAX },
                RemoteDeny { network: (Ipv4Addr::UNSPECIFIED, 0), ports: 25..=25 },
            ]
        },
        tunnel_types: if more & 16 == 0 {
            vec![TunnelType::IpIp]
        } else {
            vec![TunnelType::Gre, TunnelType::IpIp]
        },
        private_nets: vec![(Ipv4Addr::new(10, 0, 0, 0), 24)],
        listen: more & 32 == 0,
        ..GatewayConfig::new(PoolConfig {
            addresses: if more & 64 == 0 { vec![address(1)] } else { vec![address(1), address(2)] },
            port_range: 10_000..=10_019,
            listen_range: 79..=82,
            reserved: vec![81],
            rest: if more & 128 == 0 { Duration::ZERO } else { Duration::from_secs(120) },
            whole,
        })
    }
}

/// Ports that can be chosen at one address.
pub(super) fn choosable(config: &GatewayConfig) -> u32 {
    u32::try_from(config.pool.port_range.clone().count()).unwrap_or(u32::MAX)
}

pub(super) fn is_local_micro(config: &GatewayConfig) -> bool {
    config.flow_policy.local == LocalPolicy::Micro
}
