//! What the state machine wants done.

use std::time::Instant;

use rsip_proto::host::{
    BindingKind, HostBinding, HostCommand, InstallFailed, RegistrationChange, WithdrawReason,
};
use rsip_proto::lease::{Leased, Remote};
use rsip_proto::wire::RemotePolicy;

use super::{Agent, Stage, describe, failure};
use crate::clock;
use crate::hooks::PortTable as _;
use crate::ports;

impl Agent {
    /// Carries out what the state machine wants, until it wants nothing more.
    pub(super) async fn carry_out(&mut self) {
        loop {
            // Kept before any of it is done: after a crash it must be known what may hold at the gateway.
            if let Err(error) = self.effects.keep(&self.host.saved()) {
                tracing::error!(error = %describe(&error), "cannot keep the state");
            }
            let Some(command) = self.host.next_command() else { return };
            self.carry_out_one(command, clock::now()).await;
        }
    }

    async fn carry_out_one(&mut self, command: HostCommand, now: Instant) {
        match command {
            HostCommand::Connect => self.connect(now).await,
            HostCommand::Farewell(client_id) => self.say_farewell(client_id, now),
            HostCommand::Disconnect => self.transport = None,
            HostCommand::Send(message) => {
                tracing::trace!(?message, "to the gateway");
                if let Some(transport) = &self.transport {
                    transport.send(&message);
                }
            }
            HostCommand::Publish { op, binding } => {
                let outcome = self.publish(binding, now).await;
                self.host.handle_done(op, outcome, clock::now());
                self.want_first_blocks(clock::now());
            }
            HostCommand::Renamed { old, binding } => {
                tracing::info!(bind_id = %binding.bind_id, ports = %binding.leased, "leased again");
                self.ephemeral.planner.rename(old, (binding.client_id, binding.bind_id));
                self.effects.rename(old, binding);
            }
            HostCommand::Withdraw { binding, reason } => self.withdraw(&binding, reason, now).await,
            HostCommand::Verdict { port, outcome } => self.verdict(port, outcome, now),
            HostCommand::Registration(change) => self.registration_changed(change, now).await,
            HostCommand::Local(networks) => {
                if self.settings.query
                    && let Err(error) = self.effects.set_answer(networks).await
                {
                    tracing::error!(error = %describe(&error), "cannot follow what the gateway calls local");
                }
            }
            HostCommand::Stopped => self.done = true,
        }
    }

    async fn publish(&mut self, binding: HostBinding, now: Instant) -> Result<(), InstallFailed> {
        let (kind, ports, address) = (binding.kind, binding.leased.clone(), binding.address);
        let was_active = self.effects.is_active();
        tracing::info!(bind_id = %binding.bind_id, address = %binding.address, %ports, ?kind, "leased");
        if let Err(error) = self.effects.publish(binding).await {
            tracing::error!(%ports, error = %describe(&error), "cannot take the lease into use");
            if let Stage::Starting { .. } = self.stage {
                self.stop(now, Some(failure(error)));
            }
            return Err(InstallFailed);
        }
        self.public_is(address);
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
        let used = match reason {
            WithdrawReason::Freed | WithdrawReason::Shutdown => Vec::new(),
            WithdrawReason::Expired
            | WithdrawReason::Revoked
            | WithdrawReason::Deregistered
            | WithdrawReason::Lost
            | WithdrawReason::Refused(_)
            | WithdrawReason::OtherAddress(_) => self.used_of(&binding.leased),
        };
        for port in binding.leased.iter() {
            self.usage.forget(port);
        }
        if let Err(error) = self.effects.withdraw((binding.client_id, binding.bind_id)).await {
            tracing::error!(ports = %binding.leased, error = %describe(&error), "cannot take the lease out of use");
        }
        if used.is_empty() {
            return;
        }
        let ports = ports::as_text(&used.iter().copied().collect());
        tracing::warn!(
            %ports, why = %why(reason), consequence = consequence(binding.kind, reason),
            "programs still use what was leased"
        );
        let asks_again = matches!(
            reason,
            WithdrawReason::Lost
                | WithdrawReason::Refused(_)
                | WithdrawReason::OtherAddress(_)
                | WithdrawReason::Deregistered
        );
        if binding.kind == BindingKind::Listen && asks_again {
            for port in used {
                self.wants.seek(port, now);
            }
        }
    }

    /// The ports of a lease that some socket uses.
    fn used_of(&self, leased: &Leased) -> Vec<u16> {
        let sockets = self.effects.sockets().unwrap_or_default();
        let counted = |port: &u16| self.effects.hooks.uses(*port).is_ok_and(|uses| uses > 0);
        match leased {
            Leased::Address => sockets.into_keys().collect(),
            Leased::Ports(ports) => {
                ports.iter().filter(|port| sockets.contains_key(port) || counted(port)).collect()
            }
        }
    }

    async fn registration_changed(&mut self, change: RegistrationChange, now: Instant) {
        match change {
            RegistrationChange::Registered(client_id) => {
                self.unreachable_told = false;
                self.wants.seek_all(now);
                tracing::info!(%client_id, gateway = %self.settings.gateway, "registered");
                self.trouble.clear();
                self.check_remote_policy(now);
                if !self.settings.wants_ephemeral()
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
            // Told with both addresses.
            RegistrationChange::Moved => {}
        }
    }

    /// Whoever names a peer gets it alone, also where the gateway does not ask for that.
    fn check_remote_policy(&self, now: Instant) {
        let policy = self.host.view(now).flow_policy.map(|policy| policy.remote);
        if self.settings.remote != Remote::Any && policy == Some(RemotePolicy::None) {
            tracing::warn!(
                peer = %self.settings.remote,
                "the gateway has no remote flow policy; this host by itself has nothing to do with anybody else"
            );
        }
    }
}

/// Why a lease ended, for people.
fn why(reason: WithdrawReason) -> String {
    match reason {
        WithdrawReason::Freed => "given back".to_owned(),
        WithdrawReason::Expired => "the lease ended, and no gateway prolonged it".to_owned(),
        WithdrawReason::Revoked => "the gateway took it back".to_owned(),
        WithdrawReason::Deregistered => "the gateway ended the registration".to_owned(),
        WithdrawReason::Lost => "the registration was lost, and it was not given again in time".to_owned(),
        WithdrawReason::Refused(error) => {
            format!("the registration was lost, and the gateway does not give it again: {error}")
        }
        WithdrawReason::OtherAddress(address) => {
            format!("the registration was lost, and the gateway leases another public address now: {address}")
        }
        WithdrawReason::Shutdown => "the agent ends".to_owned(),
    }
}

/// What the end of a lease means for programs that still use it.
const fn consequence(kind: BindingKind, reason: WithdrawReason) -> &'static str {
    match (kind, reason) {
        (BindingKind::Block, _) => "connections from these ports are cut off; new ones get other ports",
        (BindingKind::Address, _) => "everything that uses the address is cut off until one is leased again",
        (BindingKind::StaticListen, _) => "nobody reaches the servers until the ports are leased again",
        (BindingKind::Listen, WithdrawReason::Revoked) => {
            "nobody reaches the servers, and the ports are not asked for again before they are bound again"
        }
        (BindingKind::Listen, _) => {
            "nobody reaches the servers until the ports are leased again; another host may get them"
        }
    }
}
