//! The gateway's machine in the hands of a file. Its data path does at once what it is told, unless the file says otherwise.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rsip_capture::Spoken;
use rsip_proto::gateway::{
    Gateway, GatewayCommand, GatewayConfig, InstallFailed, Misuse, Peer, RemoteDeny, Rule, Transport,
};
use rsip_proto::ids::{BindId, ClientId};
use rsip_proto::lease::{Leased, Remote};
use rsip_proto::pool::PoolConfig;
use rsip_proto::wire::{FlowPolicy, Framer, LocalPolicy, RemotePolicy, TunnelType};

use crate::script::{Output, Player};

/// From which the client IDs come; a restart takes the next one.
const SEED: u64 = 3103;

pub(crate) struct GatewayPlayer {
    config: GatewayConfig,
    seed: u64,
    machine: Gateway,
    /// What came over each connection, and whose it is.
    streams: BTreeMap<u64, Framer>,
    data_path_works: bool,
}

impl GatewayPlayer {
    pub(crate) fn new(settings: &[(String, String)]) -> Self {
        let mut config = GatewayConfig::new(PoolConfig {
            addresses: vec![Ipv4Addr::new(192, 0, 2, 1)],
            whole: Vec::new(),
            port_range: 10_000..=10_999,
            listen_range: 1..=1023,
            reserved: vec![22],
            rest: Duration::from_secs(120),
        });
        settings.iter().for_each(|(key, value)| set(&mut config, key, value));
        let machine = Gateway::new(config.clone(), SEED).expect("a pool that makes sense");
        Self { config, seed: SEED, machine, streams: BTreeMap::new(), data_path_works: true }
    }

    /// Everything that the machine says; what it tells the data path is done.
    fn drain(&mut self, now: Instant) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some(command) = self.machine.next_command() {
            match command {
                GatewayCommand::Send { to, message } => {
                    let bytes = message.encode().expect("what the gateway says can be written");
                    let carrier = match to.transport {
                        Transport::Udp => rsip_capture::Transport::Udp,
                        Transport::Tcp(_) => rsip_capture::Transport::Tcp,
                    };
                    let spoken = Spoken::by_gateway(to.address, carrier, bytes);
                    outputs.push(Output::Sends(name(to), spoken));
                }
                GatewayCommand::Install { op, rule } => {
                    let done = if self.data_path_works { Ok(()) } else { Err(InstallFailed) };
                    let how = if done.is_ok() { "" } else { ", which fails" };
                    outputs.push(Output::Asks(format!("install {}{how}", described(&rule))));
                    self.machine.handle_done(op, done, now);
                }
                GatewayCommand::Remove { op, rule } => {
                    outputs.push(Output::Asks(format!("remove {}", described(&rule))));
                    self.machine.handle_done(op, Ok(()), now);
                }
                GatewayCommand::Close { peer } => outputs.push(Output::Asks(format!("close {}", name(peer)))),
                // For the log: what happened is seen by what is sent and done.
                GatewayCommand::Event(_) => {}
            }
        }
        outputs
    }
}

