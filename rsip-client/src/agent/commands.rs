//! What the state machine wants done.

use std::time::Instant;

use rsip_proto::host::{
    BindingKind, HostBinding, HostCommand, InstallFailed, RegistrationChange, WithdrawReason,
};

use super::{Agent, Stage, describe, failure};
use crate::transport::Transport;

impl Agent {
    /// Carries out what the state machine wants, until it wants nothing more.
    pub(super) async fn carry_out(&mut self) {
        loop {
            // Kept before any of it is done: after a crash it must be known what may hold at the gateway.
            if let Err(error) = self.effects.keep(&self.host.saved()) {
                tracing::error!(error = %describe(&error), "cannot keep the state");
            }
            let Some(command) = self.host.next_command() else { return };
            self.carry_out_one(command, Instant::now()).await;
        }
    }

    async fn carry_out_one(&mut self, command: HostCommand, now: Instant) {
        match command {
            HostCommand::Connect => {
                self.transports += 1;
                self.transport = Some(Transport::open(
                    self.settings.transport,
                    self.settings.gateway,
                    self.transports,
                    self.to_agent.clone(),
                ));
            }
            HostCommand::Disconnect => self.transport = None,
            HostCommand::Send(message) => {
                tracing::trace!(?message, "to the gateway");
                if let Some(transport) = &self.transport {
                    transport.send(&message);
                }
            }
            HostCommand::Publish { op, binding } => {
                let outcome = self.publish(binding, now).await;
                self.host.handle_done(op, outcome, Instant::now());
            }
            HostCommand::Renamed { old, binding } => {
                tracing::info!(bind_id = %binding.bind_id, ports = %binding.leased, "leased again");
                self.effects.book.rename(old, binding);
            }
            HostCommand::Withdraw { binding, reason } => self.withdraw(&binding, reason, now).await,
            HostCommand::Verdict { port, outcome } => self.verdict(port, outcome, now),
            HostCommand::Registration(change) => self.registration_changed(change, now).await,
            HostCommand::Local(networks) => {
                tracing::info!(?networks, "local, as the gateway says");
            }
            HostCommand::Stopped => self.done = true,
        }
    }

    async fn publish(&mut self, binding: HostBinding, now: Instant) -> Result<(), InstallFailed> {
        let (kind, ports) = (binding.kind, binding.leased.clone());
        let was_active = self.effects.is_active();
        tracing::info!(bind_id = %binding.bind_id, address = %binding.address, %ports, ?kind, "leased");
        if let Err(error) = self.effects.publish(binding).await {
            tracing::error!(%ports, error = %describe(&error), "cannot take the lease into use");
            if let Stage::Starting { .. } = self.stage {
                self.stop(now, Some(failure(error)));
            }
            return Err(InstallFailed);
        }
        for port in ports.iter() {
            match kind {
                BindingKind::Listen => self.usage.track(port, now),
                BindingKind::StaticListen => self.listeners.take_over(port),
                BindingKind::Block | BindingKind::Address => {}
            }
        }
        if !was_active && self.resumed {
            self.adopt(now);
        }
        Ok(())
    }

    async fn withdraw(&mut self, binding: &HostBinding, reason: WithdrawReason, now: Instant) {
        tracing::info!(bind_id = %binding.bind_id, ports = %binding.leased, ?reason, "no longer leased");
        let lost: Vec<u16> = match (binding.kind, reason) {
            (BindingKind::Listen, WithdrawReason::Lost | WithdrawReason::Deregistered) => {
                binding.leased.iter().filter(|port| self.is_used(*port)).collect()
            }
            _ => Vec::new(),
        };
        for port in binding.leased.iter() {
            self.usage.forget(port);
        }
        if let Err(error) = self.effects.withdraw((binding.client_id, binding.bind_id)).await {
            tracing::error!(ports = %binding.leased, error = %describe(&error), "cannot take the lease out of use");
        }
        for port in lost {
            tracing::warn!(port, "a program still serves a port that somebody else may hold now");
            self.wants.seek(port, now);
        }
    }

    async fn registration_changed(&mut self, change: RegistrationChange, now: Instant) {
        match change {
            RegistrationChange::Registered(client_id) => {
                self.unreachable_told = false;
                self.wants.seek_all(now);
                tracing::info!(%client_id, gateway = %self.settings.gateway, "registered");
                self.trouble.clear();
                if self.settings.block == 0
                    && let Err(error) = self.effects.activate().await
                {
                    self.stop(now, Some(failure(error)));
                }
            }
            RegistrationChange::Refused(error) => {
                tracing::warn!(%error, "the gateway refuses the registration");
                self.trouble.refused(error);
            }
            RegistrationChange::Unsuitable(mismatch) => {
                tracing::warn!(%mismatch, "the gateway does not fit");
                self.trouble.unsuitable(mismatch);
            }
            // Told with each attempt; the first says it all.
            RegistrationChange::Unreachable if self.unreachable_told => {}
            RegistrationChange::Unreachable => {
                self.unreachable_told = true;
                tracing::warn!(gateway = %self.settings.gateway, "the gateway cannot be reached");
            }
            RegistrationChange::Lost => tracing::warn!("the gateway lost the registration"),
        }
    }
}
