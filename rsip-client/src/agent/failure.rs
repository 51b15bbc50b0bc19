//! What the host cannot do, and how the operator is told: exit code, line, hint.

use std::net::Ipv4Addr;

use rsip_proto::wire::TunnelType;
use rsip_sys::cgroup::CgroupError;
use rsip_sys::exit::{ExitCode, Failure};
use rsip_sys::netlink::NetlinkError;
use rsip_sys::rundir::RunDirError;
use rsip_sys::sysctl::SysctlError;
use rsip_sys::tc::EbpfError;

use crate::hooks::HooksError;
use crate::tunnel::TunnelError;
use crate::tunnel::device::DeviceError;
use crate::tunnel::path::PathError;

/// Why a binding cannot be taken into use.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    /// Its tunnel type.
    #[error("the gateway wants a {0} tunnel, this agent has IP-IP and GRE")]
    TunnelType(TunnelType),
    /// Its tunnel type is not that of the other bindings.
    #[error("the gateway leased with a {new} tunnel, but the tunnel is {old}: this agent has one at a time")]
    OtherTunnel {
        /// In use.
        old: TunnelType,
        /// Leased now.
        new: TunnelType,
    },
    /// Its address.
    #[error("the gateway leased {new}, but {old} is in use: this agent uses one address at a time")]
    OtherAddress {
        /// In use.
        old: Ipv4Addr,
        /// Leased now.
        new: Ipv4Addr,
    },
    /// Its address is one that the host has elsewhere.
    #[error("the gateway leased {0}, which an interface of this host has already")]
    AddressTaken(Ipv4Addr),
    /// Hooks.
    #[error(transparent)]
    Hooks(#[from] HooksError),
    /// Tunnel, routes.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// Addresses, routes.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Port range.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// A cgroup whose programs are to be served.
    #[error(transparent)]
    Cgroup(CgroupError),
    /// `state.json`.
    #[error(transparent)]
    State(#[from] RunDirError),
    /// The way to the gateway is gone.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// The exit code and the hint for what this host cannot do.
pub fn failure(error: EffectError) -> anyhow::Error {
    let line = super::describe(&error);
    match error {
        EffectError::TunnelType(_)
        | EffectError::OtherTunnel { .. }
        | EffectError::OtherAddress { .. }
        | EffectError::AddressTaken(_) => {
            Failure::new(ExitCode::Refused, "lease").why(line).hint("see the gateway's POOL and TUNNEL")
        }
        EffectError::Hooks(error) => return hooks_failure(&error),
        EffectError::Tunnel(TunnelError::Device(DeviceError::Foreign)) => {
            Failure::new(ExitCode::Failure, format!("unable to create tunnel: {line}"))
                .hint("rename or remove it")
        }
        EffectError::Tunnel(TunnelError::Device(DeviceError::Unsupported(kind))) => unsupported(kind, &line),
        EffectError::Tunnel(TunnelError::Device(DeviceError::Open(_) | DeviceError::Create(_))) => {
            Failure::new(ExitCode::Missing, format!("unable to create tunnel: {line}"))
                .hint("the kernel needs CONFIG_TUN, and /dev/net/tun must exist (modprobe tun)")
        }
        EffectError::Tunnel(TunnelError::Ebpf(error)) => return ebpf_failure(&error),
        EffectError::Tunnel(TunnelError::ForeignRoute) => {
            Failure::new(ExitCode::Failure, format!("unable to set default route: {line}"))
                .hint("remove it: ip route flush table 4555")
        }
        EffectError::Tunnel(TunnelError::Netlink(_) | TunnelError::Device(DeviceError::Netlink(_)))
        | EffectError::Netlink(_)
        | EffectError::State(_) => Failure::new(ExitCode::Failure, line),
        EffectError::Cgroup(_) => Failure::new(ExitCode::Config, line)
            .hint("give --cgroup a directory of the cgroup v2 tree, all or none, or leave it out"),
        EffectError::Sysctl(_) => Failure::new(ExitCode::Failure, line)
            .hint("leased ports must not lie below net.ipv4.ip_unprivileged_port_start"),
        EffectError::Path(error) => return path_failure(error),
    }
    .into()
}

/// The kernel has no devices of its own of this type.
pub(super) fn unsupported(kind: TunnelType, line: &str) -> Failure {
    let hint = match kind {
        TunnelType::Gre => "load the module (modprobe ip_gre; CONFIG_NET_IPGRE), or use --tunnel-device ebpf",
        _ => "load the module (modprobe ipip; CONFIG_NET_IPIP), or use --tunnel-device ebpf",
    };
    Failure::new(ExitCode::Missing, format!("unable to create tunnel: {line}")).hint(hint)
}

/// The same for the hooks.
pub(super) fn hooks_failure(error: &HooksError) -> anyhow::Error {
    match error {
        HooksError::Ebpf(error) => ebpf_failure(error),
        HooksError::CannotPark(_) => {
            Failure::new(ExitCode::Missing, error.to_string()).hint("use --wait auto or --wait poll").into()
        }
        HooksError::Map { .. } | HooksError::Events(_) | HooksError::Pin(_) => {
            Failure::new(ExitCode::Failure, super::describe(error)).into()
        }
    }
}

fn ebpf_failure(error: &EbpfError) -> anyhow::Error {
    let line = super::describe(error);
    // The verifier's log fills pages; the debug log has it.
    tracing::debug!(%line, "eBPF");
    let short: String = line.chars().take(300).collect();
    match error {
        EbpfError::NotBuilt | EbpfError::Missing { .. } => Failure::new(ExitCode::Missing, short),
        EbpfError::Method(_) => Failure::new(ExitCode::Usage, short),
        EbpfError::Netlink(_) => Failure::new(ExitCode::Failure, short),
        EbpfError::Load(_) | EbpfError::Program { .. } | EbpfError::Attach { .. } => {
            Failure::new(ExitCode::Missing, short).hint(
                "needs Linux 5.18 or later with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF and CONFIG_NET_CLS_BPF",
            )
        }
    }
    .into()
}

/// The same for the way to the gateway.
pub(super) fn path_failure(error: PathError) -> anyhow::Error {
    let line = super::describe(&error);
    match error {
        PathError::Netlink(NetlinkError::NoSuchInterface(_)) => {
            Failure::new(ExitCode::Config, line).hint("see `ip link` for the names")
        }
        PathError::Netlink(_) => Failure::new(ExitCode::Failure, line),
        PathError::NoRoute(_) | PathError::DeadEnd(_) => {
            Failure::new(ExitCode::Unreachable, line).hint("check --gateway, and `ip route get` for it")
        }
        PathError::OwnAddress(_) => Failure::new(ExitCode::Unreachable, line)
            .hint("give the gateway's own private address with --gateway"),
        PathError::OtherInterface { .. } => {
            Failure::new(ExitCode::Unreachable, line).hint("check --gateway and --interface")
        }
        PathError::Down(_) => {
            Failure::new(ExitCode::Failure, line).hint("bring it up first: `ip link set IF up`")
        }
    }
    .into()
}
