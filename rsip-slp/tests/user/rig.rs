//! A user agent whose network is the test.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use rsip_slp::agent::{Command, Source, Via};
use rsip_slp::user::{NoService, Service, UserAgent, UserConfig};
use rsip_slp::wire::message::{AttrRply, DaAdvert, SrvRply, UrlEntry};
use rsip_slp::wire::{Body, Flags, Message};

pub(crate) const URL: &str = "service:rsip://10.0.0.1:4555";

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
    Datagram(Ipv4Addr),
    Stream(Ipv4Addr),
}

pub(crate) struct Rig {
    pub(crate) agent: UserAgent,
    begin: Instant,
    now: Instant,
}

impl Rig {
    pub(crate) fn new(config: UserConfig) -> Self {
        let begin = Instant::now();
        let mut agent = UserAgent::new(config, 1, begin).expect("a configuration");
        agent.handle_timeout(begin);
        Self { agent, begin, now: begin }
    }

    fn drain(&mut self) -> Vec<Sent> {
        let at = u64::try_from((self.now - self.begin).as_millis()).expect("short");
        std::iter::from_fn(|| self.agent.next_command())
            .map(|command| {
                let (to, bytes) = match command {
                    Command::Multicast { bytes } => (To::Group, bytes),
                    Command::Datagram { to, bytes } => (To::Datagram(host(to)), bytes),
                    Command::Connect { to, bytes } => (To::Stream(host(to)), bytes),
                    Command::Answer { .. } => unreachable!("a user agent answers nobody"),
                };
                Sent { at, to, message: Message::parse(&bytes).expect("a message") }
            })
            .collect()
    }

    /// What is sent until so many milliseconds after the beginning.
    pub(crate) fn until(&mut self, milliseconds: u64) -> Vec<Sent> {
        let end = self.begin + Duration::from_millis(milliseconds);
        let mut sent = self.drain();
        while let Some(timer) = self.agent.poll_timeout().filter(|timer| *timer <= end) {
            assert!(timer > self.now || self.now == self.begin, "the clock stands still");
            self.now = timer.max(self.now);
            self.agent.handle_timeout(self.now);
            sent.extend(self.drain());
        }
        self.now = end;
        sent
    }

    /// An answer comes to what was sent.
    pub(crate) fn answer(&mut self, from: [u8; 4], to: &Sent, body: Body) {
        self.answer_with(from, to, Flags::default(), body);
    }

    pub(crate) fn answer_with(&mut self, from: [u8; 4], to: &Sent, flags: Flags, body: Body) {
        let message = Message { flags, xid: to.message.xid, language: "en".to_owned(), body };
        let via = if matches!(to.to, To::Stream(_)) { Via::Opened } else { Via::Datagram };
        self.raw(from, via, &message.encode().expect("bytes"));
    }

    pub(crate) fn raw(&mut self, from: [u8; 4], via: Via, bytes: &[u8]) {
        let address = SocketAddrV4::new(from.into(), 427);
        self.agent.handle_message(Source { address, via }, bytes, self.now);
    }

    pub(crate) fn fail(&mut self, to: [u8; 4]) {
        self.agent.handle_failure(SocketAddrV4::new(to.into(), 427), self.now);
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.services().iter().map(|service| service.url.to_string()).collect()
    }

    pub(crate) fn services(&self) -> Vec<Service> {
        self.outcome().expect("an end").expect("services")
    }

    pub(crate) fn outcome(&self) -> Option<Result<Vec<Service>, NoService>> {
        self.agent.outcome()
    }
}

fn host(to: SocketAddrV4) -> Ipv4Addr {
    assert_eq!(to.port(), 427);
    *to.ip()
}

/// The service type of a request for services.
pub(crate) fn wanted(sent: &Sent) -> &str {
    match &sent.message.body {
        Body::SrvRqst(request) => &request.service_type,
        _ => "",
    }
}

/// When, to whom, for which type.
pub(crate) fn requests(sent: &[Sent]) -> Vec<(u64, To, &str)> {
    sent.iter().map(|sent| (sent.at, sent.to, wanted(sent))).collect()
}

pub(crate) fn found(urls: &[&str]) -> Body {
    let entry = |url: &&str| UrlEntry { lifetime: 300, url: (*url).to_owned() };
    Body::SrvRply(SrvRply { error: None, entries: urls.iter().map(entry).collect() })
}

pub(crate) fn load(percent: u8) -> Body {
    Body::AttrRply(AttrRply { error: None, attributes: format!("(load={percent})") })
}

pub(crate) fn advert(address: &str, scopes: &str) -> Body {
    Body::DaAdvert(DaAdvert {
        boot_timestamp: 1,
        url: format!("service:directory-agent://{address}"),
        scopes: scopes.to_owned(),
        ..DaAdvert::default()
    })
}
