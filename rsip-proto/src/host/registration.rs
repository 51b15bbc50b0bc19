//! Being registered: asking for it, losing it, and asking again for what was held (RFC 3103 sections 9.2 to 9.5, 10.2).

use std::time::{Duration, Instant};

use crate::host::binding::{Fate, State};
use crate::host::retransmit::after;
use crate::host::terms::{against_offer, against_policy};
use crate::host::{DenyReason, Host, HostCommand, Mismatch, RegistrationChange, WithdrawReason};
use crate::ids::{BindId, ClientId};
use crate::wire::{Body, ErrorCode, FlowPolicy, RsipMethod, TunnelType};

/// How long what is in use stays so while the gateway refuses the registration. The gateway forwards nothing for us
/// meanwhile (RFC 3103 section 6), but one that is being replaced refuses everybody for a moment, and programs survive
/// that if their ports come back.
const GRACE: Duration = Duration::from_secs(30);

/// The registration.
#[derive(Clone, Debug)]
pub(super) enum Registration {
    /// None.
    None {
        /// De-register this one first: the gateway may know us by it.
        stale: Option<ClientId>,
        /// Not before this time.
        at: Instant,
    },
    /// Registered, as far as we know.
    Held(Held),
}

/// Why there is no registration that could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// The gateway said no.
    Refused(ErrorCode),
    /// What it demands or offers does not fit.
    Mismatch(Mismatch),
}

impl Obstacle {
    /// What programs are told.
    pub(super) const fn reason(self) -> DenyReason {
        match self {
            Self::Refused(error) => DenyReason::Gateway(error),
            Self::Mismatch(mismatch) => DenyReason::Mismatch(mismatch),
        }
    }

    const fn change(self) -> RegistrationChange {
        match self {
            Self::Refused(error) => RegistrationChange::Refused(error),
            Self::Mismatch(mismatch) => RegistrationChange::Unsuitable(mismatch),
        }
    }
}

/// What a REGISTER_RESPONSE said, and what became of it.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) client_id: ClientId,
    pub(super) lease_time: Duration,
    pub(super) expires_at: Instant,
    pub(super) flow_policy: Option<FlowPolicy>,
    pub(super) methods: Vec<RsipMethod>,
    pub(super) tunnel_types: Vec<TunnelType>,
    pub(super) since: Instant,
    /// The gateway has done something under this name.
    pub(super) confirmed: bool,
    /// The shell knows.
    pub(super) announced: bool,
}

impl Host {
    /// The name under which we are registered.
    pub(super) const fn client_id(&self) -> Option<ClientId> {
        match &self.registration {
            Registration::Held(held) => Some(held.client_id),
            Registration::None { .. } => None,
        }
    }

    /// What the gateway demands of requests.
    pub(super) fn flow_policy(&self) -> Option<FlowPolicy> {
        match &self.registration {
            Registration::Held(held) => held.flow_policy,
            Registration::None { .. } => None,
        }
    }

    /// Tunnel types of the gateway, best first; none where it has not said.
    pub(super) fn offered_tunnels(&self) -> &[TunnelType] {
        match &self.registration {
            Registration::Held(held) => &held.tunnel_types,
            Registration::None { .. } => &[],
        }
    }

