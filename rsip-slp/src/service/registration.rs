//! Registering, renewing, updating, taking back.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::directory::{Directory, Held, Kind, Sent, State};
use super::{Event, Role, ServiceAgent, ServiceConfig};
use crate::exchange::{Step, Unicast};
use crate::random::Random;
use crate::text::AttributeList;
use crate::wire::{EncodeError, ErrorCode};

/// A directory agent that was found is forgotten after so many attempts in vain; it will introduce itself again.
const ATTEMPTS: u32 = 3;
/// Before the next attempt after a refusal that time alone does not mend.
const REFUSED: Duration = Duration::from_secs(60);

impl Directory {
    /// The request that is under way.
    pub(super) fn exchange(&self) -> Option<&Unicast> {
        match &self.state {
            State::Asking(unicast) | State::Registering { unicast, .. } | State::Leaving(unicast) => {
                Some(unicast)
            }
            State::Waiting(_) | State::Settled => None,
        }
    }

    fn exchange_mut(&mut self) -> Option<&mut Unicast> {
        match &mut self.state {
            State::Asking(unicast) | State::Registering { unicast, .. } | State::Leaving(unicast) => {
                Some(unicast)
            }
            State::Waiting(_) | State::Settled => None,
        }
    }

    fn begin(&self, config: &ServiceConfig, (xid, bytes): (u16, Vec<u8>), now: Instant) -> Unicast {
        let stream = self.kind == Kind::Daemon && matches!(config.role, Role::Daemon { stream: true, .. });
        let times = (now, config.timing.retry, now + config.timing.retry_max);
        Unicast::new(self.address, (xid, bytes), (config.datagram_limit, stream), times)
    }

    /// What comes next for one that waits no more.
    fn next_state(
        &self,
        config: &ServiceConfig,
        random: &mut Random,
        now: Instant,
    ) -> Result<State, EncodeError> {
        let xid = random.xid();
        let scopes = self.scopes(&config.scopes);
        if self.kind != Kind::Daemon && (self.advert.is_none() || self.failures > 0) {
            // Who it is must be known first, or is to be seen again.
            return Ok(State::Asking(self.begin(config, (xid, config.introduction(xid)?), now)));
        }
        if scopes.is_empty() {
            return Ok(State::Settled);
        }
        let held = self.held.as_ref().filter(|held| held.scopes == scopes && now < held.renew);
        let update =
            held.filter(|_| !self.only_whole).and_then(|held| changed(&held.attributes, &config.attributes));
        let lifetime = self.lifetime(config.lifetime);
        let fresh = update.is_none();
        let attributes = update.as_ref().unwrap_or(&config.attributes);
        let bytes = config.registration(xid, &scopes, attributes, fresh, lifetime)?;
        let unicast = self.begin(config, (xid, bytes), now);
        let lifetime = Duration::from_secs(lifetime.into());
        let sent = Sent { scopes, attributes: config.attributes.clone(), lifetime, fresh };
        Ok(State::Registering { unicast, sent })
    }

    /// When one that has what it should have is to be told something.
    fn due(&self, config: &ServiceConfig) -> Option<Instant> {
        let held = self.held.as_ref()?;
        if held.attributes == config.attributes {
            return Some(held.renew);
        }
        Some(held.renew.min(self.next_update(held, config.update_interval)))
    }
}

/// The attributes that are not as they were; nothing where that cannot be said by an incremental registration.
fn changed(before: &AttributeList, now: &AttributeList) -> Option<AttributeList> {
    if before.iter().any(|attribute| now.get(attribute.tag()).is_none()) {
        return None;
    }
    let mut changed = AttributeList::default();
    let new = now.iter().filter(|attribute| before.get(attribute.tag()) != Some(attribute));
    new.cloned().for_each(|attribute| changed.set(attribute));
    (!changed.is_empty()).then_some(changed)
}

impl ServiceAgent {
    pub(super) fn directory_timer(&self, directory: &Directory) -> Option<Instant> {
        match &directory.state {
            State::Waiting(at) => Some(*at),
            State::Settled => directory.due(&self.config),
            State::Asking(unicast) | State::Registering { unicast, .. } | State::Leaving(unicast) => {
                Some(unicast.timer())
            }
        }
    }

    pub(super) fn advance_directories(&mut self, now: Instant) {
        // From the end: one that is given up may go.
        for number in (0..self.directories.len()).rev() {
            self.advance_directory(number, now);
        }
    }

