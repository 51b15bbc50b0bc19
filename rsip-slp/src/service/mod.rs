//! The service agent: advertises one service (RFC 2608 sections 6, 8, 10.6 and 12).
//!
//! It registers with every directory agent that supports one of its scopes, renews and updates that, and answers
//! requests, or leaves all that to the daemon of its host.
//!
//! ```text
//!              ┌──────── no answer, an error: back off ◄───────┐
//!              ▼                                               │
//!   Asking ──► Waiting (a random time) ──► Registering ────────┴──► Settled ──► renew, update: Registering
//!   (configured)  ▲                                                    │
//!                 └──── DAAdvert: new, or booted since ◄───────────────┘        shutdown: Leaving
//! ```

mod adverts;
mod answer;
mod config;
mod directory;
mod message;
mod registration;
mod view;

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

pub use config::{ConfigError, Role, ServiceConfig};
pub use directory::{Kind, MAX_DIRECTORIES};
pub use view::{DirectoryView, Event, Progress, View};

use crate::agent::{Command, Source, Via};
use crate::exchange::{Convergence, Step};
use crate::random::Random;
use crate::text::AttributeList;
use crate::wire::{Body, Message, PORT, ParseError};
use directory::{Directory, State};

/// Searches for directory agents are so far apart in the end: CONFIG_DA_BEAT, in which each introduces itself once.
const SEARCH_AT_MOST: u32 = 12;

/// The agent of one service.
#[derive(Clone, Debug)]
pub struct ServiceAgent {
    config: ServiceConfig,
    random: Random,
    search: Search,
    directories: Vec<Directory>,
    leaving: bool,
    commands: VecDeque<Command>,
    events: VecDeque<Event>,
}

/// The search for directory agents.
#[derive(Clone, Debug)]
enum Search {
    /// Not at all.
    Never,
    /// Begins at a time; the search after that comes so much later.
    From(Instant, Duration),
    /// Under way; the next begins so much after it began, at.
    Now(Convergence, Instant, Duration),
}

impl ServiceAgent {
    /// An agent that begins at `now`. `seed` should differ from host to host.
    ///
    /// # Errors
    /// When it could never work.
    pub fn new(config: ServiceConfig, seed: u64, now: Instant) -> Result<Self, ConfigError> {
        config.check()?;
        let mut random = Random::new(seed);
        let (search, directories) = match &config.role {
            Role::Daemon { at, .. } => {
                (Search::Never, vec![Directory::new(*at, Kind::Daemon, State::Waiting(now))])
            }
            Role::Alone { directories, .. } if directories.is_empty() => {
                let wait = random.wait(config.timing.start_wait);
                (Search::From(now + wait, config.timing.da_find), Vec::new())
            }
            Role::Alone { directories, .. } => {
                let directory = |host| {
                    Directory::new(SocketAddrV4::new(host, PORT), Kind::Configured, State::Waiting(now))
                };
                (Search::Never, directories.iter().copied().map(directory).collect())
            }
        };
        Ok(Self {
            config,
            random,
            search,
            directories,
            leaving: false,
            commands: VecDeque::new(),
            events: VecDeque::new(),
        })
    }

    /// The next thing to do; nothing: wait for a message, or until [`ServiceAgent::poll_timeout`].
    pub fn next_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// The next thing that happened.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`ServiceAgent::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let search = match &self.search {
            Search::Never => None,
            Search::From(begin, _) => Some(*begin),
            Search::Now(convergence, ..) => Some(convergence.timer()),
        };
        let timers = self.directories.iter().filter_map(|directory| self.directory_timer(directory));
        timers.chain(search).min()
    }

    /// The time has come that [`ServiceAgent::poll_timeout`] told, or any other.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance_search(now);
        self.advance_directories(now);
    }

    /// A message came, whatever it is.
    pub fn handle_message(&mut self, from: Source, bytes: &[u8], now: Instant) {
        let parsed = Message::parse(bytes);
        match parsed.as_ref().map(|message| (&message.body, message.xid)) {
            Ok((Body::SrvAck { error }, xid)) => self.acknowledged(*from.address.ip(), xid, *error, now),
            Ok((Body::DaAdvert(advert), xid)) => self.advertised(*from.address.ip(), xid, advert, now),
            _ => self.refused_to_introduce(*from.address.ip(), &parsed, now),
        }
        if !self.leaving && matches!(self.config.role, Role::Alone { .. }) {
            self.reply(from, &parsed);
        }
        self.handle_timeout(now);
    }

    /// A connection could not be opened, or ended before an answer came.
    pub fn handle_failure(&mut self, to: SocketAddrV4, now: Instant) {
        let failed = self.directories.iter().position(|directory| {
            directory.address == to && directory.exchange().is_some_and(|unicast| unicast.is_stream())
        });
        if let Some(failed) = failed {
            self.silent(failed, now);
        }
        self.handle_timeout(now);
    }

    /// The service has other attributes now. Directory agents are told as soon as their last update is old enough.
    pub fn set_attributes(&mut self, attributes: AttributeList, now: Instant) {
        self.config.attributes = attributes;
        self.handle_timeout(now);
    }

    /// Takes every registration back and answers no more; done when [`ServiceAgent::is_drained`] says so.
    pub fn shutdown(&mut self, now: Instant) {
        self.leaving = true;
        self.search = Search::Never;
        self.commands.clear();
        self.leave(now);
        self.handle_timeout(now);
    }

    /// Whether the agent has shut down, and nothing is left to be taken back.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.leaving && self.directories.is_empty() && self.commands.is_empty()
    }

    fn reply(&mut self, from: Source, parsed: &Result<Message, ParseError>) {
        let Some(answer) = self.config.answer(parsed, from.via == Via::Group) else { return };
        let limit = self.config.datagram_limit;
        let command = match from.via {
            Via::Datagram | Via::Group => {
                answer.encode_datagram(limit).map(|bytes| Command::Datagram { to: from.address, bytes })
            }
            Via::Accepted(connection) => answer.encode().map(|bytes| Command::Answer { connection, bytes }),
            // Who is asked does not ask back.
            Via::Opened => return,
        };
        // What can be registered can be answered: only a language tag of the asker's may not fit, and then nothing does.
        self.commands.extend(command.ok());
    }

    fn advance_search(&mut self, now: Instant) {
        if let Search::From(begin, pause) = self.search
            && now >= begin
        {
            let xid = self.random.xid();
            let timing = &self.config.timing;
            let convergence = Convergence::new(xid, now, timing, now + timing.multicast_max);
            self.search = Search::Now(convergence, now, pause);
        }
        let Search::Now(convergence, began, pause) = &mut self.search else { return };
        let request = match convergence.poll(now) {
            Step::Wait => return,
            Step::Send => self.config.search(convergence.xid, convergence.previous_responders()).ok(),
            Step::End => None,
        };
        match request.filter(|bytes| bytes.len() <= self.config.datagram_limit) {
            Some(bytes) => self.commands.push_back(Command::Multicast { bytes }),
            None => {
                // The waits between searches double, too (section 6).
                let next = *began + *pause;
                let longest = self.config.timing.da_find * SEARCH_AT_MOST;
                self.search = Search::From(next.max(now), (*pause * 2).min(longest));
            }
        }
    }
}
