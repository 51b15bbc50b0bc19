//! What a service manager is told (sd_notify(3)): ready, alive, how it goes, stopping. Without one nothing happens.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

/// The way to the service manager of this process.
#[derive(Debug)]
pub struct Service {
    /// How often it wants to hear of us, halved, so that one late word does no harm.
    interval: Option<Duration>,
    told: Option<Instant>,
    ready: bool,
    status: String,
}

impl Default for Service {
    fn default() -> Self {
        Self {
            interval: sd_notify::watchdog_enabled().map(|limit| limit / 2),
            told: None,
            ready: false,
            status: String::new(),
        }
    }
}

impl Service {
    /// The start is done. Told once.
    pub fn ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            tell(&[NotifyState::Ready]);
        }
    }

    /// How it goes, in a few words. Told when it has changed.
    pub fn status(&mut self, status: &str) {
        if self.status != status {
            status.clone_into(&mut self.status);
            tell(&[NotifyState::Status(status)]);
        }
    }

    /// Called by the very loop whose hanging is to be noticed, once a second or more often.
    pub fn alive(&mut self, now: Instant) {
        let Some(interval) = self.interval else { return };
        if self.told.is_none_or(|told| now.saturating_duration_since(told) >= interval) {
            self.told = Some(now);
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// When [`Service::alive`] has something to say again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(self.told? + self.interval?)
    }

    /// The end has begun.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager does not hear");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_at_half_of_the_watchdogs_time() {
        let now = Instant::now();
        let limit = Duration::from_secs(3);
        let mut service = Service { interval: Some(limit), told: None, ready: false, status: String::new() };
        assert_eq!(service.poll_timeout(), None);
        service.alive(now);
        assert_eq!(service.poll_timeout(), Some(now + limit));
        service.alive(now + limit / 2);
        assert_eq!(service.poll_timeout(), Some(now + limit), "not yet");
        service.alive(now + limit);
        assert_eq!(service.poll_timeout(), Some(now + limit * 2));
        let mut nobody = Service { interval: None, told: None, ready: false, status: String::new() };
        nobody.alive(now);
        assert_eq!(nobody.poll_timeout(), None);
    }
}
