//! The user agent: looks for services (RFC 2608 sections 6 and 12, RFC 3105 sections 4 and 6).
//!
//! ```text
//!   configured directory agents ──all silent──► search for directory agents ──none, or scopes left──► multicast to
//!        │ asked by unicast                          │ asked by unicast                             service agents
//!        └───────────────────────────┬───────────────┴───────────────────────────────────────────────────┘
//!                                    ▼
//!                     attributes of each service, by unicast ──► sorted by load
//! ```
//!
//! A directory agent that answers is believed: nothing is multicast for scopes that it supports (section 11.1).

mod ask;
mod config;
pub(crate) mod directory;
mod found;
mod request;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

pub use config::{Enough, UserConfig, Wish};
pub use found::Service;

use crate::agent::{Command, Source};
use crate::exchange::{Convergence, Step, Unicast};
use crate::random::Random;
use crate::text::ScopeList;
use crate::wire::{Body, EncodeError, Message, PORT, ParseError};
use ask::{Answer, Ask, Question};
use directory::Directories;
use found::Found;

/// Requests for attributes under way at the same time.
const ASKS: usize = 8;

/// Nobody offers what was looked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("No {0} defined!")]
pub struct NoService(pub String);

/// One search, from its beginning to its end.
#[derive(Clone, Debug)]
pub struct UserAgent {
    config: UserConfig,
    random: Random,
    phase: Phase,
    directories: Directories,
    /// Scopes for which nobody has answered yet.
    uncovered: ScopeList,
    asks: Vec<Ask>,
    found: Found,
    deadline: Instant,
    commands: VecDeque<Command>,
}

#[derive(Clone, Debug)]
enum Phase {
    /// Before anything is sent.
    Waiting(Instant),
    /// Configured directory agents are asked.
    Configured,
    /// Directory agents are searched.
    Search(Convergence),
    /// Those found are asked.
    Directories,
    /// Service agents are asked by multicast. The search among them may end while [`Question::Rest`] is under way.
    Services(Option<Convergence>),
    /// Attributes are asked for; the services that wait for their turn, by number.
    Attributes(VecDeque<usize>),
    Done,
}

impl UserAgent {
    /// A search that begins at `now`. `seed` should differ from host to host.
    ///
    /// # Errors
    /// When the configuration does not fit into requests.
    pub fn new(config: UserConfig, seed: u64, now: Instant) -> Result<Self, EncodeError> {
        let mut random = Random::new(seed);
        let begin = now + random.wait(config.timing.start_wait);
        let agent = Self {
            random,
            phase: Phase::Waiting(begin),
            directories: Directories::configured(&config.directories),
            uncovered: config.scopes.clone(),
            asks: Vec::new(),
            found: Found::default(),
            deadline: begin + config.limit,
            commands: VecDeque::new(),
            config,
        };
        // What can be encoded now can be encoded later: only the list of responders grows, and it is watched.
        agent.config.multicast_service_request(1, String::new(), &agent.config.scopes)?;
        agent.config.attribute_request(1, String::new())?;
        Ok(agent)
    }

