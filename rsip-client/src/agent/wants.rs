//! Who waits for which port, and what becomes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rsip_proto::host::{BindingKind, DenyReason, HostBinding};

use super::{Agent, Stage, describe};
use crate::hooks::PortTable as _;

/// A port that a program serves without a lease is asked for again after this.
const SEEK_INTERVAL: Duration = Duration::from_secs(30);
/// The first time sooner: often it is this host's own old registration that holds it.
const SEEK_SOON: Duration = Duration::from_secs(1);
/// A bind that passed without a lease (`--on-timeout allow`) does so for this long; then the next one asks.
const PASS_TIME: Duration = Duration::from_secs(1);

/// Ports that are asked for.
#[derive(Debug, Default)]
pub(super) struct Wants {
    /// Asked of the state machine, no verdict yet.
    asked: BTreeSet<u16>,
    /// Served by a program without a lease, to be asked for at that time: bound before the agent came back, or lost to
    /// another host.
    sought: BTreeMap<u16, Sought>,
    /// Passing without a lease, until then.
    passing: BTreeMap<u16, Instant>,
}

/// When a port is asked for again.
#[derive(Clone, Copy, Debug)]
struct Sought {
    at: Instant,
    /// After the next refusal: longer and longer.
    pause: Duration,
}

impl Wants {
    /// A program serves this port without a lease.
    pub(super) fn seek(&mut self, port: u16, at: Instant) {
        self.sought.insert(port, Sought { at, pause: SEEK_SOON });
    }

    /// The gateway is back: whatever programs serve without a lease is asked for with the next look.
    pub(super) fn seek_all(&mut self, now: Instant) {
        self.sought.values_mut().for_each(|sought| *sought = Sought { at: now, pause: SEEK_SOON });
    }

    /// Whether somebody waits for the answer about a port.
    pub(super) fn waits_for(&self, port: u16) -> bool {
        self.asked.contains(&port)
    }

    /// Ports that are asked for now.
    pub(super) fn asked(&self) -> impl Iterator<Item = u16> + '_ {
        self.asked.iter().copied()
    }
}

impl Agent {
    /// A program waits for a port.
    pub(super) fn want(&mut self, port: u16, now: Instant) {
        if let Stage::Stopping { .. } = self.stage {
            return;
        }
        if self.take_back(port) {
            self.settle(port, Ok(()));
            return;
        }
        let held = self.effects.book.holder(port).is_some();
        // Held, and only being closed for want of use.
        if held && self.usage.wanted(port, now) {
            self.settle(port, Ok(()));
            return;
        }
        if self.effects.book.ignores(port) {
            let outcome = self.effects.book.pass(&mut self.effects.hooks, port);
            self.settle(port, outcome);
            return;
        }
        if !held && !self.wants.sought.contains_key(&port) && self.is_served_from_before(port) {
            tracing::info!(port, "refused: a program that was there before the agent serves it privately");
            let outcome = self.effects.book.deny(&mut self.effects.hooks, port);
            self.settle(port, outcome);
            return;
        }
        if self.wants.asked.insert(port) {
            self.host.want_port(port, now);
        }
    }

    /// The state machine's word on a port: for programs and for callers of `listen`.
    pub(super) fn verdict(&mut self, port: u16, outcome: Result<(), DenyReason>, now: Instant) {
        let asked = self.wants.asked.remove(&port);
        match outcome {
            Ok(()) => {
                self.wants.sought.remove(&port);
                self.wants.passing.remove(&port);
                self.settle(port, Ok(()));
                let listens = |b: &HostBinding| b.kind == BindingKind::Listen;
                if self.effects.book.holder(port).is_some_and(listens) && !self.usage.wanted(port, now) {
                    // It was about to be given back.
                    self.usage.track(port, now);
                }
                let address = self.effects.book.public();
                self.listeners.granted(port, address);
            }
            Err(reason) => {
                let why = deny_text(reason);
                if asked {
                    tracing::info!(port, why, "refused");
                    self.refuse(port, reason, now);
                }
                if let Some(sought) = self.wants.sought.get_mut(&port) {
                    sought.at = now + sought.pause;
                    sought.pause = (sought.pause * 2).min(SEEK_INTERVAL);
                }
                self.listeners.refused(port, &why);
            }
        }
    }

    fn refuse(&mut self, port: u16, reason: DenyReason, now: Instant) {
        let no_answer = matches!(reason, DenyReason::Unreachable | DenyReason::Timeout);
        let outcome = if self.effects.book.holds(port) {
            // Held for somebody else here, and what was refused is a thing of the moment.
            self.effects.book.open(&mut self.effects.hooks, [port])
        } else if no_answer && self.settings.allow_on_timeout {
            self.wants.passing.insert(port, now + PASS_TIME);
            self.wants.seek(port, now + SEEK_INTERVAL.min(PASS_TIME * 2));
            self.effects.book.pass(&mut self.effects.hooks, port)
        } else {
            self.effects.book.deny(&mut self.effects.hooks, port)
        };
        if let Err(error) = outcome {
            tracing::error!(port, error = %describe(&error), "the refusal is not written");
        }
        self.answered(port);
    }

