//! Forwarding by two eBPF programs: one at the external interface that chooses the host by port and encapsulates, one
//! at the internal interface that decapsulates and checks the source. What they know is in maps:
//!
//! ```text
//! ADDRESSES  public address -> index          who is asked for?
//! PORTS      index * 65536 + port -> host     the whole forwarding decision; 0: nobody
//! HOLDERS    (index, host) -> ports held      may this host send ICMP from this address?
//! ```

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use aya::Ebpf;
use aya::maps::{Array, HashMap, MapData, MapError, PerCpuArray};
use rsip_ebpf_common::gateway::{
    COUNTERS, Config, Counter, FLAG_EXTERNAL_L3, FLAG_INTERNAL_L3, Holder, maps, programs,
};
use rsip_proto::gateway::Rule;
use rsip_proto::wire::TunnelType;
use rsip_sys::netlink::{Link, Netlink};
use rsip_sys::tc::{self, Attachment, Direction};

use super::{Datapath, DatapathError, Stats};

/// Nobody, in `PORTS`.
const FREE: u32 = 0;

/// Where the programs work.
#[derive(Clone, Debug)]
pub struct Site {
    /// Towards the private hosts.
    pub internal: Link,
    /// Towards the public realm.
    pub external: Link,
    /// The gateway's private address: its end of the tunnels.
    pub internal_address: Ipv4Addr,
    /// Largest packet on the internal network.
    pub internal_mtu: u32,
    /// The public addresses.
    pub pool: Vec<Ipv4Addr>,
}

/// The two programs, in place.
pub struct EbpfDatapath {
    netlink: Netlink,
    attachments: Vec<Attachment>,
    indexes: BTreeMap<Ipv4Addr, u32>,
    ports: Array<MapData, u32>,
    holders: HashMap<MapData, Holder, u32>,
    counters: PerCpuArray<MapData, u64>,
    /// Keeps the programs loaded.
    _ebpf: Ebpf,
}

impl EbpfDatapath {
    /// Loads the programs of `object`; nothing forwards yet.
    ///
    /// # Errors
    /// The kernel does not take them, or the object is empty or of another version.
    pub fn load(object: &[u8], site: &Site) -> Result<Loaded, DatapathError> {
        let addresses = u32::try_from(site.pool.len()).unwrap_or(u32::MAX).max(1);
        let entries = addresses.saturating_mul(1 << 16);
        let mut ebpf = tc::load_object_sized(object, &[(maps::PORTS, entries)])?;
        for name in [programs::INWARD, programs::OUTWARD] {
            tc::load_program(&mut ebpf, name)?;
        }
        let mut config: Array<_, Config> = tc::take_map(&mut ebpf, maps::CONFIG)?;
        config.set(0, site.config(), 0).map_err(map_error(maps::CONFIG))?;
        let mut by_address: HashMap<_, u32, u32> = tc::take_map(&mut ebpf, maps::ADDRESSES)?;
        let mut indexes = BTreeMap::new();
        for (address, index) in site.pool.iter().zip(0..) {
            by_address.insert(raw(*address), index, 0).map_err(map_error(maps::ADDRESSES))?;
            indexes.insert(*address, index);
        }
        Ok(Loaded {
            indexes,
            ports: tc::take_map(&mut ebpf, maps::PORTS)?,
            holders: tc::take_map(&mut ebpf, maps::HOLDERS)?,
            counters: tc::take_map(&mut ebpf, maps::COUNTERS)?,
            ebpf,
        })
    }

    fn index(&self, rule: &Rule) -> Result<u32, DatapathError> {
        self.indexes.get(&rule.address).copied().ok_or(DatapathError::ForeignAddress(rule.address))
    }

    fn holder(&self, slot: u32) -> Result<u32, DatapathError> {
        self.ports.get(&slot, 0).map_err(map_error(maps::PORTS))
    }

    /// Gives the ports to the host; what it did is pushed to `done`, also on an error.
    fn take(&mut self, rule: &Rule, index: u32, done: &mut Vec<u32>) -> Result<(), DatapathError> {
        let host = raw(rule.host);
        for port in rule.leased.iter() {
            let slot = slot(index, port);
            let holder = self.holder(slot)?;
            if holder == host {
                continue;
            }
            if holder != FREE {
                let holder = Ipv4Addr::from(holder.to_ne_bytes());
                return Err(DatapathError::Held { address: rule.address, port, holder });
            }
            self.ports.set(slot, host, 0).map_err(map_error(maps::PORTS))?;
            done.push(slot);
        }
        let count = u32::try_from(done.len()).unwrap_or(u32::MAX);
        self.count(Holder { index, host }, |held| held.saturating_add(count))
    }

    /// Changes how many ports a host holds.
    fn count(&mut self, holder: Holder, change: impl FnOnce(u32) -> u32) -> Result<(), DatapathError> {
        let failed = map_error(maps::HOLDERS);
        let held = match self.holders.get(&holder, 0) {
            Ok(held) => held,
            Err(MapError::KeyNotFound) => 0,
            Err(error) => return Err(failed(error)),
        };
        match change(held) {
            0 if held == 0 => Ok(()),
            0 => self.holders.remove(&holder).map_err(failed),
            count => self.holders.insert(holder, count, 0).map_err(failed),
        }
    }
}

