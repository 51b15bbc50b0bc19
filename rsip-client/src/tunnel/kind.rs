//! `--tunnel` and `--tunnel-device`: which type of tunnel is asked for, and what it is made of.

use clap::ValueEnum;
use rsip_proto::wire::TunnelType;

/// `--tunnel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TunnelKind {
    /// IP within IP (RFC 2003); takes 20 octets of each packet.
    IpIp,
    /// Generic routing encapsulation (RFC 2784); takes 24.
    Gre,
}

impl From<TunnelKind> for TunnelType {
    fn from(kind: TunnelKind) -> Self {
        match kind {
            TunnelKind::IpIp => Self::IpIp,
            TunnelKind::Gre => Self::Gre,
        }
    }
}

/// `--tunnel-device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceKind {
    /// As `ebpf`.
    Auto,
    /// A tun device, and programs that carry the packets.
    Ebpf,
    /// A device of the kernel's own, ipip or gre, where it has them. With --no-hooks no eBPF is used at all.
    Kernel,
}
