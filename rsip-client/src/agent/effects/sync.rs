//! Making the host what the book and the gateway's answers say: address, routes, `LOCAL`, the kernel's own choice of ports,
//! the programs' configuration.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use rsip_ebpf_common::host::{
    FLAG_ENABLED, FLAG_EPHEMERAL, FLAG_EXHAUSTED, FLAG_KERNEL_TUNNEL, FLAG_PRIVATE_L3, FLAG_WHOLE,
};
use rsip_proto::wire::TunnelType;
use rsip_sys::netlink::Prefix;

use super::Effects;
use crate::agent::failure::EffectError;
use crate::hooks::ebpf::address_word;
use crate::status::Network;
use crate::tunnel::Tunnel;
use crate::tunnel::direct;
use crate::tunnel::local;

/// GRE's protocol number.
const PROTOCOL_GRE: u32 = 47;

/// What the host is made to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Synced {
    /// The leased address.
    public: Option<Ipv4Addr>,
    /// All of it is leased.
    whole: bool,
    /// Ports for the kernel's own choice.
    ports: BTreeSet<u16>,
    /// Networks that are reached without the tunnel.
    direct: BTreeSet<Prefix>,
}

impl Effects {
    /// Follows what the gateway calls local (QUERY), as far as it is to be believed.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn set_answer(&mut self, answer: Vec<(Ipv4Addr, u8)>) -> Result<(), EffectError> {
        self.answer = answer;
        self.sync().await?;
        for net in &self.direct.believed {
            tracing::info!(network = %net, "reached without the tunnel: the gateway calls it local");
        }
        for ((address, length), why) in &self.direct.disbelieved {
            tracing::warn!(network = %format!("{address}/{length}"), %why, "not local, whatever the gateway says");
        }
        Ok(())
    }

    /// Networks that are reached without the tunnel, and those that the gateway would have so, for the status.
    pub fn networks(&self) -> Vec<Network> {
        let network =
            |network: String, from: &str, refused| Network { network, from: from.to_owned(), refused };
        let given = self.private_nets.iter().map(|net| network(net.to_string(), "--private-net", None));
        let believed = self.direct.believed.iter().map(|net| network(net.to_string(), "gateway", None));
        let disbelieved = self.direct.disbelieved.iter().map(|((address, length), why)| {
            network(format!("{address}/{length}"), "gateway", Some(why.to_string()))
        });
        given.chain(believed).chain(disbelieved).collect()
    }

    /// Makes the host what the book says.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn sync(&mut self) -> Result<(), EffectError> {
        let public = self.book.public();
        self.direct = direct::judge(&self.answer, public, self.remote.address());
        let wanted = Some(Synced {
            public,
            whole: self.book.is_whole(),
            ports: self.choice(),
            direct: self.private_nets.union(&self.direct.believed).copied().collect(),
        });
        // One more listening port changes nothing but the port table.
        if self.synced == wanted {
            return Ok(());
        }
        let before = self.synced.take();
        let network = wanted.as_ref().filter(|wanted| {
            before.as_ref().is_none_or(|before| (before.public, &before.direct) != (public, &wanted.direct))
        });
        // Packets have to find the way before a program can choose a port to send them from, and the other way round.
        if let (Some(wanted), Some(_)) = (network, public) {
            self.sync_network(public, &wanted.direct).await?;
        }
        self.sync_choice(before.map(|before| before.ports).unwrap_or_default())?;
        if let (Some(wanted), None) = (network, public) {
            self.sync_network(public, &wanted.direct).await?;
        }
        self.synced = wanted;
        Ok(())
    }

    /// The hooks let programs take ephemeral ports only while the kernel's choice is confined to leased ones, and these are
    /// known to be so. What goes is out of the hooks' reckoning before it is out of the kernel's choice, what comes the other
    /// way round.
    fn sync_choice(&mut self, before: BTreeSet<u16>) -> Result<(), EffectError> {
        let after = self.choice();
        let has_ephemeral = self.book.has_ephemeral();
        self.choosing &= has_ephemeral;
        let most = u32::try_from(after.len()).unwrap_or(u32::MAX);
        self.room = self.room.min(most);
        self.write_config()?;
        self.book.open(&mut self.hooks, after.difference(&before).copied())?;
        self.room = self.confine()?;
        self.choosing = has_ephemeral;
        self.write_config()
    }

    async fn sync_network(
        &mut self,
        public: Option<Ipv4Addr>,
        direct: &BTreeSet<Prefix>,
    ) -> Result<(), EffectError> {
        self.fixed.public = public;
        self.fixed.local = direct.iter().copied().chain([Prefix::host(self.gateway)]).collect();
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.set_public(&self.netlink, public, direct.clone()).await?;
        }
        self.refresh_local().await
    }

    pub(super) async fn refresh_local(&mut self) -> Result<(), EffectError> {
        let local = local::gather(&self.netlink, &self.fixed).await?;
        Ok(self.hooks.set_local(local)?)
    }

    pub(super) fn write_config(&mut self) -> Result<(), EffectError> {
        let mut config = self.config;
        config.public_address = self.book.public().map_or(0, address_word);
        config.tunnel_local = address_word(self.path.source);
        config.rules = self.written.word;
        config.private_ifindex = self.path.interface.index;
        config.path_mtu = self.tunnel.as_ref().map_or(0, Tunnel::outer_mtu);
        config.tunnel_protocol = match self.book.tunnel() {
            TunnelType::Gre => PROTOCOL_GRE,
            _ => 0,
        };
        config.tunnel_ifindex = self.tunnel.as_ref().map_or(0, |tunnel| tunnel.link().index);
        if self.path.interface.mac.is_none() {
            config.flags |= FLAG_PRIVATE_L3;
        }
        if self.choosing {
            config.flags |= FLAG_EPHEMERAL;
        }
        if self.options.kernel {
            config.flags |= FLAG_KERNEL_TUNNEL;
        }
        if self.book.is_whole() {
            config.flags |= FLAG_WHOLE;
        }
        if self.exhausted {
            config.flags |= FLAG_EXHAUSTED;
        }
        config.room = self.room;
        if self.active || self.takes_over {
            config.flags |= FLAG_ENABLED;
        }
        Ok(self.hooks.set_config(&config)?)
    }
}