/// The programs in the kernel, not yet at the interfaces.
pub struct Loaded {
    indexes: BTreeMap<Ipv4Addr, u32>,
    ports: Array<MapData, u32>,
    holders: HashMap<MapData, Holder, u32>,
    counters: PerCpuArray<MapData, u64>,
    ebpf: Ebpf,
}

impl Loaded {
    /// Puts the programs in place, those of a predecessor that died out of it.
    ///
    /// # Errors
    /// The kernel refuses; nothing is left attached then.
    pub async fn attach(mut self, netlink: Netlink, site: &Site) -> Result<EbpfDatapath, DatapathError> {
        let forced = tc::Method::forced()?;
        let places = [(programs::OUTWARD, &site.internal), (programs::INWARD, &site.external)];
        let mut attachments = Vec::new();
        for (name, interface) in places {
            let attached = match tc::remove_leftovers(&netlink, interface, &[(name, Direction::Ingress)])
                .await
            {
                Ok(()) => {
                    tc::attach(&mut self.ebpf, &netlink, name, interface, Direction::Ingress, forced).await
                }
                Err(error) => Err(error),
            };
            match attached {
                Ok(attachment) => attachments.push(attachment),
                Err(error) => {
                    for attachment in attachments {
                        if let Err(error) = attachment.detach(&netlink).await {
                            tracing::warn!(%error, "cannot detach");
                        }
                    }
                    return Err(error.into());
                }
            }
        }
        for attachment in &attachments {
            let interface = &attachment.interface().name;
            tracing::debug!(interface, method = %attachment.method(), "program attached");
        }
        let Self { indexes, ports, holders, counters, ebpf } = self;
        Ok(EbpfDatapath { netlink, attachments, indexes, ports, holders, counters, _ebpf: ebpf })
    }
}

impl Datapath for EbpfDatapath {
    fn name(&self) -> &'static str {
        "ebpf"
    }

    fn install(&mut self, rule: &Rule) -> Result<(), DatapathError> {
        if rule.tunnel != TunnelType::IpIp {
            return Err(DatapathError::Tunnel(rule.tunnel));
        }
        let index = self.index(rule)?;
        let mut done = Vec::new();
        self.take(rule, index, &mut done).inspect_err(|_| {
            for slot in done {
                if let Err(error) = self.ports.set(slot, FREE, 0) {
                    tracing::error!(%error, slot, "cannot take back a port");
                }
            }
        })
    }

    fn remove(&mut self, rule: &Rule) -> Result<(), DatapathError> {
        let index = self.index(rule)?;
        let host = raw(rule.host);
        let mut freed = 0;
        let mut outcome = Ok(());
        for port in rule.leased.iter() {
            let slot = slot(index, port);
            // One port that cannot be freed does not keep the others.
            let free = match self.holder(slot) {
                Ok(holder) if holder == host => {
                    self.ports.set(slot, FREE, 0).map(|()| freed += 1).map_err(map_error(maps::PORTS))
                }
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            outcome = outcome.and(free);
        }
        let counted = self.count(Holder { index, host }, |held| held.saturating_sub(freed));
        outcome.and(counted)
    }

    fn holds(&self, rule: &Rule) -> Result<bool, DatapathError> {
        let index = self.index(rule)?;
        for port in rule.leased.iter() {
            if self.holder(slot(index, port))? != raw(rule.host) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn stats(&self) -> Result<Stats, DatapathError> {
        let mut sums = [0_u64; COUNTERS as usize];
        for (sum, index) in sums.iter_mut().zip(0..) {
            let per_cpu = self.counters.get(&index, 0).map_err(map_error(maps::COUNTERS))?;
            *sum = per_cpu.iter().sum();
        }
        let of = |counter: Counter| sums.get(counter as usize).copied().unwrap_or_default();
        Ok(Stats {
            inward_packets: of(Counter::Inward),
            inward_bytes: of(Counter::InwardBytes),
            outward_packets: of(Counter::Outward),
            outward_bytes: of(Counter::OutwardBytes),
            bad_source: of(Counter::BadSource),
            malformed: of(Counter::Malformed),
            ttl_exceeded: of(Counter::TtlExceeded),
            unsupported: of(Counter::Unsupported),
            failed: of(Counter::Failed),
            too_big: of(Counter::TooBig),
            martian: of(Counter::Martian),
        })
    }

    async fn close(self) -> Result<(), DatapathError> {
        let mut outcome = Ok(());
        for attachment in self.attachments {
            outcome = outcome.and(attachment.detach(&self.netlink).await);
        }
        outcome.map_err(Into::into)
    }
}

impl Site {
    fn config(&self) -> Config {
        let headerless = |link: &Link, flag| if link.mac.is_none() { flag } else { 0 };
        Config {
            internal_address: raw(self.internal_address),
            internal_ifindex: self.internal.index,
            external_ifindex: self.external.index,
            internal_mtu: self.internal_mtu,
            external_mtu: self.external.mtu,
            flags: headerless(&self.internal, FLAG_INTERNAL_L3)
                | headerless(&self.external, FLAG_EXTERNAL_L3),
        }
    }
}

/// An address as it stands in packets and maps.
fn raw(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

fn slot(index: u32, port: u16) -> u32 {
    (index << 16) | u32::from(port)
}

fn map_error(map: &'static str) -> impl Fn(MapError) -> DatapathError {
    move |source| DatapathError::Map { map, source: Box::new(source) }
}
