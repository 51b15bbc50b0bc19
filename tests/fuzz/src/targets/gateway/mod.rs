//! The gateway as a whole: several hosts, honest or not, over UDP and TCP; a data path that answers late or fails; time.
//!
//! The input is a script: settings first, then steps. What the gateway says is checked at once against a [`Model`] that
//! knows nothing of its insides; at the end the data path answers everything and all leases run out, and then nothing
//! may be left.

mod model;
mod script;
mod settings;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use rsip_proto::gateway::{Gateway, GatewayConfig, InstallFailed, Misuse, Peer, Transport};
use rsip_proto::ids::{BindId, ClientId};
use rsip_proto::wire::{Body, Message, Ports};

use crate::input::Input;
use model::Model;

/// Longer scripts show nothing new, and make one input slow.
const MAX_STEPS: usize = 400;
/// More commands for one input than could be right.
const MAX_COMMANDS: usize = 10_000;
/// Hosts of the script.
const HOSTS: usize = 5;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut world = World::new(settings::read(&mut input));
    for _ in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        world.step(&mut input);
    }
    world.settle(input.flag());
}

struct World {
    config: GatewayConfig,
    gateway: Gateway,
    now: Instant,
    model: Model,
}

impl World {
    fn new(config: GatewayConfig) -> Self {
        let gateway = match Gateway::new(config.clone(), 7) {
            Ok(gateway) => gateway,
            Err(error) => unreachable!("the settings make sense: {error}"),
        };
        Self { model: Model::new(&config), config, gateway, now: Instant::now() }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0 => {
                let peer = peer(input);
                let length = usize::from(input.word() % 600);
                let bytes = input.bytes(length);
                self.deliver(peer, bytes);
            }
            1..=8 => {
                let peer = peer(input);
                let message = script::request(input, &self.model, *peer.address.ip());
                // What cannot be written cannot be sent.
                if let Ok(mut bytes) = message.encode() {
                    if input.byte() == 255 {
                        script::damage(input, &mut bytes);
                    }
                    self.deliver(peer, &bytes);
                }
            }
            9 => self.answer(input),
            10 => {
                let unit = if input.flag() { Duration::from_millis(10) } else { Duration::from_millis(500) };
                self.now += unit * u32::from(input.byte());
                if input.flag() {
                    self.gateway.handle_timeout(self.now);
                }
            }
            11 => self.gateway.handle_disconnect(u64::from(input.byte() % 8), self.now),
            12 => {
                let (client_id, bind_id) = self.model.names(input);
                if input.flag() {
                    self.gateway.release_client(client_id, self.now);
                } else {
                    self.gateway.release_bind(client_id, bind_id, self.now);
                }
            }
            13 => {
                let host = host(input);
                self.gateway.handle_misuse(host, misuse(input), self.now);
            }
            _ => self.answer(input),
        }
        self.check();
    }

    fn deliver(&mut self, peer: Peer, bytes: &[u8]) {
        self.model.heard(peer, bytes);
        self.gateway.handle_input(peer, bytes, self.now);
    }

    /// The data path has done, or could not do, one of the things that it was told.
    fn answer(&mut self, input: &mut Input<'_>) {
        if let Some(op) = self.model.pick_op(input) {
            let result = if input.byte().is_multiple_of(8) { Err(InstallFailed) } else { Ok(()) };
            self.model.done(op, result.is_ok());
            self.gateway.handle_done(op, result, self.now);
        }
    }

    /// Takes all commands, then compares the whole.
    fn check(&mut self) {
        let mut count = 0;
        while let Some(command) = self.gateway.next_command() {
            count += 1;
            assert!(count < MAX_COMMANDS, "does not come to an end");
            self.model.command(&command);
        }
        self.model.compare(&self.gateway.view(self.now));
    }

    /// The data path answers, and time passes or the daemon ends: nothing may be left.
    fn settle(&mut self, shut_down: bool) {
        if shut_down {
            self.gateway.shutdown(self.now);
            self.check();
        }
        let mut rounds = 0;
        loop {
            self.finish_ops();
            let Some(at) = self.gateway.poll_timeout() else { break };
            assert!(rounds < MAX_COMMANDS, "timers without end");
            rounds += 1;
            self.now = self.now.max(at);
            self.gateway.handle_timeout(self.now);
            self.check();
        }
        assert!(self.gateway.is_drained(), "the data path holds something for nobody");
        assert!(self.gateway.view(self.now).clients.is_empty(), "somebody stays registered for ever");
        self.model.expect_nothing();
        if !shut_down {
            self.lease_it_all();
        }
    }

    fn finish_ops(&mut self) {
        while let Some(op) = self.model.first_op() {
            self.model.done(op, true);
            self.gateway.handle_done(op, Ok(()), self.now);
            self.check();
        }
    }

    /// Everything came back: a new host can have as much as the settings allow.
    fn lease_it_all(&mut self) {
        self.now += self.config.pool.rest + Duration::from_secs(3600);
        let stranger = Peer {
            address: SocketAddrV4::new(Ipv4Addr::new(10, 0, 1, 1), 4555),
            transport: Transport::Tcp(1_000_000),
        };
        let say = |world: &mut Self, body: Body| {
            let bytes = Message { counter: None, body }.encode().unwrap_or_default();
            world.deliver(stranger, &bytes);
            world.check();
            world.finish_ops();
        };
        say(self, Body::RegisterRequest);
        let client_id = self.model.client_of(*stranger.address.ip());
        let Some(client_id) = client_id else {
            unreachable!("nobody is registered, and yet there is no room")
        };
        let count = settings::choosable(&self.config).min(self.config.max_ports_per_client).min(255);
        let count = if settings::is_local_micro(&self.config) { 1 } else { count };
        let count = u8::try_from(count).unwrap_or(u8::MAX);
        say(self, script::assign(client_id, Ports::DontCare { count }));
        let leased = self.model.ports_of(client_id);
        assert_eq!(leased, u32::from(count), "ports were lost");
    }
}

fn host(input: &mut Input<'_>) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, u8::try_from(input.below(HOSTS)).unwrap_or_default() + 2)
}

fn peer(input: &mut Input<'_>) -> Peer {
    let ip = host(input);
    let choice = input.byte();
    let transport = if choice & 1 == 0 {
        Transport::Udp
    } else {
        // A connection belongs to one host.
        Transport::Tcp(u64::from(ip.octets()[3]) * 2 + u64::from(choice >> 1 & 1))
    };
    let port = if choice & 4 == 0 { 4555 } else { 5000 };
    Peer { address: SocketAddrV4::new(ip, port), transport }
}

fn misuse(input: &mut Input<'_>) -> Misuse {
    match input.byte() % 5 {
        0 => Misuse::LocalAddress,
        1 => Misuse::LocalPort,
        2 => Misuse::RemoteAddress,
        3 => Misuse::RemotePort,
        _ => Misuse::Tunnel,
    }
}

/// Names that nobody has.
const NOBODY: (ClientId, BindId) = (ClientId(0), BindId(0));
