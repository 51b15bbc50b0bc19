//! What the host's state machine asks its shell to do.

use std::net::Ipv4Addr;

use crate::host::Method;
use crate::ids::{BindId, ClientId, OpId};
use crate::lease::{Leased, Remote};
use crate::wire::{ErrorCode, Message, TunnelType};

/// What a binding is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BindingKind {
    /// RSA-IP: a whole address, with every port of it.
    Address,
    /// RSAP ports for the kernel's own choice.
    Block,
    /// LISTEN on one port because a program bound it.
    Listen,
    /// LISTEN on one port because the administrator asked (`rsip-client listen`): kept until told otherwise.
    StaticListen,
}

/// A binding that the gateway granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostBinding {
    /// What it is for.
    pub kind: BindingKind,
    /// The host's name at the gateway.
    pub client_id: ClientId,
    /// The binding's name.
    pub bind_id: BindId,
    /// The leased public address.
    pub address: Ipv4Addr,
    /// What of it is leased.
    pub leased: Leased,
    /// With whom it may be used.
    pub remote: Remote,
    /// How packets travel.
    pub tunnel: TunnelType,
    /// The tunnel's far end where it is not the gateway.
    pub tunnel_endpoint: Option<Ipv4Addr>,
}

/// Why nothing can be leased although the gateway registers this host: what it demands or offers does not fit the host's
/// settings. Asked again from time to time: the gateway's configuration may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The gateway does not offer this method.
    #[error("the gateway does not offer {0}")]
    Method(Method),
    /// RSA-IP works with the local macro-flow policy only (RFC 3103 section 7.1).
    #[error("the gateway's local micro-flow policy rules out RSA-IP")]
    LocalMicro,
    /// The gateway offers no tunnel type that this host has.
    #[error("the gateway offers no tunnel type that this host has")]
    Tunnel,
    /// Remote macro-flow policy (RFC 3103 section 7.2), and [`super::HostConfig::remote`] names no address.
    #[error("the gateway's remote macro-flow policy wants the peer's address to be named")]
    RemoteAddress,
    /// Remote micro-flow policy (RFC 3103 section 7.2), and [`super::HostConfig::remote`] names no address and port.
    #[error("the gateway's remote micro-flow policy wants the peer's address and port to be named")]
    RemotePort,
}

/// Why a program's bind is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DenyReason {
    /// The gateway said no.
    Gateway(ErrorCode),
    /// The gateway's terms do not fit this host's settings; nothing was asked.
    Mismatch(Mismatch),
    /// The gateway is known to be out of reach; nothing was asked.
    Unreachable,
    /// No answer came in time.
    Timeout,
    /// The lease came, but this host could not take it into use.
    InstallFailed,
}

/// Why a binding is taken out of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithdrawReason {
    /// We gave it back.
    Freed,
    /// Its lease ended.
    Expired,
    /// The gateway took it back (FREE_RESPONSE). A program's port is not asked for again on its own; blocks, whole
    /// addresses and the administrator's ports are, after a pause.
    Revoked,
    /// The gateway ended the registration (DE-REGISTER_RESPONSE). The same is asked for again under the next one, and
    /// comes back by `Publish`, without a `Verdict`.
    Deregistered,
    /// The gateway lost it (restart), or this host left it behind with another private address, and it was not given again in
    /// time.
    Lost,
    /// The same, and the gateway said why it does not give it again.
    Refused(ErrorCode),
    /// The same, and the gateway leases another public address now.
    OtherAddress(Ipv4Addr),
    /// The agent ends.
    Shutdown,
}

/// What the shell must do. In the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostCommand {
    /// Open the transport to the gateway, then call `handle_transport_up` or `handle_transport_down`.
    Connect,
    /// Close the transport.
    Disconnect,
    /// End this registration from the private address that it belongs to, over a way of its own, as far as that is still
    /// possible; the transport is closed. Then call `handle_parted`.
    Farewell(ClientId),
    /// Send this message (also a retransmission: the same value again).
    Send(Message),
    /// Take a new binding into use (address, tunnel, port range, verdicts), then call `handle_done(op, …)`.
    Publish {
        /// To be given back.
        op: OpId,
        /// What was granted.
        binding: HostBinding,
    },
    /// A binding that is in use got a new name (the gateway restarted, the same ports were granted again). No answer.
    Renamed {
        /// Its old name.
        old: (ClientId, BindId),
        /// The binding with its new name.
        binding: HostBinding,
    },
    /// Take this binding out of use. No answer.
    Withdraw {
        /// Which.
        binding: HostBinding,
        /// Why.
        reason: WithdrawReason,
    },
    /// Tell whoever waits for this port. `Ok`: granted and in use (given after `handle_done(Ok)`).
    Verdict {
        /// The port that was wanted.
        port: u16,
        /// Granted, or why not.
        outcome: Result<(), DenyReason>,
    },
    /// The networks, and single addresses as networks of 32 bits, that the gateway calls local (QUERY, RFC 3103 section
    /// 9.14): to be reached directly, not through the tunnel. Given when the answer differs from the last one, in
    /// ascending order; the first comes before the first `Publish`.
    Local(Vec<(Ipv4Addr, u8)>),
    /// The registration changed; for the log and the status.
    Registration(RegistrationChange),
    /// `shutdown` is done: nothing is registered any more, or nobody answers.
    Stopped,
}

/// What became of the registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegistrationChange {
    /// Registered, under this name.
    Registered(ClientId),
    /// The gateway refused.
    Refused(ErrorCode),
    /// The gateway's terms do not fit this host's settings: de-registered, and tried again from time to time.
    Unsuitable(Mismatch),
    /// No answer, or the transport failed.
    Unreachable,
    /// The gateway forgot us, or the lease ended; we register again.
    Lost,
    /// The host has another private address, under which the gateway does not know it; we register again.
    Moved,
}

/// The shell could not take a binding into use; nothing of it remains. Why is the shell's to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the binding could not be taken into use")]
pub struct InstallFailed;
