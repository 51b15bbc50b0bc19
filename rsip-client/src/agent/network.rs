//! The host's own network changes under the agent: the way to the gateway goes, comes back, or begins at another private
//! address. What is said to the gateway goes over a way that is known, so that a registration is never made from one address
//! and used from another.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use rsip_proto::ids::ClientId;
use tokio::task::JoinHandle;

use super::failure::EffectError;
use super::{Agent, describe};
use crate::clock;
use crate::farewell::{self, Farewell};
use crate::transport::Transport;
use crate::tunnel::path::PathError;
use crate::usage::ending;

/// The way to the gateway, as the control connection had it last.
#[derive(Debug, Default)]
pub(super) struct Way {
    /// Where it begins: the private address that the registration belongs to.
    source: Option<Ipv4Addr>,
    /// The address that was left, until its registration is ended.
    left: Option<Ipv4Addr>,
    /// There is none; this was told.
    lost: bool,
    farewell: Option<JoinHandle<Farewell>>,
    /// The time slept that was told.
    slept: Duration,
}

impl Way {
    /// That of a dead agent, as far as it is known.
    pub(super) fn resumed(source: Option<Ipv4Addr>) -> Self {
        Self { source, ..Self::default() }
    }
}

/// Waits for the end of a farewell; for ever where none is said. Cancel safe.
pub(super) async fn parted(way: &mut Way) -> Farewell {
    let Some(farewell) = &mut way.farewell else { return std::future::pending().await };
    let outcome = farewell.await;
    way.farewell = None;
    outcome.unwrap_or_else(|error| Farewell::Failed(std::io::Error::other(error)))
}

impl Agent {
    /// Something of the host's addresses, routes or interfaces changed.
    pub(super) async fn follow_network(&mut self, now: Instant) {
        if !self.effects.is_active() {
            return;
        }
        match self.effects.follow().await {
            Ok(()) => self.way_is(self.effects.path.source, now),
            Err(EffectError::Path(error)) => self.way_is_lost(&error, now),
            Err(error) => {
                tracing::warn!(error = %describe(&error), "cannot follow the change of the network");
                // Something is half done, and no event may tell when the rest can be.
                self.network_changed = Some(now + super::TICK);
            }
        }
    }

    /// Opens the transport, where there is a way and it begins where the registration is.
    pub(super) async fn connect(&mut self, now: Instant) {
        let before = self.way.source;
        if self.effects.is_active() {
            self.follow_network(now).await;
        } else {
            match self.effects.look_for_the_way().await {
                Ok(source) => self.way_is(source, now),
                Err(error) => self.way_is_lost(&error, now),
            }
        }
        if self.way.lost || before.is_some_and(|before| self.way.source != Some(before)) {
            // The state machine knows, and will ask again.
            return;
        }
        self.transports += 1;
        self.transport = Some(Transport::open(
            self.settings.transport,
            self.settings.gateway,
            self.transports,
            self.to_agent.clone(),
        ));
    }

    fn way_is(&mut self, source: Ipv4Addr, now: Instant) {
        let was_lost = std::mem::take(&mut self.way.lost);
        if was_lost {
            tracing::info!(gateway = %self.settings.gateway, address = %source, "there is a way to the gateway again");
        }
        match self.way.source.replace(source) {
            Some(old) if old != source => {
                tracing::warn!(
                    %old, new = %source,
                    "another private address: the registration belongs to the old one; registers anew and asks for the same"
                );
                if self.way.farewell.is_none() {
                    self.way.left = Some(old);
                }
                self.host.handle_moved(now);
            }
            _ if was_lost => self.host.handle_way_found(now),
            _ => {}
        }
    }

    fn way_is_lost(&mut self, error: &PathError, now: Instant) {
        if !std::mem::replace(&mut self.way.lost, true) {
            tracing::warn!(
                %error,
                "no way to the gateway: what is leased stays in use until its leases end, binds of other ports are refused"
            );
        }
        self.host.handle_way_lost(now);
    }

    /// Ends the registration that belongs to the address which was left.
    pub(super) fn say_farewell(&mut self, client_id: ClientId, now: Instant) {
        let Some(from) = self.way.left else {
            self.host.handle_parted(now);
            return;
        };
        let farewell = farewell::say(self.settings.gateway, client_id, from);
        self.way.farewell = Some(tokio::spawn(farewell));
    }

    pub(super) fn has_parted(&mut self, outcome: &Farewell, now: Instant) {
        let address = self.way.left.take().unwrap_or(Ipv4Addr::UNSPECIFIED);
        match outcome {
            Farewell::Confirmed => tracing::info!(%address, "the registration of the old address is ended"),
            Farewell::Said => tracing::info!(
                %address,
                "the registration of the old address is ended, as far as can be told from here; where it is not, the \
                 gateway keeps its ports until its leases end, and they are asked for again until then"
            ),
            Farewell::Failed(error) => tracing::warn!(
                %address, %error,
                "cannot end the registration of the old address: the gateway keeps its ports until its leases end, and \
                 they are asked for again until then"
            ),
        }
        self.host.handle_parted(now);
    }

    /// Something was leased at this public address.
    pub(super) fn public_is(&mut self, address: Ipv4Addr) {
        let Some(old) = self.public.replace(address).filter(|old| *old != address) else { return };
        tracing::warn!(
            %old, new = %address,
            "another public address: connections of the old one end; servers are reached at the new one, but for those \
             that bound the old one by its number, which have to be started anew"
        );
        match ending::end_connections(old) {
            Ok(ended) => {
                tracing::info!(address = %old, ended, "ended what was connected from the old public address")
            }
            Err(error) => tracing::info!(
                address = %old, %error,
                "connections of the old public address end by their own timeouts: nothing of them is sent"
            ),
        }
    }

    /// A machine that slept has missed what happened meanwhile, ends of leases too; they were looked at before this is told.
    pub(super) fn look_at_the_clock(&mut self) {
        let slept = clock::slept();
        if let Some(more) = slept.checked_sub(self.way.slept).filter(|more| !more.is_zero()) {
            self.way.slept = slept;
            tracing::info!(seconds = more.as_secs(), "the machine was suspended, and leases went on running");
        }
    }
}
