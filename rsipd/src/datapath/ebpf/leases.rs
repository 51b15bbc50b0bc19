//! The maps in which the programs look up who holds what:
//!
//! ```text
//! ADDRESSES  public address -> index                who is asked for?
//! PORTS      index * 65536 + port -> host           the whole forwarding decision; 0: nobody; port 0: the whole address
//! REMOTES    the same place -> address, port        with whom? only under a remote policy
//! HOLDERS    (index, host, remote) -> ports held    may this host send ICMP from this address, and to whom?
//! TUNNELS    host -> anything                       is its tunnel GRE?
//! ```

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError};
use rsip_ebpf_common::gateway::{Holder, Remote as RawRemote, WHOLE, maps};
use rsip_proto::gateway::Rule;
use rsip_proto::lease::{Leased, Remote};
use rsip_proto::wire::TunnelType;
use rsip_sys::tc;

use super::super::DatapathError;
use super::{map_error, raw};

/// Nobody, in `PORTS`.
const FREE: u32 = 0;

/// What hosts hold.
pub(super) struct Leases {
    indexes: BTreeMap<Ipv4Addr, u32>,
    ports: Array<MapData, u32>,
    /// Only under a remote policy.
    remotes: Option<Array<MapData, RawRemote>>,
    holders: HashMap<MapData, Holder, u32>,
    /// Hosts whose tunnel is GRE.
    tunnels: HashMap<MapData, u32, u32>,
}

/// What is changed for a rule, in the words of the maps.
struct Places {
    address: Ipv4Addr,
    index: u32,
    host: u32,
    remote: Remote,
    ports: Vec<u16>,
}

impl Leases {
    /// Takes the maps out of an object whose `PORTS` has room for `pool`, and its `REMOTES` too if `remotes` is set.
    pub(super) fn new(ebpf: &mut Ebpf, pool: &[Ipv4Addr], remotes: bool) -> Result<Self, DatapathError> {
        let mut by_address: HashMap<_, u32, u32> = tc::take_map(ebpf, maps::ADDRESSES)?;
        let mut indexes = BTreeMap::new();
        for (address, index) in pool.iter().zip(0..) {
            by_address.insert(raw(*address), index, 0).map_err(map_error(maps::ADDRESSES))?;
            indexes.insert(*address, index);
        }
        Ok(Self {
            indexes,
            ports: tc::take_map(ebpf, maps::PORTS)?,
            remotes: if remotes { Some(tc::take_map(ebpf, maps::REMOTES)?) } else { None },
            holders: tc::take_map(ebpf, maps::HOLDERS)?,
            tunnels: tc::take_map(ebpf, maps::TUNNELS)?,
        })
    }

    pub(super) fn install(&mut self, rule: &Rule) -> Result<(), DatapathError> {
        let places = self.places(rule)?;
        if rule.remote != Remote::Any && self.remotes.is_none() {
            return Err(DatapathError::Remote(rule.remote));
        }
        self.check_others(&places, rule)?;
        // Before the first port: no packet goes into the wrong tunnel.
        self.enter_tunnel(&places, rule.tunnel)?;
        let mut taken = Vec::new();
        let outcome = self.take(&places, &mut taken).and_then(|()| self.count(&places, taken.len(), true));
        outcome.inspect_err(|_| {
            self.leave_tunnel(&places);
            for slot in taken {
                if let Err(error) = self.ports.set(slot, FREE, 0) {
                    tracing::error!(%error, slot, "cannot take back a port");
                }
            }
        })
    }

    pub(super) fn remove(&mut self, rule: &Rule) -> Result<(), DatapathError> {
        let places = self.places(rule)?;
        let mut freed = 0;
        let mut outcome = Ok(());
        for &port in &places.ports {
            // One port that cannot be freed does not keep the others.
            let free = match self.is_held(&places, port) {
                Ok(true) => {
                    let slot = slot(places.index, port);
                    self.ports.set(slot, FREE, 0).map(|()| freed += 1).map_err(map_error(maps::PORTS))
                }
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            };
            outcome = outcome.and(free);
        }
        let counted = self.count(&places, freed, false);
        self.leave_tunnel(&places);
        outcome.and(counted)
    }