    /// The verdict is known: write it where it is not written yet, and let those who wait find it.
    fn settle(&mut self, port: u16, written: Result<(), crate::hooks::HooksError>) {
        let outcome = written.and_then(|()| {
            if self.effects.book.holder(port).is_some() {
                self.effects.book.open(&mut self.effects.hooks, [port])?;
            }
            Ok(())
        });
        if let Err(error) = outcome {
            tracing::error!(port, error = %describe(&error), "the verdict is not written");
        }
        self.answered(port);
    }

    fn answered(&mut self, port: u16) {
        if let Err(error) = self.effects.hooks.answered(port) {
            tracing::error!(port, error = %describe(&error), "a waiting program is not answered");
        }
    }

    /// What no event told: waiting programs whose event was lost; ports that passed for a while; ports that programs
    /// serve without a lease.
    pub(super) fn look_for_the_untold(&mut self, now: Instant) {
        if !self.effects.is_active() {
            return;
        }
        match self.effects.hooks.waiting() {
            Ok(ports) => {
                for port in ports {
                    self.want(port, now);
                }
            }
            Err(error) => tracing::error!(error = %describe(&error), "cannot see who waits"),
        }
        let over: Vec<u16> =
            self.wants.passing.iter().filter(|(_, at)| **at <= now).map(|(port, _)| *port).collect();
        for port in over {
            self.wants.passing.remove(&port);
            if let Err(error) = self.effects.book.close(&mut self.effects.hooks, [port]) {
                tracing::error!(port, error = %describe(&error), "the port table is not written");
            }
        }
        let due: Vec<u16> =
            self.wants.sought.iter().filter(|(_, sought)| sought.at <= now).map(|(port, _)| *port).collect();
        if due.is_empty() {
            return;
        }
        let served = self.served_ports();
        for port in due {
            if served.contains(&port) && !self.effects.book.holds(port) {
                self.wants.sought.entry(port).and_modify(|sought| sought.at = now + SEEK_INTERVAL);
                self.want(port, now);
            } else {
                self.wants.sought.remove(&port);
            }
        }
    }

    /// After a crash: programs went on, and some may have bound ports while nobody looked.
    pub(super) fn adopt(&mut self, now: Instant) {
        if self.effects.book.is_whole() || !self.effects.hooks.are_on() {
            return;
        }
        let before = &self.effects.state.served_before;
        let view = self.host.view(now);
        let resumed: BTreeSet<u16> =
            view.bindings.iter().flat_map(|view| view.binding.leased.iter()).collect();
        let strangers: Vec<u16> = self
            .served_ports()
            .into_iter()
            .filter(|port| !before.contains(port) && !resumed.contains(port))
            .filter(|port| !self.effects.book.ignores(*port))
            .collect();
        for port in strangers {
            tracing::info!(port, "adopting what was bound while no agent ran");
            self.wants.seek(port, now);
        }
        self.tick = now;
    }

    fn served_ports(&self) -> BTreeSet<u16> {
        // While nothing is leased: at the address that was leased last, or at all.
        let public = self.effects.book.public().or(self.public).unwrap_or(Ipv4Addr::UNSPECIFIED);
        self.effects.socket_list().map(|sockets| sockets.servers(public).collect()).unwrap_or_default()
    }

    /// Whether a program that was there before the agent still serves the port, without a lease: nobody may lay it open by
    /// asking for the port, whatever the kernel would say to the bind.
    fn is_served_from_before(&mut self, port: u16) -> bool {
        if !self.effects.state.served_before.contains(&port) {
            return false;
        }
        let Some(sockets) = self.effects.socket_list() else { return false };
        let public = self.effects.book.public().unwrap_or(Ipv4Addr::UNSPECIFIED);
        let mut servers = sockets.servers_of(public, port);
        let still = servers.any(|socket| !self.effects.hooks.counts(socket.cookie));
        if !still {
            self.effects.state.served_before.retain(|before| *before != port);
        }
        still
    }
}

/// A refusal, for people.
pub(super) fn deny_text(reason: DenyReason) -> String {
    match reason {
        DenyReason::Gateway(error) => error.to_string(),
        DenyReason::Mismatch(mismatch) => mismatch.to_string(),
        DenyReason::Unreachable => "the gateway cannot be reached".to_owned(),
        DenyReason::Timeout => "the gateway did not answer in time".to_owned(),
        DenyReason::InstallFailed => "the lease could not be taken into use on this host".to_owned(),
    }
}
