//! Datagrams: one message each, answered from the address that was asked.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::{Audience, Input, Place};

/// Sources that are remembered before those with nothing under way are forgotten.
const SOURCES: usize = 1024;

/// Reads until the daemon listens no more. While the channel is full the kernel's buffer fills, and then drops: hosts
/// send again. Before that, whoever has more in the channel than there is room left loses what is over: a flood from one
/// host leaves room for the others.
pub async fn serve(socket: Arc<UdpSocket>, inputs: mpsc::Sender<Input>, audience: Audience) {
    // The largest datagram there is: one that is cut off would look like a message with a wrong length.
    let mut buffer = vec![0; usize::from(u16::MAX)];
    let mut shares = Shares::default();
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((_, SocketAddr::V4(from))) if !audience.hears(*from.ip()) => {
                tracing::debug!(%from, "datagram dropped: not from a host");
            }
            Ok((length, SocketAddr::V4(from))) => {
                let Some(place) = shares.place(*from.ip(), inputs.capacity()) else {
                    tracing::debug!(%from, "datagram dropped: too many wait");
                    continue;
                };
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                if inputs.send(Input::Datagram { from, bytes, place }).await.is_err() {
                    return;
                }
            }
            Ok((_, SocketAddr::V6(_))) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot receive datagrams");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// How much of the channel each source has: a mark for each, referred to by each of its places.
#[derive(Default)]
struct Shares {
    marks: BTreeMap<Ipv4Addr, Arc<()>>,
}

impl Shares {
    /// A place, unless `source` has more than the `room` that is left: so one source gets half of the channel, and a
    /// second one still half of the rest. Whoever has none gets one, and waits for room.
    fn place(&mut self, source: Ipv4Addr, room: usize) -> Option<Place> {
        if self.marks.len() >= SOURCES && !self.marks.contains_key(&source) {
            self.marks.retain(|_, mark| Arc::strong_count(mark) > 1);
        }
        let mark = self.marks.entry(source).or_default();
        let has = Arc::strong_count(mark) - 1;
        (has == 0 || has <= room).then(|| Place::of_source(mark))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    #[test]
    fn one_source_gets_half_of_the_channel_and_others_half_of_what_is_left() {
        let mut shares = Shares::default();
        let mut held = Vec::new();
        for (source, expected) in [(FLOOD, 50), (OTHER, 25)] {
            let mut got = 0;
            while let Some(place) = shares.place(source, 100 - held.len()) {
                held.push(place);
                got += 1;
                assert!(got <= 100, "no end");
            }
            assert!((expected..=expected + 2).contains(&got), "{source}: {got}");
        }
        // One each, however little is left: waiting in turn is not unfair.
        assert!(shares.place(Ipv4Addr::new(10, 0, 0, 3), 0).is_some());
        held.clear();
        assert!(shares.place(FLOOD, 1).is_some(), "what was carried out counts no more");
    }

    #[test]
    fn sources_without_a_place_are_forgotten() {
        let mut shares = Shares::default();
        let held = shares.place(OTHER, 10);
        for source in 0..3 * SOURCES as u32 {
            drop(shares.place(Ipv4Addr::from_bits(source), 10));
            assert!(shares.marks.len() <= SOURCES);
        }
        assert!(held.is_some() && shares.marks.contains_key(&OTHER));
    }
}
