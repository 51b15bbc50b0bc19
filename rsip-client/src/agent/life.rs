//! Beginning and end: whether the start succeeded, leaving the gateway, restoring the host.

use std::time::Instant;

use rsip_proto::host::{BindingState, GatewayState};

use super::{Agent, Stage, failure, is_ephemeral};
use crate::clock;
use crate::control::Response;

impl Agent {
    /// How it goes, and that the loop turns.
    pub(super) fn tell_service_manager(&mut self) {
        let now = Instant::now();
        self.service.alive(now);
        let gateway = self.settings.gateway;
        let view = self.host.view(now);
        let status = match (&self.stage, view.gateway) {
            (Stage::Stopping { .. }, _) => format!("leaving {gateway}"),
            (_, GatewayState::Registered) => match self.effects.book.public() {
                Some(address) => {
                    format!("registered at {gateway}, {} leases at {address}", view.bindings.len())
                }
                None => format!("registered at {gateway}, nothing leased"),
            },
            (_, GatewayState::Refused(error)) => format!("{gateway} refuses: {error}"),
            (_, GatewayState::Unreachable) => format!("{gateway} is out of reach"),
            (_, _) => format!("connecting to {gateway}"),
        };
        self.service.status(&status);
    }

    /// Whether the start has succeeded, or failed.
    pub(super) fn check_start(&mut self) {
        let Stage::Starting { until } = self.stage else { return };
        let now = clock::now();
        let view = self.host.view(now);
        let registered = view.gateway == GatewayState::Registered;
        let has_ephemeral = !self.settings.wants_ephemeral() || self.effects.book.has_ephemeral();
        if registered && has_ephemeral && self.effects.is_active() {
            self.stage = Stage::Running;
            self.announce(&view);
            self.service.ready();
            for port in self.listeners.begin(&self.settings.listen) {
                self.host.listen(port, now);
            }
            return;
        }
        if registered
            && let Some(error) = view
                .pending
                .iter()
                .find(|pending| is_ephemeral(pending.kind) && pending.retry_in.is_some())
                .and_then(|pending| pending.refused)
        {
            self.trouble.no_lease(self.settings.method, error);
        }
        let Some(until) = until else { return };
        if self.trouble.is_final() || now >= until {
            let failure = self.trouble.start_failure(self.settings.gateway, self.settings.start_timeout);
            self.stop(now, Some(failure));
        }
    }

    /// Each second: programs may wait for this agent a while longer, and what a dead one left is settled in the end.
    pub(super) fn show_life(&mut self) {
        if let Err(error) = self.effects.hooks.beat() {
            tracing::error!(%error, "programs cannot see that the agent lives");
        }
        if self.effects.takes_over() && self.effects.is_active() {
            let view = self.host.view(clock::now());
            let open = view.bindings.iter().any(|view| view.state == BindingState::Resumed);
            if !open && view.gateway == GatewayState::Registered {
                self.effects.close_what_was_left();
            }
        }
    }

    /// Begins to leave: programs go on as if there were no agent, the gateway is told.
    pub(super) fn stop(&mut self, now: Instant, failure: Option<anyhow::Error>) {
        if let Stage::Stopping { .. } = self.stage {
            return;
        }
        tracing::info!("stopping");
        self.service.stopping();
        let failed = failure.is_some();
        self.stage = Stage::Stopping { failure, callers: Vec::new() };
        // After a crash, and nobody answers: what the gateway may still hold for us is left to the next start.
        let unheard = self.host.view(now).gateway != GatewayState::Registered;
        if failed && self.resumed && unheard && self.effects.book.bindings().next().is_none() {
            self.abandoned = true;
            self.done = true;
            if self.effects.takes_over() {
                tracing::warn!(
                    "what the last agent left stays at work for the next start; `rsip-client down` undoes it"
                );
                return;
            }
        } else {
            self.host.shutdown(now);
        }
        self.effects.open_wide();
    }

    /// Restores the host, and answers those who asked for it.
    pub(super) async fn finish(self) -> anyhow::Result<()> {
        let Stage::Stopping { failure: start_failure, callers } = self.stage else { return Ok(()) };
        let undone = self.effects.undo(self.abandoned).await.map_err(|error| {
            failure(error).context("cannot restore the host; run `rsip-client down` to try again")
        });
        for caller in callers {
            let answer = match &undone {
                Ok(()) => Ok(Response::Done),
                Err(error) => Err(format!("{error:#}")),
            };
            caller.answer(answer);
        }
        match start_failure {
            Some(failure) => Err(failure),
            None => undone,
        }
    }
}