    /// REGISTER_REQUEST was answered. The lease runs since `since`.
    pub(super) fn register_answered(&mut self, body: Body, since: Instant, now: Instant) {
        match body {
            Body::RegisterResponse { client_id, lease_time, flow_policy, mut methods, mut tunnel_types } => {
                if methods.is_empty() {
                    methods.push(RsipMethod::RsapIp);
                }
                if tunnel_types.is_empty() {
                    tunnel_types.push(TunnelType::IpIp);
                }
                let mismatch = against_policy(&self.config, flow_policy)
                    .or_else(|| against_offer(&self.config, &methods, &tunnel_types));
                if let Some(mismatch) = mismatch {
                    // Of no use to us, and in the way of others there.
                    self.not_registered(Obstacle::Mismatch(mismatch), Some(client_id), now);
                    return;
                }
                // No lease at all would be a loop that never rests.
                let lease_time = Duration::from_secs(lease_time.max(1).into());
                self.registration = Registration::Held(Held {
                    client_id,
                    lease_time,
                    expires_at: after(since, lease_time),
                    flow_policy: Some(flow_policy),
                    methods,
                    tunnel_types,
                    since: now,
                    confirmed: false,
                    announced: false,
                });
                self.obstacle = None;
                self.displaced = false;
                self.doubt = false;
                self.probe_now = false;
                self.announce();
                self.ask_what_is_local(now);
                self.fit_requests_to_policy();
                for id in self.table.ids() {
                    self.enqueue(id, now);
                }
            }
            Body::ErrorResponse { error: ErrorCode::AlreadyRegistered, client_id: Some(stale), .. }
                if !self.displaced =>
            {
                // An earlier run of ours (RFC 3103 section 10.2.1).
                self.displaced = true;
                self.registration = Registration::None { stale: Some(stale), at: now };
            }
            Body::ErrorResponse { error, client_id, .. } => {
                let stale = client_id.filter(|_| error == ErrorCode::AlreadyRegistered);
                self.not_registered(Obstacle::Refused(error), stale, now);
            }
            _ => {}
        }
    }

    /// Anything that answers a request of a registered host, but for "you are not", confirms the registration.
    pub(super) fn confirm(&mut self) {
        if let Registration::Held(held) = &mut self.registration {
            held.confirmed = true;
            self.register_backoff.reset();
            self.announce();
        }
    }

    /// So does an answer to QUERY, but not that to the first one, which follows each registration: a gateway that forgets
    /// its hosts with the next request would be asked again and again without a pause.
    pub(super) fn confirm_by_query(&mut self, now: Instant) {
        let Registration::Held(held) = &self.registration else { return };
        if now.saturating_duration_since(held.since) >= self.config.retry_max {
            self.confirm();
        } else {
            self.announce();
        }
    }

    fn announce(&mut self) {
        if let Registration::Held(held) = &mut self.registration
            && !held.announced
        {
            held.announced = true;
            let change = RegistrationChange::Registered(held.client_id);
            self.commands.push_back(HostCommand::Registration(change));
        }
    }

    /// A binding lives until `expires_at`; so does the registration, at least (RFC 3103 section 6).
    pub(super) fn prolong(&mut self, lease_time: Duration, expires_at: Instant) {
        if let Registration::Held(held) = &mut self.registration
            && held.expires_at < expires_at
        {
            held.expires_at = expires_at;
            held.lease_time = lease_time;
        }
    }

    /// The registration was refused, or is of no use; asked for again after a pause. `stale`: the name to be de-registered
    /// first, at once.
    fn not_registered(&mut self, obstacle: Obstacle, stale: Option<ClientId>, now: Instant) {
        let at = after(now, self.register_backoff.pause());
        self.registration = Registration::None { stale, at };
        self.obstacle = Some(obstacle);
        self.commands.push_back(HostCommand::Registration(obstacle.change()));
        for id in self.table.ids() {
            self.deny(id, obstacle.reason());
            self.table.change(id, |slot| {
                if let State::InUse { lease, lost: true } = &mut slot.state {
                    lease.expires_at = lease.expires_at.min(after(now, GRACE));
                }
            });
            self.settle(id, now);
        }
    }

    /// The registration is gone. `forget`: the gateway is told to forget the old name before we register again (RFC
    /// 3103 section 10.2.2). What is in use stays in use while the same is asked for again.
    pub(super) fn lose_registration(&mut self, forget: bool, now: Instant) {
        let Registration::Held(held) = &self.registration else { return };
        // A gateway that registers us and knows nothing of it a moment later is asked more and more seldom.
        let at = if held.confirmed { now } else { after(now, self.register_backoff.pause()) };
        self.end_registration(forget.then_some(held.client_id), at, now, RegistrationChange::Lost);
    }

