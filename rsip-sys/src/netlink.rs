//! rtnetlink in the few words that the daemons need: interfaces, addresses, routes and rules of IPv4.
//!
//! Everything happens in the network namespace of the thread that called [`Netlink::open`].

mod link;
mod route;
mod rule;

pub use link::{InterfaceAddress, Link};
pub use route::{MAIN_TABLE, Route, RouteKind};
pub use rule::{Prefix, Rule};

use std::io;

use futures_util::StreamExt;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{Handle, MulticastGroup};
use tokio::task::JoinHandle;

/// What the kernel would not do.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No netlink socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(io::Error),
    /// No such interface in this network namespace.
    #[error("interface {0} does not exist in this network namespace")]
    NoSuchInterface(String),
    /// The kernel refused.
    #[error("cannot {action}: {source}")]
    Refused {
        /// What was to be done, with its object.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The exchange itself failed.
    #[error("cannot {action}: {source}")]
    Exchange {
        /// What was to be done, with its object.
        action: String,
        /// What went wrong.
        source: Box<rtnetlink::Error>,
    },
}

impl NetlinkError {
    /// The kernel's error number, where it gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Open(source) | Self::Refused { source, .. } => source.raw_os_error(),
            Self::NoSuchInterface(_) => Some(libc::ENODEV),
            Self::Exchange { .. } => None,
        }
    }

    /// The object was there already.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(libc::EEXIST)
    }

    /// The object was not there.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self.errno(), Some(libc::ENOENT | libc::ESRCH | libc::ENODEV | libc::EADDRNOTAVAIL))
    }

    pub(crate) fn new(action: String, error: rtnetlink::Error) -> Self {
        match error {
            rtnetlink::Error::NetlinkError(message) => Self::Refused { action, source: message.to_io() },
            other => Self::Exchange { action, source: Box::new(other) },
        }
    }
}

/// A netlink socket with the task that serves it; the task ends with the value.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    server: JoinHandle<()>,
}

impl Netlink {
    /// Opens a socket in the calling thread's network namespace. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// The kernel gives no socket.
    pub fn open() -> Result<Self, NetlinkError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(NetlinkError::Open)?;
        Ok(Self { handle, server: tokio::spawn(connection) })
    }

    /// rtnetlink's own handle, for what is not wrapped here.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Tells that interfaces, addresses, routes or rules changed; what changed is to be looked up.
#[derive(Debug)]
pub struct Watch {
    messages: Box<dyn Messages>,
    server: JoinHandle<()>,
}

trait Messages: std::fmt::Debug + Send {
    fn poll_changed(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<bool>>;
}

impl<T> Messages for T
where
    T: futures_util::Stream<
            Item = (rtnetlink::packet_core::NetlinkMessage<RouteNetlinkMessage>, rtnetlink::sys::SocketAddr),
        > + Unpin
        + std::fmt::Debug
        + Send,
{
    fn poll_changed(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<bool>> {
        self.poll_next_unpin(cx).map(|item| {
            // An overrun means that something was missed: look.
            item.map(|(message, _)| {
                matches!(message.payload, NetlinkPayload::InnerMessage(_) | NetlinkPayload::Overrun(_))
            })
        })
    }
}

impl Watch {
    /// Starts to watch the calling thread's network namespace. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// The kernel gives no socket.
    pub fn open() -> Result<Self, NetlinkError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Rule,
        ];
        let (connection, _, messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(NetlinkError::Open)?;
        Ok(Self { messages: Box::new(messages), server: tokio::spawn(connection) })
    }

    /// Returns after at least one change; `false`: the socket is gone and nothing will be told any more. Cancel safe.
    pub async fn changed(&mut self) -> bool {
        loop {
            match std::future::poll_fn(|cx| self.messages.poll_changed(cx)).await {
                Some(true) => return true,
                Some(false) => {}
                None => return false,
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[cfg(test)]
mod tests;