    pub(super) fn holds(&self, rule: &Rule) -> Result<bool, DatapathError> {
        let places = self.places(rule)?;
        if self.tunnel_of(places.host)? != Some(rule.tunnel) {
            return Ok(false);
        }
        for &port in &places.ports {
            if !self.is_held(&places, port)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn places(&self, rule: &Rule) -> Result<Places, DatapathError> {
        let Rule { address, ref leased, host, remote, .. } = *rule;
        let index = *self.indexes.get(&address).ok_or(DatapathError::ForeignAddress(address))?;
        let ports: Vec<u16> = match leased {
            Leased::Address => vec![WHOLE],
            Leased::Ports(ports) => ports.iter().collect(),
        };
        if matches!(leased, Leased::Ports(_)) && ports.contains(&WHOLE) {
            return Err(DatapathError::PortZero);
        }
        Ok(Places { address, index, host: raw(host), remote, ports })
    }

    /// The tunnel of a host that holds anything.
    fn tunnel_of(&self, host: u32) -> Result<Option<TunnelType>, DatapathError> {
        match self.tunnels.get(&host, 0) {
            Ok(_) => Ok(Some(TunnelType::Gre)),
            Err(MapError::KeyNotFound) => Ok(self.holds_anything(host)?.then_some(TunnelType::IpIp)),
            Err(error) => Err(map_error(maps::TUNNELS)(error)),
        }
    }

    fn holds_anything(&self, host: u32) -> Result<bool, DatapathError> {
        for &index in self.indexes.values() {
            match self.holders.get(&Holder { index, host, remote: Holder::ALL }, 0) {
                Ok(0) | Err(MapError::KeyNotFound) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(map_error(maps::HOLDERS)(error)),
            }
        }
        Ok(false)
    }

    fn enter_tunnel(&mut self, places: &Places, tunnel: TunnelType) -> Result<(), DatapathError> {
        match self.tunnel_of(places.host)? {
            Some(other) if other != tunnel => {
                let host = Ipv4Addr::from(places.host.to_ne_bytes());
                Err(DatapathError::OtherTunnel { host, other })
            }
            None if tunnel == TunnelType::Gre => {
                self.tunnels.insert(places.host, 1, 0).map_err(map_error(maps::TUNNELS))
            }
            _ => Ok(()),
        }
    }

    /// A host that holds nothing any more may come back with another tunnel.
    fn leave_tunnel(&mut self, places: &Places) {
        let outcome = match self.holds_anything(places.host) {
            Ok(true) => return,
            Ok(false) => self.tunnels.remove(&places.host),
            Err(error) => return tracing::error!(%error, "cannot see what a host holds"),
        };
        match outcome {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            // aya tells a missing key of remove() as a failed system call.
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(nix::libc::ENOENT) => {}
            Err(error) => tracing::error!(%error, "cannot take a host out of {}", maps::TUNNELS),
        }
    }

    /// Nobody else may hold the address whole, and whoever wants it whole finds nobody else there.
    fn check_others(&self, places: &Places, rule: &Rule) -> Result<(), DatapathError> {
        let held = |holder: u32| DatapathError::Held {
            address: places.address,
            port: None,
            holder: Ipv4Addr::from(holder.to_ne_bytes()),
        };
        let holder = self.holder(slot(places.index, WHOLE))?;
        if holder != FREE && holder != places.host {
            return Err(held(holder));
        }
        if rule.leased == Leased::Address {
            for key in self.holders.keys() {
                let key = key.map_err(map_error(maps::HOLDERS))?;
                if key.index == places.index && key.host != places.host {
                    return Err(held(key.host));
                }
            }
        }
        Ok(())
    }

    /// Gives the ports to the host; what it did is pushed to `taken`, also on an error.
    fn take(&mut self, places: &Places, taken: &mut Vec<u32>) -> Result<(), DatapathError> {
        for &port in &places.ports {
            let slot = slot(places.index, port);
            let holder = self.holder(slot)?;
            if holder != FREE {
                if self.is_held(places, port)? {
                    continue;
                }
                let holder = Ipv4Addr::from(holder.to_ne_bytes());
                let port = (port != WHOLE).then_some(port);
                return Err(DatapathError::Held { address: places.address, port, holder });
            }
            if let Some(remotes) = &mut self.remotes {
                remotes.set(slot, raw_remote(places.remote), 0).map_err(map_error(maps::REMOTES))?;
            }
            self.ports.set(slot, places.host, 0).map_err(map_error(maps::PORTS))?;
            taken.push(slot);
        }
        Ok(())
    }

    fn holder(&self, slot: u32) -> Result<u32, DatapathError> {
        self.ports.get(&slot, 0).map_err(map_error(maps::PORTS))
    }

    /// Whether the host holds this port for this remote.
    fn is_held(&self, places: &Places, port: u16) -> Result<bool, DatapathError> {
        let slot = slot(places.index, port);
        if self.holder(slot)? != places.host {
            return Ok(false);
        }
        let remote = match &self.remotes {
            Some(remotes) => remotes.get(&slot, 0).map_err(map_error(maps::REMOTES))?,
            None => RawRemote::ANY,
        };
        Ok(remote == raw_remote(places.remote))
    }

    /// Counts so many ports more or fewer of the host; on an error none.
    fn count(&mut self, places: &Places, change: usize, more: bool) -> Result<(), DatapathError> {
        let change = u32::try_from(change).unwrap_or(u32::MAX);
        let key = |remote| Holder { index: places.index, host: places.host, remote };
        let portless = match places.remote {
            Remote::Any => Some(key(Holder::ANYBODY)),
            Remote::Address(peer) => Some(key(raw(peer))),
            // What has no port cannot have the right one.
            Remote::Port(_) => None,
        };
        self.change(key(Holder::ALL), change, more)?;
        let Some(portless) = portless else { return Ok(()) };
        self.change(portless, change, more).inspect_err(|_| {
            if let Err(error) = self.change(key(Holder::ALL), change, !more) {
                tracing::error!(%error, "cannot take back a count");
            }
        })
    }

    fn change(&mut self, holder: Holder, change: u32, more: bool) -> Result<(), DatapathError> {
        let failed = map_error(maps::HOLDERS);
        let held = match self.holders.get(&holder, 0) {
            Ok(held) => held,
            Err(MapError::KeyNotFound) => 0,
            Err(error) => return Err(failed(error)),
        };
        match if more { held.saturating_add(change) } else { held.saturating_sub(change) } {
            0 if held == 0 => Ok(()),
            0 => self.holders.remove(&holder).map_err(failed),
            count => self.holders.insert(holder, count, 0).map_err(failed),
        }
    }
}

fn slot(index: u32, port: u16) -> u32 {
    (index << 16) | u32::from(port)
}

fn raw_remote(remote: Remote) -> RawRemote {
    RawRemote {
        address: remote.address().map_or(0, raw),
        port: remote.port().unwrap_or(0).to_be(),
        ..RawRemote::ANY
    }
}
