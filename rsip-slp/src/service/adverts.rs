//! Directory agents introduce themselves, and go.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use super::directory::{Advert, Directory, Kind, MAX_DIRECTORIES, State, is_newer};
use super::{Event, Role, Search, ServiceAgent};
use crate::text::AttributeList;
use crate::user::directory::read_advert;
use crate::wire::message::DaAdvert;
use crate::wire::{Function, Message, PORT, ParseError};

impl ServiceAgent {
    /// A DAAdvert came.
    pub(super) fn advertised(&mut self, from: Ipv4Addr, xid: u16, advert: &DaAdvert, now: Instant) {
        if self.leaving || !matches!(self.config.role, Role::Alone { .. }) {
            return;
        }
        let searched = match &mut self.search {
            Search::Now(convergence, ..) if convergence.xid == xid => {
                convergence.heard(from);
                true
            }
            _ => false,
        };
        let asked = self.asked(from, xid);
        // Only an unsolicited one has no transaction ID (section 8).
        if !searched && asked.is_none() && xid != 0 {
            return;
        }
        let Some((host, scopes)) = read_advert(advert) else {
            // It answered, but with an error, or with what cannot be used.
            if let Some(asked) = asked {
                self.try_later(asked, now);
            }
            return;
        };
        if self.config.addresses().contains(&host) {
            // Nobody but us is there, and this agent takes no registrations.
            return;
        }
        if advert.boot_timestamp == 0 {
            self.goes_down(host, now);
            return;
        }
        let min_refresh = AttributeList::parse(&advert.attributes)
            .ok()
            .and_then(|attributes| attributes.integer("min-refresh-interval"))
            .and_then(|seconds| u16::try_from(seconds).ok())
            .map_or(Duration::ZERO, |seconds| Duration::from_secs(seconds.into()));
        let news = Advert { boot_timestamp: advert.boot_timestamp, scopes, min_refresh };
        let longest = if xid == 0 { self.config.timing.reg_passive } else { self.config.timing.reg_active };
        // Where it was asked, the one that was asked is meant, by whatever address it calls itself.
        match asked.or_else(|| self.known(host)) {
            Some(known) => self.advertised_again(known, news, longest, now),
            None => self.found(host, news, longest, now),
        }
    }

    /// The one that was asked to introduce itself with this transaction ID.
    fn asked(&self, from: Ipv4Addr, xid: u16) -> Option<usize> {
        self.directories.iter().position(|directory| {
            directory.host() == from
                && matches!(&directory.state, State::Asking(unicast) if unicast.xid == xid)
        })
    }

    fn known(&self, host: Ipv4Addr) -> Option<usize> {
        self.directories.iter().position(|directory| directory.host() == host)
    }

    fn found(&mut self, host: Ipv4Addr, news: Advert, longest: Duration, now: Instant) {
        if !news.scopes.intersects(&self.config.scopes) {
            return;
        }
        if self.directories.len() >= MAX_DIRECTORIES {
            // Those that never took a registration give way, or forged ones could keep real ones out for ever.
            let useless = |directory: &Directory| directory.kind == Kind::Found && directory.held.is_none();
            let Some(place) = self.directories.iter().position(useless) else { return };
            self.directories.remove(place);
        }
        let begin = now + self.random.wait(longest);
        let address = SocketAddrV4::new(host, PORT);
        self.events.push_back(Event::Found { directory: address, scopes: news.scopes.clone() });
        let mut directory = Directory::new(address, Kind::Found, State::Waiting(begin));
        directory.advert = Some(news);
        self.directories.push(directory);
    }

    fn advertised_again(&mut self, number: usize, news: Advert, longest: Duration, now: Instant) {
        let begin = now + self.random.wait(longest);
        let Some(directory) = self.directories.get_mut(number) else { return };
        let before = directory.advert.replace(news.clone());
        let rebooted =
            before.as_ref().is_some_and(|before| is_newer(news.boot_timestamp, before.boot_timestamp));
        let scopes = directory.scopes(&self.config.scopes);
        if rebooted {
            // What it had is gone.
            directory.held = None;
            self.events.push_back(Event::Rebooted { directory: directory.address });
        } else if let (Some(before), Some(news)) = (before, directory.advert.as_mut())
            && before.boot_timestamp != news.boot_timestamp
        {
            // An older one came late: what it says of the time is old.
            news.boot_timestamp = before.boot_timestamp;
        }
        let has_all = directory.held.as_ref().is_some_and(|held| held.scopes == scopes && held.expires > now);
        let register = match directory.state {
            State::Asking(_) => true,
            State::Settled => !has_all && !scopes.is_empty(),
            State::Registering { .. } => rebooted,
            // It lives: after failures there is no need to wait as long as was planned.
            State::Waiting(at) => at > begin,
            State::Leaving(_) => false,
        };
        if register {
            directory.failures = 0;
            directory.state = if has_all { State::Settled } else { State::Waiting(begin) };
        }
    }

    fn goes_down(&mut self, host: Ipv4Addr, now: Instant) {
        let Some(number) = self.known(host) else { return };
        let Some(directory) = self.directories.get_mut(number) else { return };
        self.events.push_back(Event::GoingDown { directory: directory.address });
        if directory.kind == Kind::Found {
            self.directories.remove(number);
        } else {
            // "No further messages should be sent to it" (section 12.2.2), until it had time to come back.
            directory.held = None;
            directory.advert = None;
            directory.state = State::Waiting(now + self.config.timing.da_find);
        }
    }

    /// A configured directory agent answers the question who it is with something else.
    pub(super) fn refused_to_introduce(
        &mut self,
        from: Ipv4Addr,
        parsed: &Result<Message, ParseError>,
        now: Instant,
    ) {
        let (function, xid) = match parsed {
            Ok(message) => (message.body.function(), message.xid),
            Err(ParseError { header: Some(header), .. }) => (header.function, header.xid),
            Err(_) => return,
        };
        if function == Function::SrvRply
            && let Some(asked) = self.asked(from, xid)
        {
            self.try_later(asked, now);
        }
    }
}
