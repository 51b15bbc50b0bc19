//! Registered hosts: one registration for each private address (RFC 3103 section 10.6).

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::time::Instant;

use super::misuse::Told;
use super::{Peer, Transport, TransportKind};
use crate::ids::{BindId, ClientId};

/// A registered host. Its bindings are in [`super::binding::Bindings`].
pub(super) struct Client {
    pub(super) id: ClientId,
    pub(super) host: Ipv4Addr,
    /// Fixed by the packet that registered the host (RFC 3103 section 5).
    pub(super) transport: TransportKind,
    /// Where asynchronous messages go: the source of the last request. None while its connection is gone.
    pub(super) peer: Option<Peer>,
    pub(super) registered_at: Instant,
    /// When the registration ends; never moved towards now.
    pub(super) expires: Instant,
    /// Ports of this client's bindings, in whatever state.
    pub(super) ports: u32,
    /// What it was told about data that it may not send.
    pub(super) told: Told,
    last_bind: u32,
}

impl Client {
    pub(super) fn new(id: ClientId, peer: Peer, now: Instant, expires: Instant) -> Self {
        Self {
            id,
            host: *peer.address.ip(),
            transport: TransportKind::of(peer.transport),
            peer: Some(peer),
            registered_at: now,
            expires,
            ports: 0,
            told: Told::default(),
            last_bind: 0,
        }
    }

    /// A bind ID that this client has never had, or has had longest ago; not 0, and not one for which `taken` holds.
    pub(super) fn next_bind(&mut self, taken: impl Fn(BindId) -> bool) -> BindId {
        loop {
            self.last_bind = self.last_bind.checked_add(1).unwrap_or(1);
            if !taken(BindId(self.last_bind)) {
                return BindId(self.last_bind);
            }
        }
    }
}

impl TransportKind {
    pub(super) const fn of(transport: Transport) -> Self {
        match transport {
            Transport::Udp => Self::Udp,
            Transport::Tcp(_) => Self::Tcp,
        }
    }
}

/// The registered hosts, by name and by address.
pub(super) struct Clients {
    by_id: BTreeMap<ClientId, Client>,
    by_host: BTreeMap<Ipv4Addr, ClientId>,
    seed: u64,
    named: u64,
}

impl Clients {
    pub(super) const fn new(seed: u64) -> Self {
        Self { by_id: BTreeMap::new(), by_host: BTreeMap::new(), seed, named: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn get(&self, id: ClientId) -> Option<&Client> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ClientId) -> Option<&mut Client> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn of_host(&self, host: Ipv4Addr) -> Option<&Client> {
        self.by_id.get(self.by_host.get(&host)?)
    }

    pub(super) fn of_host_mut(&mut self, host: Ipv4Addr) -> Option<&mut Client> {
        self.by_id.get_mut(self.by_host.get(&host)?)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Client> {
        self.by_id.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Client> {
        self.by_id.values_mut()
    }

    pub(super) fn insert(&mut self, client: Client) {
        self.by_host.insert(client.host, client.id);
        self.by_id.insert(client.id, client);
    }

    pub(super) fn remove(&mut self, id: ClientId) -> Option<Client> {
        let client = self.by_id.remove(&id)?;
        self.by_host.remove(&client.host);
        Some(client)
    }

    /// A name that nobody has, that is not 0, and for which `taken` does not hold.
    ///
    /// The names come from a keyed hash of a counter, so that a host cannot guess its neighbour's from its own: an
    /// address is easily borrowed, and the client ID is the only other thing a request must know.
    pub(super) fn next_id(&mut self, taken: impl Fn(ClientId) -> bool) -> ClientId {
        loop {
            self.named += 1;
            let mut hasher = DefaultHasher::new();
            (self.seed, self.named).hash(&mut hasher);
            let hash = hasher.finish();
            let id = ClientId((hash ^ (hash >> 32)) as u32);
            if id.0 != 0 && !self.by_id.contains_key(&id) && !taken(id) {
                return id;
            }
        }
    }
}