    /// The next thing to do; nothing: wait for a message, or until [`UserAgent::poll_timeout`].
    pub fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When [`UserAgent::handle_timeout`] wants to be called; nothing when the search has ended.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Waiting(begin) => return Some(*begin),
            Phase::Done => return None,
            Phase::Search(convergence) | Phase::Services(Some(convergence)) => Some(convergence.timer()),
            _ => None,
        };
        let timers = self.asks.iter().map(|ask| ask.unicast.timer()).chain(phase);
        Some(timers.min().map_or(self.deadline, |timer| timer.min(self.deadline)))
    }

    /// The search has ended: the services, the least loaded first.
    ///
    /// # Errors
    /// When there is none.
    #[must_use]
    pub fn outcome(&self) -> Option<Result<Vec<Service>, NoService>> {
        if !matches!(self.phase, Phase::Done) {
            return None;
        }
        if self.found.is_empty() {
            return Some(Err(NoService(self.config.service_type.clone())));
        }
        Some(Ok(self.found.clone().sorted()))
    }

    /// A message came, whatever it is.
    pub fn handle_message(&mut self, from: Source, bytes: &[u8], now: Instant) {
        let parsed = Message::parse(bytes);
        let answered = self.asks.iter().enumerate().find_map(|(number, ask)| {
            let same_host = ask.unicast.to.ip() == from.address.ip();
            ask.answer(&parsed).filter(|_| same_host).map(|answer| (number, answer))
        });
        if let Some((number, answer)) = answered {
            self.answered(number, answer, now);
        } else {
            self.multicast_answered(from.address, &parsed, now);
        }
        self.handle_timeout(now);
    }

    /// A connection could not be opened, or ended before an answer came.
    pub fn handle_failure(&mut self, to: SocketAddrV4, now: Instant) {
        let failed = self.asks.iter().position(|ask| ask.unicast.is_stream() && ask.unicast.to == to);
        if let Some(failed) = failed {
            self.asks.remove(failed);
        }
        self.handle_timeout(now);
    }

    /// The time has come that [`UserAgent::poll_timeout`] told, or any other.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Phase::Waiting(begin) = self.phase {
            if now < begin {
                return;
            }
            self.begin(now);
        }
        if now >= self.deadline {
            self.phase = Phase::Done;
            self.asks.clear();
            self.commands.clear();
        }
        // Each turn ends a phase or nothing: there are fewer phases than turns.
        while self.advance(now) {}
    }

    fn begin(&mut self, now: Instant) {
        let nobody_to_ask = self.directories.is_empty() && self.config.only_configured;
        if self.uncovered.is_empty() || nobody_to_ask {
            self.phase = Phase::Done;
        } else if self.directories.is_empty() {
            self.search(now);
        } else {
            self.phase = Phase::Configured;
            self.ask_directories(now);
        }
    }

    /// Sends what is due; true: the phase has changed.
    fn advance(&mut self, now: Instant) -> bool {
        let commands = &mut self.commands;
        self.asks.retain_mut(|ask| match ask.unicast.poll(now) {
            Step::Send => {
                commands.push_back(ask.unicast.command());
                true
            }
            Step::Wait => true,
            Step::End => false,
        });
        match &mut self.phase {
            Phase::Waiting(_) | Phase::Done => false,
            Phase::Search(convergence) => {
                let step = convergence.poll(now);
                let (xid, responders) = (convergence.xid, convergence.previous_responders());
                let message = self.config.directory_request(xid, responders);
                if self.carry_on(step, message) {
                    return false;
                }
                self.phase = Phase::Directories;
                self.ask_directories(now);
                true
            }
            Phase::Services(Some(convergence)) => {
                let step = convergence.poll(now);
                let (xid, responders) = (convergence.xid, convergence.previous_responders());
                let scopes = self.uncovered.clone();
                let message = self.config.multicast_service_request(xid, responders, &scopes);
                if self.carry_on(step, message) {
                    return false;
                }
                self.phase = Phase::Services(None);
                true
            }
            Phase::Services(None) | Phase::Configured | Phase::Directories if !self.asks.is_empty() => false,
            Phase::Services(None) => {
                self.ask_attributes();
                true
            }
            Phase::Configured | Phase::Directories => {
                self.after_directories(now);
                true
            }
            Phase::Attributes(_) => self.next_attributes(now),
        }
    }

    /// Multicasts if it is time to. False: the search is at its end, or does not fit into a datagram any more.
    fn carry_on(&mut self, step: Step, message: Result<Vec<u8>, EncodeError>) -> bool {
        match (step, message) {
            (Step::Wait, _) => true,
            (Step::Send, Ok(bytes)) if bytes.len() <= self.config.datagram_limit => {
                self.commands.push_back(Command::Multicast { bytes });
                true
            }
            _ => false,
        }
    }

    fn search(&mut self, now: Instant) {
        let timing = &self.config.timing;
        // A directory agent answers at once: two requests in vain are enough, and leave time to ask service agents.
        let most = (timing.retry * 3).min(self.left(now) * 2 / 5);
        self.phase = Phase::Search(Convergence::new(self.random.xid(), now, timing, now + most));
    }

    fn left(&self, now: Instant) -> Duration {
        self.deadline.saturating_duration_since(now)
    }

    fn ask_directories(&mut self, now: Instant) {
        let ends = now + self.config.timing.retry_max.min(self.left(now) / 2);
        for (directory, scopes) in self.directories.next_to_ask(&self.uncovered) {
            let xid = self.random.xid();
            let message = self.config.service_request(xid, &scopes);
            self.ask(now, ends, (directory, xid), message, Question::Services { directory, scopes });
        }
    }

    fn ask(
        &mut self,
        now: Instant,
        ends: Instant,
        (host, xid): (Ipv4Addr, u16),
        message: Result<Vec<u8>, EncodeError>,
        question: Question,
    ) {
        let Ok(bytes) = message else { return };
        let to = SocketAddrV4::new(host, PORT);
        let stream = question == Question::Rest;
        let limits = (self.config.datagram_limit, stream);
        let unicast = Unicast::new(to, (xid, bytes), limits, (now, self.config.timing.retry, ends));
        self.asks.push(Ask { unicast, question });
    }

    /// No directory agent is being asked any more.
    fn after_directories(&mut self, now: Instant) {
        self.ask_directories(now);
        if !self.asks.is_empty() {
            return;
        }
        let all_silent = self.uncovered == self.config.scopes;
        let was_configured = matches!(self.phase, Phase::Configured);
        if self.uncovered.is_empty() || (was_configured && self.config.only_configured) {
            self.ask_attributes();
        } else if was_configured && all_silent {
            self.search(now);
        } else {
            let xid = self.random.xid();
            let convergence = Convergence::new(xid, now, &self.config.timing, self.deadline);
            self.phase = Phase::Services(Some(convergence));
        }
    }

    fn answered(&mut self, number: usize, answer: Answer, now: Instant) {
        let Some(ask) = self.asks.get_mut(number) else { return };
        let to = ask.unicast.to;
        match answer {
            Answer::Busy => return,
            Answer::Overflow(entries) => {
                ask.unicast.switch_to_stream(now);
                // Should the connection fail, this is better than nothing.
                let question = ask.question.clone();
                self.cover(&question);
                self.found.add(&self.config.service_type, &entries, to);
                return;
            }
            Answer::Services(entries) => {
                let question = ask.question.clone();
                self.cover(&question);
                self.found.add(&self.config.service_type, &entries, to);
            }
            Answer::Attributes(attributes) => {
                if let Question::Attributes(url) = &ask.question {
                    self.found.set_attributes(url, attributes);
                }
            }
            Answer::Refused => {}
        }
        self.asks.remove(number);
    }

    /// A directory agent has answered for its scopes.
    fn cover(&mut self, question: &Question) {
        if let Question::Services { scopes, .. } = question {
            self.uncovered = self.uncovered.difference(scopes);
        }
    }

    fn multicast_answered(&mut self, from: SocketAddrV4, parsed: &Result<Message, ParseError>, now: Instant) {
        let (xid, overflow) = match parsed {
            Ok(message) => (message.xid, message.flags.overflow),
            Err(error) => match &error.header {
                Some(header) => (header.xid, header.flags.overflow),
                None => return,
            },
        };
        let body = parsed.as_ref().ok().map(|message| &message.body);
        match (&mut self.phase, body) {
            (Phase::Search(convergence), Some(Body::DaAdvert(advert))) if convergence.xid == xid => {
                convergence.heard(*from.ip());
                self.directories.add(advert);
            }
            (Phase::Services(Some(convergence)), body) if convergence.xid == xid => {
                let entries = match body {
                    Some(Body::SrvRply(reply)) if reply.error.is_none() => reply.entries.as_slice(),
                    None if overflow => &[],
                    // Errors are not sent to multicast requests; who sends one has not answered.
                    _ => return,
                };
                let is_new = convergence.heard(*from.ip());
                self.found.add(&self.config.service_type, entries, from);
                if overflow && is_new {
                    let scopes = self.uncovered.clone();
                    let message = self.config.service_request(xid, &scopes);
                    let ends = now + self.config.timing.retry_max.min(self.left(now));
                    self.ask(now, ends, (*from.ip(), xid), message, Question::Rest);
                }
                if self.config.enough == Enough::First && !self.found.is_empty() {
                    self.phase = Phase::Services(None);
                }
            }
            _ => {}
        }
    }

    fn ask_attributes(&mut self) {
        let wanted = if self.config.attributes == Wish::Nothing { 0 } else { self.found.iter().count() };
        self.phase = if wanted == 0 { Phase::Done } else { Phase::Attributes((0..wanted).collect()) };
    }

    /// Asks for the attributes of the next services; true: the phase has changed.
    fn next_attributes(&mut self, now: Instant) -> bool {
        let ends = now + (self.config.timing.retry * 3).min(self.left(now));
        let Phase::Attributes(waiting) = &mut self.phase else { return false };
        let turn = ASKS.saturating_sub(self.asks.len()).min(waiting.len());
        let numbers: Vec<usize> = waiting.drain(..turn).collect();
        if numbers.is_empty() {
            let done = self.asks.is_empty() && waiting.is_empty();
            if done {
                self.phase = Phase::Done;
            }
            return done;
        }
        for number in numbers {
            let Some(service) = self.found.iter().nth(number).cloned() else { continue };
            let xid = self.random.xid();
            let message = self.config.attribute_request(xid, service.url.to_string());
            self.ask(now, ends, (*service.told_by.ip(), xid), message, Question::Attributes(service.url));
        }
        true
    }
}
