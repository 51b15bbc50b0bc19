//! The transport to the gateway: opening it, losing it, and knowing that nobody answers.

use std::time::Instant;

use crate::host::binding::{Fate, State};
use crate::host::requests::{Outstanding, Purpose, client_of, creates_binding};
use crate::host::retransmit::{Due, after};
use crate::host::{DenyReason, Host, HostCommand, HostTransport, RegistrationChange};

/// The transport.
#[derive(Clone, Copy, Debug)]
pub(super) enum Link {
    /// Not started, or ended.
    Closed,
    /// The shell is opening it.
    Connecting {
        /// How long it may take.
        until: Instant,
    },
    /// Closed, while the shell ends a registration from an address that is ours no more.
    Parting {
        /// How long it may take.
        until: Instant,
    },
    /// Open.
    Up {
        /// The gateway said something over it.
        heard: bool,
    },
    /// Could not be opened, or was of no use.
    Down {
        /// When it is tried again.
        retry_at: Instant,
    },
}

impl Host {
    /// The transport that `Connect` asked for is open.
    pub fn handle_transport_up(&mut self, now: Instant) {
        if !matches!(self.link, Link::Connecting { .. }) {
            return;
        }
        self.link = Link::Up { heard: false };
        if self.doubt {
            self.lose_registration(true, now);
        }
        self.probe_now = true;
        self.pump(now);
    }

    /// The transport could not be opened, or was lost. For UDP an error that passes (ICMP port unreachable) is none:
    /// the retransmission takes care of it.
    pub fn handle_transport_down(&mut self, now: Instant) {
        match self.link {
            Link::Closed | Link::Down { .. } | Link::Parting { .. } => return,
            Link::Connecting { .. } => self.link_failed(now),
            Link::Up { heard } => {
                self.abandon_request(now);
                if self.leaving.is_some() {
                    self.link = Link::Closed;
                } else if heard {
                    self.connect(now);
                } else {
                    // Opened and closed without a word: trying again at once would be a loop that never rests.
                    self.link_failed(now);
                }
            }
        }
        self.pump(now);
    }

    pub(super) fn connect(&mut self, now: Instant) {
        self.link = Link::Connecting { until: after(now, self.config.request_timeout) };
        self.commands.push_back(HostCommand::Connect);
    }

    pub(super) const fn link_is_up(&self) -> bool {
        matches!(self.link, Link::Up { .. })
    }

    /// The gateway said something that was meant for us.
    pub(super) fn heard(&mut self, now: Instant) {
        if let Link::Up { heard } = &mut self.link {
            *heard = true;
        }
        self.heard_at = now;
        self.unreachable = false;
        self.link_backoff.reset();
    }

    pub(super) fn link_deadline(&self) -> Option<Instant> {
        match self.link {
            Link::Closed | Link::Up { .. } => None,
            Link::Connecting { until } | Link::Parting { until } => Some(until),
            Link::Down { retry_at } => Some(retry_at),
        }
    }

    pub(super) fn link_timeout(&mut self, now: Instant) {
        match self.link {
            Link::Connecting { until } if until <= now => {
                self.commands.push_back(HostCommand::Disconnect);
                self.link_failed(now);
            }
            Link::Down { retry_at: at } | Link::Parting { until: at } if at <= now => self.connect(now),
            Link::Closed
            | Link::Connecting { .. }
            | Link::Parting { .. }
            | Link::Down { .. }
            | Link::Up { .. } => {}
        }
    }

    pub(super) fn request_timeout(&mut self, now: Instant) {
        let Some(outstanding) = &mut self.outstanding else { return };
        match outstanding.clock.poll(now) {
            Due::Nothing => {}
            Due::Resend => self.commands.push_back(HostCommand::Send(outstanding.message.clone())),
            Due::Failed => match self.config.transport {
                HostTransport::Udp => {
                    let pause = self.link_backoff.pause();
                    outstanding.clock.park(after(now, pause));
                    self.nobody_answers(now);
                }
                HostTransport::Tcp => {
                    self.commands.push_back(HostCommand::Disconnect);
                    self.nobody_answers(now);
                    self.abandon_request(now);
                    self.link_down(now);
                }
            },
        }
    }

    pub(super) fn link_failed(&mut self, now: Instant) {
        self.nobody_answers(now);
        self.link_down(now);
    }

    fn link_down(&mut self, now: Instant) {
        self.link = if self.leaving.is_some() {
            Link::Closed
        } else {
            Link::Down { retry_at: after(now, self.link_backoff.pause()) }
        };
    }

    /// The gateway is out of reach. Who waits is told at once; bindings live until their leases end.
    fn nobody_answers(&mut self, now: Instant) {
        self.unreachable = true;
        if self.leaving.is_some() {
            return;
        }
        self.commands.push_back(HostCommand::Registration(RegistrationChange::Unreachable));
        for id in self.table.ids() {
            // One that the shell is taking into use needs nothing more from the gateway.
            let installing = self
                .table
                .get(id)
                .is_some_and(|slot| matches!(slot.state, State::Installing { fate: Fate::Use, .. }));
            let served = installing || self.address_is_coming();
            if !served {
                let reason =
                    if self.is_outstanding(id) { DenyReason::Timeout } else { DenyReason::Unreachable };
                self.deny(id, reason);
                self.settle(id, now);
            }
        }
    }

    /// The outstanding request will never be answered: its transport is gone.
    ///
    /// Whether the gateway carried out one that creates a binding cannot be asked, and what is still under way may reach
    /// it even later. So both sides begin anew: under the new name nothing old counts, and the ports in use are asked for
    /// again.
    pub(super) fn abandon_request(&mut self, now: Instant) {
        let Some(Outstanding { message, purpose, .. }) = self.outstanding.take() else { return };
        if let Purpose::Slot(id) = purpose {
            let ours = client_of(&message.body) == self.client_id();
            self.doubt |= ours && creates_binding(&message.body);
            self.settle(id, now);
            self.enqueue(id, now);
        }
    }
}
