//! The host's own network changes: there is no way to the gateway, there is one again, or the host has another private address.
//!
//! A host is its private address (RFC 3103 section 10.6): under another one the gateway does not know it, and the registration
//! stays behind with the old one, which may have become somebody else's. So it is ended from there, if that can still be done,
//! before the host registers from its new address and asks for the same ports: until then the gateway keeps them for the
//! old one, and refuses them to everybody else.

use std::time::{Duration, Instant};

use crate::host::link::Link;
use crate::host::registration::Registration;
use crate::host::retransmit::after;
use crate::host::{Host, HostCommand, RegistrationChange};

/// The farewell takes no longer; then its outcome is not waited for.
const FAREWELL: Duration = Duration::from_secs(2);

impl Host {
    /// There is no way to the gateway: no route, no address, no interface. As if it did not answer, and known at once.
    pub fn handle_way_lost(&mut self, now: Instant) {
        match self.link {
            Link::Closed | Link::Down { .. } => return,
            Link::Connecting { .. } | Link::Up { .. } | Link::Parting { .. } => {}
        }
        self.commands.push_back(HostCommand::Disconnect);
        self.abandon_request(now);
        self.link_failed(now);
        self.pump(now);
    }

    /// There is a way to the gateway again: no reason to sit out a pause.
    pub fn handle_way_found(&mut self, now: Instant) {
        if let Link::Down { .. } = self.link {
            self.link_backoff.reset();
            self.connect(now);
            self.pump(now);
        }
    }

    /// The host's private address towards the gateway is another one than that of the transport which was opened last. What is
    /// in use stays so while the same is asked for under a new registration.
    pub fn handle_moved(&mut self, now: Instant) {
        match self.link {
            Link::Closed => return,
            Link::Connecting { .. } | Link::Up { .. } => self.commands.push_back(HostCommand::Disconnect),
            Link::Down { .. } | Link::Parting { .. } => {}
        }
        self.abandon_request(now);
        if self.leaving.is_some() {
            // Nobody answers a farewell any more; what was held ends by itself.
            self.link = Link::Closed;
            self.pump(now);
            return;
        }
        let name = match &self.registration {
            Registration::Held(held) => Some(held.client_id),
            Registration::None { stale, .. } => *stale,
        };
        self.register_backoff.reset();
        self.link_backoff.reset();
        if let Registration::Held(_) = self.registration {
            self.end_registration(None, now, now, RegistrationChange::Moved);
        } else {
            self.registration = Registration::None { stale: None, at: now };
        }
        match name {
            Some(client_id) => {
                self.link = Link::Parting { until: after(now, FAREWELL) };
                self.commands.push_back(HostCommand::Farewell(client_id));
            }
            None if matches!(self.link, Link::Parting { .. }) => {}
            None => self.connect(now),
        }
        self.pump(now);
    }

    /// The farewell that `Farewell` asked for is said, whether somebody heard it or not.
    pub fn handle_parted(&mut self, now: Instant) {
        if let Link::Parting { .. } = self.link {
            self.connect(now);
        }
    }
}
