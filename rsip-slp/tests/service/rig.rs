//! A service agent whose network is the test.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use rsip_slp::agent::{Command, Source, Via};
use rsip_slp::service::{Event, Role, ServiceAgent, ServiceConfig};
use rsip_slp::template::{self, Load};
use rsip_slp::text::AttributeList;
use rsip_slp::wire::message::{DaAdvert, SrvReg};
use rsip_slp::wire::{Body, ErrorCode, Flags, Message};

pub(crate) const URL: &str = "service:rsip://10.0.0.1:4555";
pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const DA: [u8; 4] = [10, 0, 0, 9];

/// What was sent, when, in milliseconds since the beginning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) at: u64,
    pub(crate) to: To,
    pub(crate) message: Message,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Group,
    Datagram(SocketAddrV4),
    Stream(SocketAddrV4),
    Connection(u64),
}

pub(crate) fn datagram(host: [u8; 4]) -> To {
    To::Datagram(SocketAddrV4::new(host.into(), 427))
}

pub(crate) fn attributes(load: u8) -> AttributeList {
    template::attributes(["IP-IP"], Load::new(load)).expect("attributes")
}

/// A gateway of 10.0.0.1 with load 0 and a lifetime of 600 s.
pub(crate) fn config(role: Role) -> ServiceConfig {
    ServiceConfig { lifetime: 600, ..ServiceConfig::rsip(template::url(OWN, 4555), attributes(0), role) }
}

pub(crate) fn alone() -> ServiceConfig {
    config(Role::Alone { addresses: vec![OWN, [192, 0, 2, 1].into()], directories: vec![] })
}

pub(crate) fn configured() -> ServiceConfig {
    config(Role::Alone { addresses: vec![OWN], directories: vec![DA.into()] })
}

pub(crate) struct Rig {
    pub(crate) agent: ServiceAgent,
    begin: Instant,
    pub(crate) now: Instant,
}

impl Rig {
    pub(crate) fn new(config: ServiceConfig) -> Self {
        let begin = Instant::now();
        let mut agent = ServiceAgent::new(config, 1, begin).expect("a configuration");
        agent.handle_timeout(begin);
        Self { agent, begin, now: begin }
    }

    pub(crate) fn at(&self) -> u64 {
        u64::try_from((self.now - self.begin).as_millis()).expect("short")
    }

    /// What is to be sent at this moment.
    pub(crate) fn drain(&mut self) -> Vec<Sent> {
        let at = self.at();
        std::iter::from_fn(|| self.agent.next_command())
            .map(|command| {
                let (to, bytes) = match command {
                    Command::Multicast { bytes } => (To::Group, bytes),
                    Command::Datagram { to, bytes } => (To::Datagram(to), bytes),
                    Command::Connect { to, bytes } => (To::Stream(to), bytes),
                    Command::Answer { connection, bytes } => (To::Connection(connection), bytes),
                };
                Sent { at, to, message: Message::parse(&bytes).expect("a message") }
            })
            .collect()
    }

    /// What is sent in the next milliseconds.
    pub(crate) fn pass(&mut self, milliseconds: u64) -> Vec<Sent> {
        let end = self.now + Duration::from_millis(milliseconds);
        let mut sent = self.drain();
        let mut turns = 0;
        while let Some(timer) = self.agent.poll_timeout().filter(|timer| *timer <= end) {
            turns += 1;
            assert!(turns < 10_000, "the clock stands still");
            self.now = timer.max(self.now);
            self.agent.handle_timeout(self.now);
            sent.extend(self.drain());
        }
        self.now = end;
        sent
    }

    /// The next thing that is sent, and only that.
    pub(crate) fn next(&mut self) -> Sent {
        let mut sent = self.drain();
        while sent.is_empty() {
            self.now = self.agent.poll_timeout().expect("something to do").max(self.now);
            self.agent.handle_timeout(self.now);
            sent = self.drain();
        }
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.agent.next_event()).collect()
    }

    pub(crate) fn message(&mut self, from: [u8; 4], via: Via, message: &Message) {
        self.bytes(from, via, &message.encode().expect("bytes"));
    }

    pub(crate) fn bytes(&mut self, from: [u8; 4], via: Via, bytes: &[u8]) {
        let address = SocketAddrV4::new(from.into(), 427);
        self.agent.handle_message(Source { address, via }, bytes, self.now);
    }

    /// An answer comes to what was sent.
    pub(crate) fn answer(&mut self, from: [u8; 4], to: &Sent, body: Body) {
        let via = if matches!(to.to, To::Stream(_)) { Via::Opened } else { Via::Datagram };
        self.message(from, via, &reply(to.message.xid, body));
    }

    pub(crate) fn ack(&mut self, from: [u8; 4], to: &Sent, error: Option<ErrorCode>) {
        self.answer(from, to, Body::SrvAck { error });
    }

    /// A directory agent introduces itself by multicast.
    pub(crate) fn advert(&mut self, advert: &DaAdvert) {
        self.message(DA, Via::Group, &reply(0, Body::DaAdvert(advert.clone())));
    }

    /// A configured directory agent has introduced itself and taken the registration.
    pub(crate) fn registered(config: ServiceConfig, advert: &DaAdvert) -> Self {
        let mut rig = Self::new(config);
        let asked = rig.next();
        rig.answer(DA, &asked, Body::DaAdvert(advert.clone()));
        let registration = rig.next();
        rig.ack(DA, &registration, None);
        rig.events();
        rig
    }
}

pub(crate) fn reply(xid: u16, body: Body) -> Message {
    Message { flags: Flags::default(), xid, language: "en".to_owned(), body }
}

pub(crate) fn advert(boot_timestamp: u32, scopes: &str, attributes: &str) -> DaAdvert {
    DaAdvert {
        error: None,
        boot_timestamp,
        url: "service:directory-agent://10.0.0.9".to_owned(),
        scopes: scopes.to_owned(),
        attributes: attributes.to_owned(),
        spis: String::new(),
    }
}

/// The registration that was sent.
pub(crate) fn registration(sent: &Sent) -> &SrvReg {
    match &sent.message.body {
        Body::SrvReg(registration) => registration,
        other => unreachable!("{other:?}"),
    }
}
