//! What happens by chance: programs come, administrators decide, and things go wrong.

use std::time::Duration;

use rsip_proto::gateway::{Misuse, Transport};
use rsip_proto::host::HostTransport;

use crate::plan::{Chance, FOUGHT_OVER, STATIC};
use crate::world::{Event, HOSTS, World};

impl World {
    /// Something happens by chance: a program comes, or something goes wrong.
    pub(crate) fn something(&mut self) {
        if self.calm {
            return;
        }
        let pause = self.chance.between(Duration::ZERO, Duration::from_millis(250));
        self.at(pause, Event::Something);
        let node = usize::try_from(self.chance.below(HOSTS as u64)).expect("small");
        let now = self.now;
        match self.chance.below(100) {
            0..=59 => {
                let port = pick(&mut self.chance, FOUGHT_OVER);
                if !self.nodes[node].programs.contains(&port) {
                    self.nodes[node].want(port, now);
                }
            }
            60..=64 => {
                let port = pick(&mut self.chance, STATIC);
                self.nodes[node].listen(port, now);
            }
            65..=68 => {
                let port = pick(&mut self.chance, STATIC);
                self.nodes[node].host.unlisten(port, now);
            }
            69..=71 => self.nodes[node].host.want_block(now),
            72..=74 => {
                let bindings = self.nodes[node].host.view(now).bindings;
                if let Some(block) = bindings.first() {
                    self.nodes[node].host.release_block(block.binding.bind_id, now);
                }
            }
            75..=77 => {
                self.outage = true;
                self.tally.count("outage");
                // Now and then longer than the short leases.
                let longest = if self.chance.in_thousand(100) { 25 } else { 4 };
                let time = self.chance.between(Duration::ZERO, Duration::from_secs(longest));
                self.at(time, Event::OutageEnds);
            }
            78..=81 => self.break_connection(node),
            82..=84 if self.plan.agents => {
                self.drop_connection(node);
                let with_state = !self.chance.in_thousand(300);
                self.nodes[node].crash(with_state, now);
            }
            85 if self.plan.gateway => self.kill_gateway(),
            86..=88 if self.plan.gateway => self.take_back(),
            89..=90 => self.misuse(node),
            _ => {}
        }
        self.serve_node(node);
    }

    fn kill_gateway(&mut self) {
        let down = self.chance.between(Duration::ZERO, Duration::from_secs(5));
        self.tally.count("gateway killed");
        self.gate.kill(self.now + down);
        let run = self.gate.run;
        self.at(down, Event::GatewayStarts { run });
        if self.plan.transport == HostTransport::Tcp {
            for node in 0..HOSTS {
                let channel = self.nodes[node].channel;
                self.at(Duration::from_millis(1), Event::Broken { node, channel });
            }
        }
    }

    /// The administrator takes a binding or a registration back.
    fn take_back(&mut self) {
        if !self.gate.is_up() {
            return;
        }
        let clients = self.gate.machine.view(self.now).clients;
        let Some(client) = clients.first() else { return };
        match client.bindings.last() {
            Some(binding) if self.chance.in_thousand(700) => {
                self.tally.count("binding taken back");
                self.gate.machine.release_bind(client.client_id, binding.bind_id, self.now);
            }
            _ => {
                self.tally.count("host sent away");
                self.gate.machine.release_client(client.client_id, self.now);
            }
        }
        self.serve_gate();
    }

    /// A program on this host sends what it may not.
    fn misuse(&mut self, node: usize) {
        if self.gate.is_up() {
            let kinds = Misuse::ALL;
            let kind = usize::try_from(self.chance.below(kinds.len() as u64)).expect("small");
            self.gate.machine.handle_misuse(self.nodes[node].address, kinds[kind], self.now);
            self.serve_gate();
        }
    }

    fn break_connection(&mut self, node: usize) {
        if self.plan.transport == HostTransport::Tcp && self.nodes[node].connected {
            let channel = self.nodes[node].channel;
            self.tally.count("connection broken");
            self.drop_connection(node);
            self.at(Duration::from_millis(1), Event::Broken { node, channel });
        }
    }

    /// What is under way in either direction is lost, and the gateway hears of it in a while.
    fn drop_connection(&mut self, node: usize) {
        if self.plan.transport == HostTransport::Tcp {
            let gone = self.nodes[node].channel;
            self.events.retain(|_, event| match event {
                Event::ToGateway { peer, .. } => peer.transport != Transport::Tcp(gone),
                Event::ToHost { channel, .. } => *channel != gone,
                _ => true,
            });
            let run = self.gate.run;
            let wait = self.chance.between(Duration::ZERO, Duration::from_millis(50));
            self.at(wait, Event::GatewayLost { run, connection: gone });
        }
    }
}

fn pick(chance: &mut Chance, range: std::ops::Range<u16>) -> u16 {
    let span = u64::from(range.end - range.start);
    range.start + u16::try_from(chance.below(span)).expect("below the span")
}
