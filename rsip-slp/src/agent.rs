//! What both agents share with their shells: who said something, what is to be sent, and the times of RFC 2608.

use std::net::SocketAddrV4;
use std::time::Duration;

/// Whence a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The other end.
    pub address: SocketAddrV4,
    /// On which way.
    pub via: Via,
}

/// On which way a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// A datagram to an address of this host.
    Datagram,
    /// A datagram to the multicast group or to a broadcast address.
    Group,
    /// A connection that this end opened, for [`Command::Connect`].
    Opened,
    /// A connection that the other end opened, by a number that the shell chose.
    Accepted(u64),
}

/// What the shell is to do. Sending may fail silently, as datagrams may be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send a datagram to [`crate::wire::GROUP`], port [`crate::wire::PORT`].
    Multicast {
        /// The message.
        bytes: Vec<u8>,
    },
    /// Send a datagram.
    Datagram {
        /// To whom.
        to: SocketAddrV4,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Open a connection and send the message; hand in what comes back as from [`Via::Opened`], and call
    /// `handle_failure` when the connection cannot be opened, or ends or breaks before an answer came.
    Connect {
        /// To whom.
        to: SocketAddrV4,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Send on a connection that the other end opened.
    Answer {
        /// Its number.
        connection: u64,
        /// The message.
        bytes: Vec<u8>,
    },
}

/// The times of RFC 2608 section 13.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// CONFIG_START_WAIT: the first search for directory agents waits a random time up to this.
    pub start_wait: Duration,
    /// CONFIG_RETRY: before the first retransmission; doubled each time.
    pub retry: Duration,
    /// CONFIG_RETRY_MAX: a unicast request is given up after this.
    pub retry_max: Duration,
    /// CONFIG_MC_MAX: a multicast request ends after this.
    pub multicast_max: Duration,
    /// CONFIG_DA_FIND: between two searches for directory agents, at least.
    pub da_find: Duration,
    /// CONFIG_REG_ACTIVE: registering with a directory agent that was searched waits a random time up to this.
    pub reg_active: Duration,
    /// CONFIG_REG_PASSIVE: the same for one that introduced itself.
    pub reg_passive: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            start_wait: Duration::from_secs(3),
            retry: Duration::from_secs(2),
            retry_max: Duration::from_secs(15),
            multicast_max: Duration::from_secs(15),
            da_find: Duration::from_secs(900),
            reg_active: Duration::from_secs(3),
            reg_passive: Duration::from_secs(3),
        }
    }
}

/// CONFIG_CLOSE_CONN: an accepted connection without traffic is closed after this.
pub const CLOSE_IDLE: Duration = Duration::from_secs(300);

/// The service type of directory agents.
pub(crate) const DIRECTORY_AGENT: &str = "service:directory-agent";
/// The service type of service agents.
pub(crate) const SERVICE_AGENT: &str = "service:service-agent";
