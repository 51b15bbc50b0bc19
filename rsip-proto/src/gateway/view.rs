//! What the gateway knows, for people: `rsipdctl dump`, the status file, metrics.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::binding::Binding;
use super::grant::seconds;
use super::{Gateway, Peer, Rule};
use crate::ids::{BindId, ClientId};
use crate::lease::{Leased, Remote};
use crate::pool::PoolUsage;
use crate::wire::TunnelType;

/// The whole state at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayView {
    /// Registered hosts, by client ID.
    pub clients: Vec<ClientView>,
    /// Rules of hosts that are registered no more, which the data path has not yet forgotten. Their ports are taken.
    pub departing: Vec<Rule>,
    /// Use of the public addresses, in the configured order.
    pub pool: Vec<PoolView>,
}

/// Use of one public address.
pub type PoolView = PoolUsage;

/// The two states of a registered host (RFC 3103 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientState {
    /// Registered, without a binding.
    Registered,
    /// Registered, with at least one binding.
    Assigned,
}

/// Which transport a registration uses, for all its life (RFC 3103 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TransportKind {
    /// Datagrams.
    Udp,
    /// Connections.
    Tcp,
}

/// One registered host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientView {
    /// Its name here.
    pub client_id: ClientId,
    /// Its private address.
    pub host: Ipv4Addr,
    /// How it registered.
    pub transport: TransportKind,
    /// Whether it has a binding.
    pub state: ClientState,
    /// Until the registration ends, if nothing is heard.
    pub lease_left: Duration,
    /// Since it registered.
    pub registered_for: Duration,
    /// Its bindings, by bind ID.
    pub bindings: Vec<BindingView>,
}

/// Where a binding stands between the machine and the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BindingState {
    /// The data path was told, and has not said that it holds. The host has no answer yet.
    Installing,
    /// Holds, and the host knows.
    Active,
    /// Has ended; the data path has not said that it forgot.
    Removing,
}

/// One binding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingView {
    /// Its name.
    pub bind_id: BindId,
    /// The leased public address.
    pub address: Ipv4Addr,
    /// What of it is leased.
    pub leased: Leased,
    /// With whom it may be used.
    pub remote: Remote,
    /// How packets travel to the host.
    pub tunnel: TunnelType,
    /// LISTEN (true) or ASSIGN (false).
    pub listen: bool,
    /// Where it stands.
    pub state: BindingState,
    /// The lease as last granted.
    pub lease_time: Duration,
    /// Until it ends; zero unless `state` is [`BindingState::Active`].
    pub lease_left: Duration,
}

impl Gateway {
    /// Whether this is where a registered host is served: the source of its last request.
    #[must_use]
    pub fn is_served(&self, peer: Peer) -> bool {
        self.clients.of_host(*peer.address.ip()).is_some_and(|client| client.peer == Some(peer))
    }

    /// The whole state at this moment.
    #[must_use]
    pub fn view(&self, now: Instant) -> GatewayView {
        let clients = self.clients.iter().map(|client| {
            let bindings: Vec<_> = self.bindings.of(client.id).map(|binding| binding.view(now)).collect();
            ClientView {
                client_id: client.id,
                host: client.host,
                transport: client.transport,
                state: if bindings.is_empty() { ClientState::Registered } else { ClientState::Assigned },
                lease_left: client.expires.saturating_duration_since(now),
                registered_for: now.saturating_duration_since(client.registered_at),
                bindings,
            }
        });
        let departing =
            self.bindings.iter().filter(|binding| self.clients.get(binding.rule.client_id).is_none());
        GatewayView {
            clients: clients.collect(),
            departing: departing.map(|binding| binding.rule.clone()).collect(),
            pool: self.pool.usage(now).collect(),
        }
    }
}

impl Binding {
    fn view(&self, now: Instant) -> BindingView {
        let state = self.state();
        let lease_left = match state {
            BindingState::Active => self.expires.saturating_duration_since(now),
            BindingState::Installing | BindingState::Removing => Duration::ZERO,
        };
        BindingView {
            bind_id: self.rule.bind_id,
            address: self.rule.address,
            leased: self.rule.leased.clone(),
            remote: self.rule.remote,
            tunnel: self.rule.tunnel,
            listen: self.listen,
            state,
            lease_time: seconds(self.lease),
            lease_left,
        }
    }
}
