//! What fits on the way to the gateway (RFC 2003, section 5: "tunnel soft state"). The tunnel's packets are never fragmented,
//! so a router that is narrower than the private interface says so, and the tunnel's own packets are made to fit.

use std::time::{Duration, Instant};

use super::Effects;
use crate::agent::failure::EffectError;

/// Routes change: a wider one is tried after so long (RFC 1191, section 6.3).
const HOLDS: Duration = Duration::from_secs(600);

/// A narrow place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Narrow {
    mtu: u32,
    until: Instant,
}

impl Effects {
    /// A router said that no more than `mtu` fits, outer header included.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn narrow(&mut self, mtu: u32, now: Instant) -> Result<(), EffectError> {
        if self.narrow.is_some_and(|known| known.mtu <= mtu) || mtu >= self.path.interface.mtu {
            return Ok(());
        }
        tracing::info!(
            mtu,
            "a router on the way to the gateway takes no more: the tunnel's packets are made to fit"
        );
        self.narrow = Some(Narrow { mtu, until: now + HOLDS });
        self.set_width(Some(mtu)).await
    }

    /// Tries whether more fits by now, when it is time to.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn widen(&mut self, now: Instant) -> Result<(), EffectError> {
        if self.narrow.is_none_or(|known| now < known.until) {
            return Ok(());
        }
        tracing::debug!("trying whether more fits on the way to the gateway");
        self.narrow = None;
        self.set_width(None).await
    }

    async fn set_width(&mut self, mtu: Option<u32>) -> Result<(), EffectError> {
        if let Some(tunnel) = &mut self.tunnel {
            tunnel.narrow(&self.netlink, self.path.interface.mtu, mtu).await?;
        }
        self.write_config()
    }
}
