//! The network: it loses, duplicates, delays and reorders datagrams; connections hold up what they carry, and break.

use std::net::SocketAddrV4;
use std::time::Duration;

use rsip_capture::{Collection, Spoken};
use rsip_proto::gateway::{Peer, Transport};
use rsip_proto::host::HostTransport;

use crate::world::{Event, HOSTS, World};

impl World {
    /// Sends over the network as it is at this moment.
    pub(crate) fn transmit(&mut self, to_gateway: bool, channel: u64, event: Event) {
        let longest = Duration::from_millis(if self.calm { 5 } else { 60 });
        let delay = self.chance.between(Duration::from_micros(100), longest);
        match self.plan.transport {
            HostTransport::Udp => {
                if self.outage && !self.calm {
                    return;
                }
                if !self.calm && self.chance.in_thousand(100) {
                    self.tally.count("datagram duplicated");
                    let late = self.chance.between(delay, Duration::from_secs(2));
                    self.at(late, event.clone());
                }
                if !self.calm && self.chance.in_thousand(150) {
                    self.tally.count("datagram lost");
                    return;
                }
                let arrives = self.now + delay;
                let before = self.last_delivery.insert((channel, to_gateway), arrives);
                if before.is_some_and(|before| before > arrives) {
                    self.tally.count("datagrams reordered");
                }
                self.at(delay, event);
            }
            HostTransport::Tcp => {
                // An outage holds a connection up; what was sent arrives after it, if the connection lasts.
                let held_up = if self.outage && !self.calm { Duration::from_secs(4) } else { Duration::ZERO };
                let last = self.last_delivery.entry((channel, to_gateway)).or_insert(self.now);
                *last = (*last).max(self.now + delay + held_up) + Duration::from_nanos(1);
                let wait = *last - self.now;
                self.at(wait, event);
            }
        }
    }

    pub(crate) fn peer(&self, node: usize) -> Peer {
        let channel = self.nodes[node].channel;
        let port = 1024 + u16::try_from(channel % 60_000).expect("below 60000");
        let transport = match self.plan.transport {
            HostTransport::Udp => Transport::Udp,
            HostTransport::Tcp => Transport::Tcp(channel),
        };
        Peer { address: SocketAddrV4::new(self.nodes[node].address, port), transport }
    }

    pub(crate) fn node_of(&self, peer: Peer) -> Option<(usize, u64)> {
        (0..HOSTS).find(|node| self.peer(*node) == peer).map(|node| (node, self.nodes[node].channel))
    }
}

/// What is said goes into the capture of this run, whether or not the network loses it.
pub(crate) fn record(spoken: &Spoken) {
    rsip_capture::record(Collection::Spoken, spoken).expect("the capture can be written");
}

pub(crate) const fn carrier(peer: Peer) -> rsip_capture::Transport {
    match peer.transport {
        Transport::Udp => rsip_capture::Transport::Udp,
        Transport::Tcp(_) => rsip_capture::Transport::Tcp,
    }
}
