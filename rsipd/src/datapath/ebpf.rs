//! Forwarding by two eBPF programs: one at the external interface that chooses the host by port and encapsulates, one
//! at the internal interface that decapsulates and checks the source. What they know is in maps (`leases`); what they have
//! to say about hosts comes through a ring buffer (`reports`).

mod leases;
mod reports;

use std::net::Ipv4Addr;

use aya::Ebpf;
use aya::maps::{Array, MapData, MapError, PerCpuArray};
use rsip_ebpf_common::gateway::{
    COUNTERS, Config, Counter, FLAG_EXTERNAL_L3, FLAG_GRE, FLAG_INTERNAL_L3, FLAG_REMOTE, FLAG_REMOTE_MICRO,
    maps, programs,
};
use rsip_proto::gateway::{Misuse, Rule};
use rsip_proto::wire::{RemotePolicy, TunnelType};
use rsip_sys::netlink::{Link, Netlink};
use rsip_sys::tc::{self, Attachment, Direction};

use self::leases::Leases;
use self::reports::Reports;
use super::{Datapath, DatapathError, Stats};

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
    /// The public addresses, shared and whole ones.
    pub pool: Vec<Ipv4Addr>,
    /// What [`Rule::remote`] may say: anything but `Any` only under a policy. Without one no packet is looked at for it.
    pub remote_policy: RemotePolicy,
    /// What [`Rule::tunnel`] may say.
    pub tunnels: Vec<TunnelType>,
}

/// The two programs, in place.
pub struct EbpfDatapath {
    netlink: Netlink,
    attachments: Vec<Attachment>,
    leases: Leases,
    reports: Reports,
    counters: PerCpuArray<MapData, u64>,
    tunnels: Vec<TunnelType>,
    /// Keeps the programs loaded.
    _ebpf: Ebpf,
}

impl EbpfDatapath {
    /// Loads the programs of `object`; nothing forwards yet. Wants to be called within a tokio runtime.
    ///
    /// # Errors
    /// The kernel does not take them, or the object is empty or of another version.
    pub fn load(object: &[u8], site: &Site) -> Result<Loaded, DatapathError> {
        let addresses = u32::try_from(site.pool.len()).unwrap_or(u32::MAX).max(1);
        let entries = addresses.saturating_mul(1 << 16);
        let remotes = site.remote_policy != RemotePolicy::None;
        let sizes = [(maps::PORTS, entries), (maps::REMOTES, if remotes { entries } else { 1 })];
        let mut ebpf = tc::load_object_sized(object, &sizes)?;
        for name in [programs::INWARD, programs::OUTWARD] {
            tc::load_program(&mut ebpf, name)?;
        }
        let mut config: Array<_, Config> = tc::take_map(&mut ebpf, maps::CONFIG)?;
        config.set(0, site.config(), 0).map_err(map_error(maps::CONFIG))?;
        Ok(Loaded {
            leases: Leases::new(&mut ebpf, &site.pool, remotes)?,
            reports: Reports::new(&mut ebpf)?,
            counters: tc::take_map(&mut ebpf, maps::COUNTERS)?,
            ebpf,
        })
    }
}

/// The programs in the kernel, not yet at the interfaces.
pub struct Loaded {
    leases: Leases,
    reports: Reports,
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
        let Self { leases, reports, counters, ebpf } = self;
        let tunnels = site.tunnels.clone();
        Ok(EbpfDatapath { netlink, attachments, leases, reports, counters, tunnels, _ebpf: ebpf })
    }
}

impl Datapath for EbpfDatapath {
    fn name(&self) -> &'static str {
        "ebpf"
    }

    fn install(&mut self, rule: &Rule) -> Result<(), DatapathError> {
        if !self.tunnels.contains(&rule.tunnel) {
            return Err(DatapathError::Tunnel(rule.tunnel));
        }
        self.leases.install(rule)
    }

    fn remove(&mut self, rule: &Rule) -> Result<(), DatapathError> {
        self.leases.remove(rule)
    }

    fn holds(&self, rule: &Rule) -> Result<bool, DatapathError> {
        self.leases.holds(rule)
    }

    async fn misused(&mut self) -> (Ipv4Addr, Misuse) {
        self.reports.next().await
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
            too_big_told: of(Counter::TooBigTold),
            fragmented: of(Counter::Split),
            martian: of(Counter::Martian),
            bad_remote: of(Counter::BadRemote),
            bad_tunnel: of(Counter::BadTunnel),
            bad_gre: of(Counter::BadGre),
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
        let remote = match self.remote_policy {
            RemotePolicy::None => 0,
            RemotePolicy::Macro => FLAG_REMOTE,
            RemotePolicy::Micro => FLAG_REMOTE | FLAG_REMOTE_MICRO,
        };
        let headerless = |link: &Link, flag| if link.mac.is_none() { flag } else { 0 };
        Config {
            internal_address: raw(self.internal_address),
            internal_ifindex: self.internal.index,
            external_ifindex: self.external.index,
            internal_mtu: self.internal_mtu,
            external_mtu: self.external.mtu,
            flags: headerless(&self.internal, FLAG_INTERNAL_L3)
                | headerless(&self.external, FLAG_EXTERNAL_L3)
                | remote
                | if self.tunnels.contains(&TunnelType::Gre) { FLAG_GRE } else { 0 },
        }
    }
}

/// An address as it stands in packets and maps.
fn raw(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

fn map_error(map: &'static str) -> impl Fn(MapError) -> DatapathError {
    move |source| DatapathError::Map { map, source: Box::new(source) }
}