impl Player for GatewayPlayer {
    fn wakes_at(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    fn wake(&mut self, now: Instant) -> Vec<Output> {
        self.machine.handle_timeout(now);
        self.drain(now)
    }

    fn hears(&mut self, peer: &str, bytes: &[u8], now: Instant) -> Vec<Output> {
        let peer = parse_peer(peer);
        let Transport::Tcp(connection) = peer.transport else {
            self.machine.handle_input(peer, bytes, now);
            return self.drain(now);
        };
        let framer = self.streams.entry(connection).or_default();
        framer.push(bytes);
        let messages: Vec<Vec<u8>> = std::iter::from_fn(|| framer.next_message())
            .map(|framed| framed.unwrap_or_else(|error| error.header().to_vec()))
            .collect();
        let mut outputs = Vec::new();
        for message in messages {
            self.machine.handle_input(peer, &message, now);
            outputs.extend(self.drain(now));
        }
        outputs
    }

    fn meets(&mut self, words: &str, now: Instant) -> Vec<Output> {
        let words: Vec<&str> = words.split_whitespace().collect();
        let number = |word: &str| word.parse::<u32>().expect("a number");
        match words.as_slice() {
            ["nothing"] => self.machine.handle_timeout(now),
            ["restart"] => {
                self.seed += 1;
                self.streams.clear();
                self.machine = Gateway::new(self.config.clone(), self.seed).expect("as before");
            }
            ["connection", number, "ends"] => {
                self.machine.handle_disconnect(number.parse().expect("a number"), now);
            }
            ["data", "path", "fails"] => self.data_path_works = false,
            ["data", "path", "works"] => self.data_path_works = true,
            ["take", "back", client, bind] => {
                let (client, bind) = (ClientId(number(client)), BindId(number(bind)));
                assert!(self.machine.release_bind(client, bind, now), "there is no such binding");
            }
            ["send", "away", client] => {
                assert!(
                    self.machine.release_client(ClientId(number(client)), now),
                    "there is no such client"
                );
            }
            ["shut", "down"] => self.machine.shutdown(now),
            ["fault"] => self.machine.fail(now),
            ["misuse", host, what] => {
                let misuse = match *what {
                    "local-address" => Misuse::LocalAddress,
                    "local-port" => Misuse::LocalPort,
                    "remote-address" => Misuse::RemoteAddress,
                    "remote-port" => Misuse::RemotePort,
                    "tunnel" => Misuse::Tunnel,
                    other => panic!("no misuse: {other}"),
                };
                self.machine.handle_misuse(host.parse().expect("an address"), misuse, now);
            }
            other => panic!("a gateway does not know {other:?}"),
        }
        self.drain(now)
    }
}

fn set(config: &mut GatewayConfig, key: &str, value: &str) {
    let seconds = || Duration::from_secs(value.parse().expect("seconds"));
    match key {
        "pool" => config.pool.addresses = list(value),
        "whole" => config.pool.whole = list(value),
        "ports" => config.pool.port_range = range(value),
        "listen" if value == "off" => config.listen = false,
        "listen" => config.pool.listen_range = range(value),
        "lease" => config.lease_time = seconds(),
        "max-lease" => config.max_lease_time = seconds(),
        "rest" => config.pool.rest = seconds(),
        "max-clients" => config.max_clients = value.parse().expect("a number"),
        "max-ports" => config.max_ports_per_client = value.parse().expect("a number"),
        "private" => config.private_nets = value.split(' ').map(network).collect(),
        "tunnels" => config.tunnel_types = value.split(' ').map(tunnel).collect(),
        "deny" => {
            let (net, ports) = value.split_once(' ').unwrap_or((value, "0-65535"));
            config.remote_deny.push(RemoteDeny { network: network(net), ports: range(ports) });
        }
        "policy" => {
            let (local, remote) = value.split_once('/').expect("LOCAL/REMOTE");
            let local = LocalPolicy::ALL.iter().find(|it| it.name() == local).expect("a local policy");
            let remote = RemotePolicy::ALL.iter().find(|it| it.name() == remote).expect("a remote policy");
            config.flow_policy = FlowPolicy { local: *local, remote: *remote };
        }
        other => panic!("a gateway has no setting {other}"),
    }
}

fn list(value: &str) -> Vec<Ipv4Addr> {
    value.split_whitespace().map(|word| word.parse().expect("an address")).collect()
}

fn range(value: &str) -> RangeInclusive<u16> {
    let (first, last) = value.split_once('-').unwrap_or((value, value));
    first.parse().expect("a port")..=last.parse().expect("a port")
}

fn network(value: &str) -> (Ipv4Addr, u8) {
    let (net, prefix) = value.split_once('/').unwrap_or((value, "32"));
    (net.parse().expect("a network"), prefix.parse().expect("a prefix length"))
}

fn tunnel(value: &str) -> TunnelType {
    match value {
        "ip-ip" => TunnelType::IpIp,
        "gre" => TunnelType::Gre,
        other => panic!("no tunnel: {other}"),
    }
}

/// `udp ADDRESS:PORT`, or `tcp NUMBER ADDRESS:PORT`.
fn parse_peer(peer: &str) -> Peer {
    match peer.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["udp", address] => Peer { address: address.parse().expect("an address"), transport: Transport::Udp },
        ["tcp", number, address] => Peer {
            address: address.parse().expect("an address"),
            transport: Transport::Tcp(number.parse().expect("a number")),
        },
        other => panic!("no peer: {other:?}"),
    }
}

fn name(peer: Peer) -> String {
    match peer.transport {
        Transport::Udp => format!("udp {}", peer.address),
        Transport::Tcp(number) => format!("tcp {number} {}", peer.address),
    }
}

fn described(rule: &Rule) -> String {
    let leased = match &rule.leased {
        Leased::Address => "whole".to_owned(),
        Leased::Ports(ports) => ports.to_string(),
    };
    let remote = match rule.remote {
        Remote::Any => String::new(),
        Remote::Address(address) => format!(" with {address}"),
        Remote::Port(peer) => format!(" with {peer}"),
    };
    format!("{} {leased} for {}{remote}, {}", rule.address, rule.host, rule.tunnel)
}
