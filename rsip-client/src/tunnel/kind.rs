//! `--tunnel`: which type of tunnel is asked for.

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
