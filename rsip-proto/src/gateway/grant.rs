//! Leases: how registrations begin (REGISTER), and how they and bindings go on (EXTEND).
//!
//! Leases, where the RFC leaves the choice to the gateway:
//!
//! - A wish is granted up to `max_lease_time`; no wish, and a wish of 0, mean `lease_time`. No lease is shorter than a
//!   second.
//! - A binding's lease begins when its answer is given, that is when the data path holds it.
//! - EXTEND never shortens: a host that asks for less than is left is told what is left.
//! - A registration ends no sooner than its longest binding (RFC 3103 section 6). The RFC has no message that renews a
//!   registration without bindings, so every request of the host that names its client ID renews it, to `lease_time` from
//!   then: whoever speaks is alive.

use std::iter;
use std::time::{Duration, Instant};

use super::binding::{Phase, ReplyTo};
use super::client::Client;
use super::lease_timer::Timer;
use super::policy::Refusal;
use super::{Event, Gateway, GatewayCommand, Peer};
use crate::ids::{BindId, ClientId};
use crate::wire::{Body, ErrorCode, LocalPolicy, MessageType, RsipMethod};

impl Gateway {
    pub(super) fn register(&mut self, to: ReplyTo, now: Instant) {
        let host = *to.peer.address.ip();
        if let Some(client) = self.clients.of_host(host) {
            let refusal = Refusal::new(ErrorCode::AlreadyRegistered, Some(client.id), "registered already");
            if let Some(counter) = to.counter {
                self.replay.may_count_anew(to.peer, counter, now);
            }
            self.refuse(to, refusal, now);
            return;
        }
        let full = u32::try_from(self.clients.len()).map_or(true, |count| count >= self.config.max_clients);
        if self.stopping || full {
            let detail = if full { "MAX_CLIENTS hosts are registered" } else { "the gateway is going down" };
            self.refuse(to, Refusal::new(ErrorCode::RegistrationDenied, None, detail), now);
            return;
        }
        let bindings = &self.bindings;
        // A name of which anything is left, if only a rule that the data path has to forget, is not given again.
        let client_id = self.clients.next_id(|id| bindings.of(id).next().is_some());
        let lease_time = self.lease_seconds(None);
        let expires = now + seconds(lease_time);
        self.clients.insert(Client::new(client_id, to.peer, now, expires));
        self.timers.insert(expires, Timer::Registration(client_id));
        self.replay.registered(host);
        if let Some(counter) = to.counter {
            self.replay.begin(to.peer, counter, MessageType::RegisterRequest, now);
        }
        self.commands.push_back(GatewayCommand::Event(Event::Registered { client_id, host }));
        let body = Body::RegisterResponse {
            client_id,
            lease_time,
            flow_policy: self.config.flow_policy,
            methods: self.methods(),
            tunnel_types: self.config.tunnel_types.clone(),
        };
        self.answer(to, body);
    }

    /// The host spoke: it is alive, and this is where it can be reached.
    pub(super) fn heard(&mut self, client_id: ClientId, from: Peer, now: Instant) {
        if let Some(client) = self.clients.get_mut(client_id)
            && super::TransportKind::of(from.transport) == client.transport
        {
            client.peer = Some(from);
        }
        let until = now + seconds(self.lease_seconds(None));
        self.prolong(client_id, until);
    }

    /// The registration ends no sooner than `until`.
    pub(super) fn prolong(&mut self, client_id: ClientId, until: Instant) {
        if let Some(client) = self.clients.get_mut(client_id)
            && until > client.expires
        {
            self.timers.remove(client.expires, Timer::Registration(client_id));
            client.expires = until;
            self.timers.insert(until, Timer::Registration(client_id));
        }
    }

    /// RSA-IP is offered where it can be had: with addresses for it, and not under a local micro-flow policy (RFC 3103
    /// section 7.1).
    fn methods(&self) -> Vec<RsipMethod> {
        let rsa_ip =
            !self.config.pool.whole.is_empty() && self.config.flow_policy.local == LocalPolicy::Macro;
        iter::once(RsipMethod::RsapIp).chain(rsa_ip.then_some(RsipMethod::RsaIp)).collect()
    }

    pub(super) fn extend(
        &mut self,
        to: ReplyTo,
        client_id: ClientId,
        bind_id: BindId,
        wish: Option<u32>,
        now: Instant,
    ) {
        let key = (client_id, bind_id);
        let granted = now + seconds(self.lease_seconds(wish));
        let active = self.bindings.get_mut(key).filter(|binding| binding.phase == Phase::Active);
        let Some(binding) = active else {
            let refusal = Refusal::of_bind(ErrorCode::BadBindId, client_id, bind_id, "no such binding");
            self.refuse(to, refusal, now);
            return;
        };
        let until = granted.max(binding.expires);
        let lease_time = whole_seconds(until.saturating_duration_since(now));
        self.timers.remove(binding.expires, Timer::Binding(key));
        binding.expires = until;
        binding.lease = lease_time;
        self.timers.insert(until, Timer::Binding(key));
        self.prolong(client_id, until);
        self.answer(to, Body::ExtendResponse { client_id, bind_id, lease_time });
        self.commands.push_back(GatewayCommand::Event(Event::Extended { client_id, bind_id, lease_time }));
    }

    /// What is granted to a wish.
    pub(super) fn lease_seconds(&self, wish: Option<u32>) -> u32 {
        let wish = wish.filter(|wish| *wish > 0);
        let wish = wish.unwrap_or_else(|| whole_seconds(self.config.lease_time));
        wish.min(whole_seconds(self.config.max_lease_time))
    }
}

pub(super) const fn seconds(count: u32) -> Duration {
    Duration::from_secs(count as u64)
}

/// As RSIP writes a lease: never 0, and what does not fit is as long as can be.
fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1)
}
