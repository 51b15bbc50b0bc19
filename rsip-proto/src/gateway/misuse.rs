//! Data that a host may not send: what it is told (RFC 3103 section 10.4).
//!
//! The data path drops such packets by itself and reports them; whether the host hears of it is decided here. It can send
//! as many as it likes, so of each kind it is told once in a second.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::{Event, Gateway, GatewayCommand};
use crate::wire::{Body, ErrorCode};

/// How long a host that was told of a kind of misuse is not told of it again.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// What is wrong with a packet that came out of a host's tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Misuse {
    /// Its source address is not leased to the host: 312 LOCAL_ADDR_UNALLOWED.
    LocalAddress,
    /// Its source address is, but not with this port: 313 LOCAL_ADDRPORT_UNALLOWED.
    LocalPort,
    /// Its destination address is not the one that the lease is for: 314 REMOTE_ADDR_UNALLOWED.
    RemoteAddress,
    /// Its destination port is not the one that the lease is for: 315 REMOTE_ADDRPORT_UNALLOWED.
    RemotePort,
    /// It came through a tunnel of another type than the lease's: 307 BAD_TUNNEL_TYPE.
    Tunnel,
}

impl Misuse {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::LocalAddress, Self::LocalPort, Self::RemoteAddress, Self::RemotePort, Self::Tunnel];

    /// What the host is told.
    #[must_use]
    pub const fn error_code(self) -> ErrorCode {
        match self {
            Self::LocalAddress => ErrorCode::LocalAddrUnallowed,
            Self::LocalPort => ErrorCode::LocalAddrportUnallowed,
            Self::RemoteAddress => ErrorCode::RemoteAddrUnallowed,
            Self::RemotePort => ErrorCode::RemoteAddrportUnallowed,
            Self::Tunnel => ErrorCode::BadTunnelType,
        }
    }
}

/// When one host may be told of which kind again.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    last: [Option<Instant>; Misuse::ALL.len()],
}

impl Told {
    /// Whether the host is to be told now; if so, it counts as told.
    fn is_due(&mut self, misuse: Misuse, now: Instant) -> bool {
        let last = &mut self.last[misuse as usize];
        let due = last.is_none_or(|last| now.saturating_duration_since(last) >= QUIET);
        if due {
            *last = Some(now);
        }
        due
    }
}

impl Gateway {
    /// The data path dropped a packet of this host. A registered host is told (ERROR_RESPONSE, counter 0, with its client
    /// ID), at most once in a second for each kind; for others nothing is done: the sender's address may be anybody's.
    pub fn handle_misuse(&mut self, host: Ipv4Addr, misuse: Misuse, now: Instant) {
        self.expire(now);
        let Some(client) = self.clients.of_host_mut(host) else { return };
        if !client.told.is_due(misuse, now) {
            return;
        }
        let client_id = client.id;
        let error = misuse.error_code();
        self.notify(client_id, Body::ErrorResponse { error, client_id: Some(client_id), bind_id: None });
        self.commands.push_back(GatewayCommand::Event(Event::Misused { client_id, host, misuse }));
    }
}