    pub(super) fn end_registration(
        &mut self,
        stale: Option<ClientId>,
        at: Instant,
        now: Instant,
        change: RegistrationChange,
    ) {
        self.registration = Registration::None { stale, at };
        self.commands.push_back(HostCommand::Registration(change));
        self.doubt = false;
        self.probe_now = false;
        self.displaced = false;
        self.queue.clear();
        for id in self.table.ids() {
            let unused = self
                .table
                .get(id)
                .is_some_and(|slot| matches!(slot.state, State::InUse { .. }) && !slot.wanted());
            if unused {
                self.withdraw(id, WithdrawReason::Freed);
                self.table.remove(id);
                continue;
            }
            let freed = self.table.change(id, |slot| {
                slot.remember();
                match &mut slot.state {
                    State::Asking | State::Waiting { .. } => {}
                    State::Resumed(_) => slot.state = State::Asking,
                    State::Installing { fate, .. } => {
                        if *fate == Fate::Use {
                            *fate = Fate::Renew;
                        }
                    }
                    State::InUse { lost, .. } => *lost = true,
                    State::Freeing { .. } => return true,
                }
                false
            });
            if freed == Some(true) {
                // Bindings end with the registration: nothing is left to give back.
                self.freed(id, now);
            }
        }
    }

    /// DE-REGISTER_RESPONSE: the host "MUST stop all use of the resources" (RFC 3103 section 9.5.1). What was in use is
    /// asked for again under the next registration.
    pub(super) fn stop_all_use(&mut self, now: Instant) {
        for id in self.table.ids() {
            let in_use =
                self.table.get(id).is_some_and(|slot| matches!(slot.state, State::InUse { lost: true, .. }));
            if in_use {
                self.withdraw(id, WithdrawReason::Deregistered);
                self.ended(id, WithdrawReason::Deregistered, now);
            }
            self.table.change(id, |slot| {
                if matches!(slot.state, State::Installing { fate: Fate::Renew, .. }) {
                    slot.set_fate(Fate::Withdraw(WithdrawReason::Deregistered));
                }
            });
        }
    }

    /// When the registration has to be looked after.
    pub(super) fn registration_deadline(&self) -> Option<Instant> {
        let idle = self.link_is_up() && self.outstanding.is_none() && self.leaving.is_none();
        match &self.registration {
            Registration::None { at, .. } => idle.then_some(*at),
            Registration::Held(held) => {
                let probe = idle.then(|| self.probe_at());
                probe.into_iter().chain([held.expires_at]).min()
            }
        }
    }

    pub(super) fn registration_timeout(&mut self, now: Instant) {
        if let Registration::Held(held) = &self.registration
            && held.expires_at <= now
        {
            // The gateway's clock may differ a little, so it is told to forget the old name first.
            let stale = Some(held.client_id);
            self.end_registration(stale, now, now, RegistrationChange::Lost);
        }
    }

    fn probe_at(&self) -> Instant {
        after(self.heard_at, self.config.probe_interval.max(Duration::from_millis(1)))
    }

    /// A request that only asks whether the gateway still knows us, if that is due: an EXTEND of any binding where
    /// there is one, since QUERY is optional for a host.
    pub(super) fn probe(&mut self, now: Instant) -> Option<Probe> {
        if !self.probe_now && self.probe_at() > now {
            return None;
        }
        let bound = self.table.iter().find_map(|(id, slot)| match &slot.state {
            State::Resumed(lease) | State::InUse { lease, lost: false } if slot.wanted() => {
                Some(Probe::Extend(id, lease.binding.bind_id))
            }
            _ => None,
        });
        let asks_anyway = std::mem::take(&mut self.probe_now) && !self.queue.is_empty();
        match bound {
            // Whatever is asked next will tell, too.
            None if asks_anyway => None,
            None => Some(Probe::Query),
            bound @ Some(_) => bound,
        }
    }
}

/// How the registration is checked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Probe {
    /// EXTEND_REQUEST for this slot's binding.
    Extend(super::binding::SlotId, BindId),
    /// QUERY_REQUEST without a question.
    Query,
}
