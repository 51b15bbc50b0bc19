//! The tunnel's type: what the bindings in use say.

use rsip_proto::host::HostBinding;
use rsip_proto::wire::TunnelType;
use rsip_sys::sysctl::{self, SysctlError};

use super::Effects;
use crate::agent::failure::EffectError;
use crate::state::SavedArp;

impl Effects {
    /// Whether this host can have the binding's tunnel, beside what it has.
    pub(super) fn check_tunnel(&self, binding: &HostBinding) -> Result<(), EffectError> {
        if !matches!(binding.tunnel, TunnelType::IpIp | TunnelType::Gre) {
            return Err(EffectError::TunnelType(binding.tunnel));
        }
        match self.book.bindings().next() {
            Some(held) if held.tunnel != binding.tunnel => {
                Err(EffectError::OtherTunnel { old: held.tunnel, new: binding.tunnel })
            }
            _ => Ok(()),
        }
    }

    /// Makes the tunnel what the book says: after all leases were lost there may be one of another type.
    pub(super) async fn change_tunnel(&mut self) -> Result<(), EffectError> {
        let wanted = self.book.tunnel();
        let Some(tunnel) = &mut self.tunnel else { return Ok(()) };
        if tunnel.kind() != wanted {
            tracing::info!(old = %tunnel.kind(), new = %wanted, "another type of tunnel");
            if tunnel.is_kernels() {
                return self.renew_tunnel().await;
            }
            tunnel.become_kind(&self.netlink, self.path.interface.mtu, wanted).await?;
            self.write_config()?;
        }
        Ok(())
    }

    /// One of the kernel's own devices is what it was made for: another type, or other ends, need another device.
    pub(super) async fn renew_tunnel(&mut self) -> Result<(), EffectError> {
        if let Some(old) = self.tunnel.take() {
            old.destroy(&self.netlink).await?;
        }
        self.synced = None;
        self.activate_tunnel().await?;
        self.sync().await?;
        self.write_config()
    }

    /// Without a program that drops ARP requests for the leased address (RFC 3102 section 3.1) the private interface is told to
    /// answer for its own addresses only. `state.json` says how it was.
    pub(super) fn silence_arp(&mut self) -> Result<(), EffectError> {
        if self.hooks.ebpf().is_some() || self.state.arp.is_some() {
            return Ok(());
        }
        let interface = self.path.interface.name.clone();
        let value = sysctl::read(&arp_ignore(&interface))?;
        if value != "0" {
            return Ok(());
        }
        self.state.arp = Some(SavedArp { interface: interface.clone(), value });
        self.store()?;
        Ok(sysctl::write(&arp_ignore(&interface), "1")?)
    }
}

fn arp_ignore(interface: &str) -> String {
    format!("net.ipv4.conf.{}.arp_ignore", interface.replace('.', "/"))
}

/// Puts back how the private interface answered ARP requests. An interface that is gone needs nothing.
///
/// # Errors
///
/// The kernel does not take it.
pub fn restore_arp(saved: &SavedArp) -> Result<(), SysctlError> {
    let key = arp_ignore(&saved.interface);
    if sysctl::read(&key).is_err() {
        return Ok(());
    }
    sysctl::write(&key, &saved.value)
}
