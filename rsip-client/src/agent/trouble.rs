//! Why the start does not succeed, said so that the operator can act on it.

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use rsip_proto::wire::{ErrorCode, ParseError};
use rsip_sys::exit::{ExitCode, Failure};
use rsip_sys::netlink::NetlinkError;
use rsip_sys::tc::EbpfError;

use super::effects::EffectError;
use crate::hooks::HooksError;
use crate::transport::TransportError;
use crate::tunnel::TunnelError;
use crate::tunnel::device::DeviceError;
use crate::tunnel::path::PathError;

/// What was heard last while the gateway could not be used. What says more outweighs what says less.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    found: Option<Found>,
}

#[derive(Debug)]
enum Found {
    /// The socket says so.
    Transport(String),
    /// It closes the connection without a word.
    Closed,
    /// Something answers that does not speak RSIP.
    NotRsip(String),
    /// The gateway does not register this host.
    Refused(ErrorCode),
    /// The gateway registers this host, and gives it no ports.
    NoBlock(ErrorCode),
}

impl Trouble {
    pub(super) fn transport(&mut self, error: &TransportError) {
        match error {
            TransportError::NotRsip(frame) => self.found = Some(Found::NotRsip(frame.to_string())),
            TransportError::Closed if !self.has_spoken() => self.found = Some(Found::Closed),
            TransportError::Io(_) | TransportError::ConnectTimeout if !self.has_spoken() => {
                self.found = Some(Found::Transport(error.to_string()));
            }
            TransportError::Closed | TransportError::Io(_) | TransportError::ConnectTimeout => {}
        }
    }

    pub(super) fn garbage(&mut self, error: &ParseError) {
        if !self.has_spoken() {
            self.found = Some(Found::NotRsip(error.to_string()));
        }
    }

    pub(super) fn unreachable(&mut self, error: &io::Error) {
        if self.found.is_none() {
            self.found = Some(Found::Transport(error.to_string()));
        }
    }

    pub(super) fn refused(&mut self, error: ErrorCode) {
        self.found = Some(Found::Refused(error));
    }

    pub(super) fn no_block(&mut self, error: ErrorCode) {
        self.found = Some(Found::NoBlock(error));
    }

    pub(super) fn clear(&mut self) {
        self.found = None;
    }

    /// An RSIP gateway has said something about us.
    fn has_spoken(&self) -> bool {
        matches!(self.found, Some(Found::Refused(_) | Found::NoBlock(_) | Found::NotRsip(_)))
    }

    /// Waiting longer would change nothing.
    pub(super) const fn is_final(&self) -> bool {
        matches!(self.found, Some(Found::Refused(_) | Found::NoBlock(_) | Found::NotRsip(_)))
    }

    /// The line for the operator.
    pub(super) fn start_failure(&self, gateway: SocketAddrV4, waited: Option<Duration>) -> anyhow::Error {
        let what = format!("gateway {gateway}");
        let unreachable = |why: String, hint: &'static str| {
            Failure::new(ExitCode::Unreachable, what.clone()).why(why).hint(hint)
        };
        let seconds = waited.map_or(0.0, |waited| waited.as_secs_f32());
        match &self.found {
            None => unreachable(
                format!("no answer within {seconds} s"),
                "check --gateway and that rsipd runs there, or wait for it with --persist",
            ),
            Some(Found::Transport(why)) => unreachable(
                format!("cannot be reached: {why}"),
                "check --gateway and that rsipd runs there, or wait for it with --persist",
            ),
            Some(Found::Closed) => unreachable(
                "closes the connection without an answer".to_owned(),
                "check that an RSIP gateway listens on that port, and that it serves this interface",
            ),
            Some(Found::NotRsip(why)) => unreachable(
                format!("what answers there is not RSIP: {why}"),
                "check address and port of --gateway (RSIP's port is 4555)",
            ),
            Some(Found::Refused(error)) => Failure::new(ExitCode::Refused, what)
                .why(format!("refuses the registration: {error}"))
                .hint("see the gateway's log; MAX_CLIENTS and its access rules decide"),
            Some(Found::NoBlock(error)) => Failure::new(ExitCode::Refused, what)
                .why(format!("leases no ephemeral ports: {error}"))
                .hint("ask for fewer with --block, or widen PORT_RANGE at the gateway"),
        }
        .into()
    }
}

/// The exit code and the hint for what this host cannot do.
pub fn failure(error: EffectError) -> anyhow::Error {
    let line = super::describe(&error);
    match error {
        EffectError::TunnelType(_) | EffectError::OtherAddress { .. } | EffectError::AddressTaken(_) => {
            Failure::new(ExitCode::Refused, "lease").why(line).hint("see the gateway's POOL and TUNNEL")
        }
        EffectError::Hooks(error) => return hooks_failure(&error),
        EffectError::Tunnel(TunnelError::Device(DeviceError::Foreign)) => {
            Failure::new(ExitCode::Failure, line).hint("rename or remove it")
        }
        EffectError::Tunnel(TunnelError::Device(DeviceError::Open(_) | DeviceError::Create(_))) => {
            Failure::new(ExitCode::Missing, line)
                .hint("the kernel needs CONFIG_TUN, and /dev/net/tun must exist")
        }
        EffectError::Tunnel(TunnelError::Ebpf(error)) => return ebpf_failure(&error),
        EffectError::Tunnel(TunnelError::Netlink(_) | TunnelError::Device(DeviceError::Netlink(_)))
        | EffectError::Netlink(_)
        | EffectError::State(_) => Failure::new(ExitCode::Failure, line),
        EffectError::Sysctl(_) => Failure::new(ExitCode::Failure, line)
            .hint("leased ports must not lie below net.ipv4.ip_unprivileged_port_start"),
        EffectError::Path(error) => return path_failure(error),
    }
    .into()
}

/// The same for the hooks.
pub(super) fn hooks_failure(error: &HooksError) -> anyhow::Error {
    match error {
        HooksError::Ebpf(error) => ebpf_failure(error),
        HooksError::CannotPark(_) => {
            Failure::new(ExitCode::Missing, error.to_string()).hint("use --wait auto or --wait poll").into()
        }
        HooksError::Map { .. } | HooksError::Events(_) => {
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
