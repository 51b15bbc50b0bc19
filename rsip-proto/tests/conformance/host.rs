//! The host's machine in the hands of a file. Its shell does at once what it is told, unless the file says otherwise.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use rsip_capture::Spoken;
use rsip_proto::host::{Host, HostBinding, HostCommand, HostConfig, HostTransport, InstallFailed, Method};
use rsip_proto::lease::{Leased, Remote};
use rsip_proto::wire::Message;

use crate::script::{Output, Player};

const HOST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 5000);

pub(crate) struct HostPlayer {
    config: HostConfig,
    machine: Host,
    installs: bool,
}

impl HostPlayer {
    pub(crate) fn new(settings: &[(String, String)], now: Instant) -> Self {
        let mut config = HostConfig { block_size: 0, ..HostConfig::default() };
        settings.iter().for_each(|(key, value)| set(&mut config, key, value));
        Self { machine: Host::new(config.clone(), now), config, installs: true }
    }

    fn drain(&mut self, now: Instant) -> Vec<Output> {
        let mut outputs = Vec::new();
        while let Some(command) = self.machine.next_command() {
            outputs.push(match command {
                HostCommand::Send(message) => {
                    let bytes = message.encode().expect("what the host says can be written");
                    let carrier = match self.config.transport {
                        HostTransport::Udp => rsip_capture::Transport::Udp,
                        HostTransport::Tcp => rsip_capture::Transport::Tcp,
                    };
                    Output::Sends("gateway".to_owned(), Spoken::by_host(HOST, carrier, bytes))
                }
                HostCommand::Connect => Output::Asks("connect".to_owned()),
                HostCommand::Disconnect => Output::Asks("disconnect".to_owned()),
                HostCommand::Farewell(client_id) => Output::Asks(format!("farewell of {client_id}")),
                HostCommand::Publish { op, binding } => {
                    let done = if self.installs { Ok(()) } else { Err(InstallFailed) };
                    let how = if done.is_ok() { "" } else { ", which fails" };
                    self.machine.handle_done(op, done, now);
                    Output::Asks(format!("publish {}{how}", described(&binding)))
                }
                HostCommand::Renamed { binding, .. } => {
                    Output::Asks(format!("rename {}", described(&binding)))
                }
                HostCommand::Withdraw { binding, reason } => {
                    Output::Asks(format!("withdraw {}: {reason:?}", described(&binding)))
                }
                HostCommand::Verdict { port, outcome } => {
                    Output::Asks(format!("verdict on {port}: {outcome:?}"))
                }
                HostCommand::Local(networks) => {
                    let networks: Vec<String> =
                        networks.iter().map(|(net, prefix)| format!(" {net}/{prefix}")).collect();
                    Output::Asks(format!("local:{}", networks.concat()))
                }
                HostCommand::Registration(change) => Output::Asks(format!("registration: {change:?}")),
                HostCommand::Stopped => Output::Asks("stopped".to_owned()),
            });
        }
        outputs
    }
}

impl Player for HostPlayer {
    fn wakes_at(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    fn wake(&mut self, now: Instant) -> Vec<Output> {
        self.machine.handle_timeout(now);
        self.drain(now)
    }

    fn hears(&mut self, peer: &str, bytes: &[u8], now: Instant) -> Vec<Output> {
        assert_eq!(peer, "gateway", "a host hears its gateway alone");
        // What cannot be read is discarded (RFC 3103 section 9.1.3): the shell's part.
        if let Ok(message) = Message::parse(bytes) {
            self.machine.handle_message(message, now);
        }
        self.drain(now)
    }

    fn meets(&mut self, words: &str, now: Instant) -> Vec<Output> {
        let words: Vec<&str> = words.split_whitespace().collect();
        let port = |word: &str| word.parse::<u16>().expect("a port");
        match words.as_slice() {
            ["nothing"] => self.machine.handle_timeout(now),
            ["start"] => self.machine.start(now),
            ["connected"] => self.machine.handle_transport_up(now),
            ["connection", "lost"] => self.machine.handle_transport_down(now),
            ["want", number] => self.machine.want_port(port(number), now),
            ["listen", number] => self.machine.listen(port(number), now),
            ["release", number] => self.machine.release_port(port(number), now),
            ["unlisten", number] => self.machine.unlisten(port(number), now),
            ["install", "fails"] => self.installs = false,
            ["install", "works"] => self.installs = true,
            ["restart"] => {
                let saved = self.machine.saved();
                self.machine = Host::resume(self.config.clone(), saved, now);
                self.machine.start(now);
            }
            ["shut", "down"] => self.machine.shutdown(now),
            other => panic!("a host does not know {other:?}"),
        }
        self.drain(now)
    }
}

fn set(config: &mut HostConfig, key: &str, value: &str) {
    match (key, value) {
        ("transport", "udp") => config.transport = HostTransport::Udp,
        ("transport", "tcp") => config.transport = HostTransport::Tcp,
        ("method", "rsa-ip") => config.method = Method::RsaIp,
        ("method", "rsap-ip") => config.method = Method::RsapIp,
        ("block", size) => config.block_size = size.parse().expect("a number of ports"),
        ("wish", seconds) => config.lease_wish = Some(Duration::from_secs(seconds.parse().expect("seconds"))),
        ("probe", seconds) => config.probe_interval = Duration::from_secs(seconds.parse().expect("seconds")),
        ("remote", peer) => {
            config.remote = match peer.parse::<SocketAddrV4>() {
                Ok(peer) => Remote::Port(peer),
                Err(_) => Remote::Address(peer.parse().expect("a peer")),
            };
        }
        other => panic!("a host has no setting {other:?}"),
    }
}

fn described(binding: &HostBinding) -> String {
    let leased = match &binding.leased {
        Leased::Address => "whole".to_owned(),
        Leased::Ports(ports) => ports.to_string(),
    };
    let remote = match binding.remote {
        Remote::Any => String::new(),
        Remote::Address(address) => format!(" with {address}"),
        Remote::Port(peer) => format!(" with {peer}"),
    };
    let (kind, bind) = (binding.kind, binding.bind_id);
    format!("{} {leased}{remote}, bind {bind}, {kind:?}, {}", binding.address, binding.tunnel)
}
