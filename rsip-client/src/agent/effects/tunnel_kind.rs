//! The tunnel's type: what the bindings in use say.

use rsip_proto::host::HostBinding;
use rsip_proto::wire::TunnelType;

use super::Effects;
use crate::agent::failure::EffectError;

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
            tunnel.become_kind(&self.netlink, self.path.interface.mtu, wanted).await?;
            self.write_config()?;
        }
        Ok(())
    }
}
