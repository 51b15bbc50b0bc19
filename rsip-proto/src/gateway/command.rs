//! What the gateway's state machine asks its shell to do, and what it tells.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::Misuse;
use crate::ids::{BindId, ClientId, OpId};
use crate::lease::{Leased, Remote};
use crate::wire::{ErrorCode, Message, TunnelType};

/// How a message came, and how its answer goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// One message a datagram.
    Udp,
    /// A connection, numbered by the shell; a number is never used again.
    Tcp(u64),
}

/// The other end of a message. A host is known by the address alone (RFC 3103 section 10.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Peer {
    /// The host's private address and port.
    pub address: SocketAddrV4,
    /// The way the message came.
    pub transport: Transport,
}

/// The data path could not do what a command asked. Why is the shell's to log; the machine only needs to know that it
/// did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstallFailed;

/// What the data path has to hold for one binding: packets from `remote` to what is `leased` of `address` go to `host`
/// through `tunnel`, and `host` may send from there to `remote`. Neutral of the back end; leases end by `Remove`, not by a time in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whose binding.
    pub client_id: ClientId,
    /// Which binding of that client.
    pub bind_id: BindId,
    /// The host's private address: the tunnel's far end.
    pub host: Ipv4Addr,
    /// The leased public address.
    pub address: Ipv4Addr,
    /// What of it is leased.
    pub leased: Leased,
    /// With whom it may be used.
    pub remote: Remote,
    /// How packets travel to the host.
    pub tunnel: TunnelType,
}

/// Why a binding or a registration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemovalReason {
    /// The host gave it back.
    Freed,
    /// Its lease ended.
    Expired,
    /// The host left, and this with it.
    DeRegistered,
    /// The administrator or the daemon's end took it back.
    Revoked,
    /// The data path could not hold it.
    InstallFailed,
}

/// What the shell must do. In the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayCommand {
    /// Send this message. Encoding is the shell's work; a peer that is gone is not an error.
    Send {
        /// Where to.
        to: Peer,
        /// What.
        message: Message,
    },
    /// Make the data path hold this rule, then call `handle_done(op, …)`.
    Install {
        /// To be given back.
        op: OpId,
        /// What to hold.
        rule: Rule,
    },
    /// Make the data path forget this rule, then call `handle_done(op, …)`. Until then its ports stay taken.
    Remove {
        /// To be given back.
        op: OpId,
        /// What to forget.
        rule: Rule,
    },
    /// Close this TCP connection, once what was sent to it is out.
    Close {
        /// Which.
        peer: Peer,
    },
    /// For the log, the audit trail and the counters.
    Event(Event),
}

/// What happened, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A host registered.
    Registered {
        /// Its name here.
        client_id: ClientId,
        /// Its private address.
        host: Ipv4Addr,
    },
    /// A registration ended.
    Unregistered {
        /// Whose.
        client_id: ClientId,
        /// Its private address.
        host: Ipv4Addr,
        /// Why.
        reason: RemovalReason,
    },
    /// A binding holds in the data path and was answered.
    Bound {
        /// What was leased.
        rule: Rule,
        /// Lease in seconds.
        lease_time: u32,
        /// LISTEN (true) or ASSIGN (false).
        listen: bool,
    },
    /// A binding's lease was extended.
    Extended {
        /// Whose.
        client_id: ClientId,
        /// Which.
        bind_id: BindId,
        /// Lease in seconds from now.
        lease_time: u32,
    },
    /// A binding that was announced as [`Event::Bound`] ended; or, with [`RemovalReason::InstallFailed`], one that never
    /// came to hold.
    Unbound {
        /// What was leased.
        rule: Rule,
        /// Why.
        reason: RemovalReason,
    },
    /// The data path could not forget a rule. It is asked again after a while; until then the ports stay taken.
    Stuck {
        /// What is still held.
        rule: Rule,
    },
    /// The machine contradicts itself. Never happens; if it does, no port has two holders, but some may be lost.
    Fault {
        /// How.
        detail: String,
    },
    /// A host sent data that it may not send (RFC 3103 section 10.4), and was told so. The data path has dropped it.
    Misused {
        /// Whose data.
        client_id: ClientId,
        /// Its private address.
        host: Ipv4Addr,
        /// What was wrong.
        misuse: Misuse,
    },
    /// A request was refused or could not be understood.
    Refused {
        /// Who asked.
        peer: Peer,
        /// What was answered.
        error: ErrorCode,
        /// In which words, for the log.
        detail: String,
    },
}