    fn advance_directory(&mut self, number: usize, now: Instant) {
        let Some(directory) = self.directories.get_mut(number) else { return };
        let due = match &directory.state {
            State::Waiting(at) => now >= *at,
            State::Settled => directory.due(&self.config).is_some_and(|due| now >= due),
            State::Asking(_) | State::Registering { .. } | State::Leaving(_) => false,
        };
        if due && !self.leaving {
            // What fitted when the agent was made fits now; attributes may have grown beyond all bounds since.
            let next = directory.next_state(&self.config, &mut self.random, now);
            directory.state = next.unwrap_or(State::Waiting(now + REFUSED));
        }
        let Some(unicast) = directory.exchange_mut() else { return };
        match unicast.poll(now) {
            Step::Send => self.commands.push_back(unicast.command()),
            Step::Wait => {}
            Step::End => self.silent(number, now),
        }
    }

    /// No answer came.
    pub(super) fn silent(&mut self, number: usize, now: Instant) {
        let Some(directory) = self.directories.get_mut(number) else { return };
        self.events.push_back(Event::Silent { directory: directory.address });
        if self.leaving {
            self.directories.remove(number);
            return;
        }
        self.try_later(number, now);
    }

    /// An attempt was in vain.
    pub(super) fn try_later(&mut self, number: usize, now: Instant) {
        let timing = &self.config.timing;
        let (first, most) = (timing.retry, timing.da_find);
        let Some(directory) = self.directories.get_mut(number) else { return };
        directory.failures = directory.failures.saturating_add(1);
        if directory.kind == Kind::Found && directory.failures >= ATTEMPTS {
            self.directories.remove(number);
            return;
        }
        directory.state = State::Waiting(now + directory.back_off(first, most));
    }

    /// A SrvAck came.
    pub(super) fn acknowledged(&mut self, from: Ipv4Addr, xid: u16, error: Option<ErrorCode>, now: Instant) {
        let number = self.directories.iter().position(|directory| {
            directory.host() == from && directory.exchange().is_some_and(|unicast| unicast.xid == xid)
        });
        let Some(number) = number else { return };
        let Some(directory) = self.directories.get_mut(number) else { return };
        let address = directory.address;
        match (&directory.state, error) {
            (State::Leaving(_), _) => {
                self.events.push_back(match error {
                    None => Event::Deregistered { directory: address },
                    Some(error) => Event::Refused { directory: address, error },
                });
                self.directories.remove(number);
            }
            (State::Registering { sent, .. }, None) => {
                let held = Held::new(sent.clone(), directory.min_refresh(), directory.held.as_ref(), now);
                let event = match &directory.held {
                    Some(before) if before.expires > now => Event::Refreshed { directory: address },
                    _ => Event::Registered { directory: address, scopes: held.scopes.clone() },
                };
                directory.held = Some(held);
                directory.failures = 0;
                directory.state = State::Settled;
                self.events.push_back(event);
            }
            (State::Registering { sent, .. }, Some(error)) => {
                let fresh = sent.fresh;
                self.events.push_back(Event::Refused { directory: address, error });
                self.refused(number, error, fresh, now);
            }
            // A DAAdvert answers that one.
            (State::Asking(_) | State::Waiting(_) | State::Settled, _) => {}
        }
    }

    fn refused(&mut self, number: usize, error: ErrorCode, fresh: bool, now: Instant) {
        let Some(directory) = self.directories.get_mut(number) else { return };
        let pause = directory.min_refresh();
        match error {
            ErrorCode::DaBusyNow => self.try_later(number, now),
            // It keeps what it has: later, then.
            ErrorCode::RefreshRejected if directory.held.is_some() => {
                if let Some(held) = &mut directory.held {
                    held.updated = now;
                    held.renew = held.renew.max(now + pause.max(REFUSED));
                }
                directory.state = State::Settled;
            }
            // It has lost the registration, has it in other scopes, or does not know how to update: the whole of it.
            _ if !fresh => {
                directory.only_whole = true;
                directory.held = None;
                directory.state = State::Waiting(now + pause);
            }
            _ => {
                // Perhaps it has other scopes now: it is asked before the next attempt.
                self.try_later(number, now);
                if let Some(directory) = self.directories.get_mut(number)
                    && let State::Waiting(at) = &mut directory.state
                {
                    *at = (*at).max(now + REFUSED);
                }
            }
        }
    }

    /// Takes back what is registered, or may be.
    pub(super) fn leave(&mut self, now: Instant) {
        let (config, random) = (&self.config, &mut self.random);
        self.directories.retain_mut(|directory| {
            let scopes = match (&directory.state, &directory.held) {
                (State::Registering { sent, .. }, _) => &sent.scopes,
                (_, Some(held)) if held.expires > now => &held.scopes,
                _ => return false,
            };
            let xid = random.xid();
            let Ok(bytes) = config.deregistration(xid, scopes) else { return false };
            directory.state = State::Leaving(directory.begin(config, (xid, bytes), now));
            true
        });
    }
}
