//! What the programs report about hosts.

use std::future;
use std::net::Ipv4Addr;

use aya::Ebpf;
use aya::maps::{MapData, RingBuf};
use rsip_ebpf_common::gateway::{MisuseKind, maps};
use rsip_proto::gateway::Misuse;
use rsip_sys::tc;
use tokio::io::unix::AsyncFd;

use super::super::DatapathError;

/// The reports that wait.
pub(super) struct Reports {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Reports {
    /// Wants to be called within a tokio runtime.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        let ring: RingBuf<MapData> = tc::take_map(ebpf, maps::MISUSES)?;
        // SAFETY: the ring owns its map's descriptor, keeps it open until it is dropped, and always gives the same one.
        let ring = unsafe { AsyncFd::register(ring) }.map_err(|error| DatapathError::System {
            action: "wait for reports of the programs",
            source: error.into(),
        })?;
        Ok(Self { ring })
    }

    /// The next report. Cancel safe.
    pub(super) async fn next(&mut self) -> (Ipv4Addr, Misuse) {
        loop {
            let mut ready = match self.ring.readable_mut().await {
                Ok(ready) => ready,
                Err(error) => {
                    // The runtime is going down. Packets are dropped all the same, only nobody is told.
                    tracing::error!(%error, "cannot wait for reports of the programs");
                    return future::pending().await;
                }
            };
            let Some(item) = ready.get_inner_mut().next() else {
                ready.clear_ready();
                continue;
            };
            match read(&item) {
                Some(report) => return report,
                None => tracing::error!(length = item.len(), "a report of another form"),
            }
        }
    }
}

fn read(bytes: &[u8]) -> Option<(Ipv4Addr, Misuse)> {
    let (host, kind) = bytes.split_first_chunk::<4>()?;
    let kind = u32::from_ne_bytes(kind.try_into().ok()?);
    let kind = MisuseKind::ALL.into_iter().find(|known| *known as u32 == kind)?;
    let misuse = match kind {
        MisuseKind::LocalAddress => Misuse::LocalAddress,
        MisuseKind::LocalPort => Misuse::LocalPort,
        MisuseKind::RemoteAddress => Misuse::RemoteAddress,
        MisuseKind::RemotePort => Misuse::RemotePort,
        MisuseKind::Tunnel => Misuse::Tunnel,
    };
    Some((Ipv4Addr::from(*host), misuse))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(kind: u32) -> Vec<u8> {
        [&[10, 0, 0, 2][..], &kind.to_ne_bytes()].concat()
    }

    #[test]
    fn a_report_names_host_and_misuse() {
        let host = Ipv4Addr::new(10, 0, 0, 2);
        for (kind, misuse) in (0..).zip(Misuse::ALL) {
            assert_eq!(read(&report(kind)), Some((host, misuse)));
        }
    }

    #[test]
    fn a_report_of_another_form_is_none() {
        assert_eq!(read(&report(5)), None);
        assert_eq!(read(&report(0)[..7]), None);
        assert_eq!(read(&[report(0), vec![0]].concat()), None);
        assert_eq!(read(&[]), None);
    }
}
