//! How registrations and bindings begin and go on: REGISTER, ASSIGN, LISTEN, EXTEND.
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

use std::time::{Duration, Instant};

use super::binding::{AfterInstall, Binding, BindingKey, Phase, ReplyTo, holder_of, port_count};
use super::client::Client;
use super::lease_timer::Timer;
use super::policy::{self, LocalPorts, PortRequest, Refusal};
use super::{Event, Gateway, GatewayCommand, InstallFailed, Peer, RemovalReason, Rule};
use crate::ids::{BindId, ClientId};
use crate::lease::Remote;
use crate::pool::{LeaseError, Wish};
use crate::wire::message::PortBinding;
use crate::wire::{Address, Body, ErrorCode, MessageType, Ports, RsipMethod};

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
            methods: vec![RsipMethod::RsapIp],
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
    fn prolong(&mut self, client_id: ClientId, until: Instant) {
        if let Some(client) = self.clients.get_mut(client_id)
            && until > client.expires
        {
            self.timers.remove(client.expires, Timer::Registration(client_id));
            client.expires = until;
            self.timers.insert(until, Timer::Registration(client_id));
        }
    }

    /// ASSIGN and LISTEN: takes the ports and tells the data path. The answer follows its outcome.
    pub(super) fn lease(&mut self, to: ReplyTo, request: &PortRequest, now: Instant) {
        match self.reserve(to, request, now) {
            Ok(rule) => {
                let op = self.next_op((rule.client_id, rule.bind_id));
                self.commands.push_back(GatewayCommand::Install { op, rule });
            }
            Err(refusal) => self.refuse(to, refusal, now),
        }
    }

    fn reserve(&mut self, to: ReplyTo, request: &PortRequest, now: Instant) -> Result<Rule, Refusal> {
        let client_id = request.client_id;
        let terms = policy::judge(&self.config, request)?;
        let wish = match &terms.ports {
            LocalPorts::Any(count) => Wish::Any(*count),
            LocalPorts::Named(ports) => Wish::Named(ports),
        };
        let preferred = self.bindings.of(client_id).next().map(|binding| binding.rule.address);
        let offer = self
            .pool
            .offer(wish, terms.address, preferred, now)
            .map_err(|error| Refusal::new(code_of(&error), Some(client_id), error.to_string()))?;
        let count = port_count(&offer.ports);
        let fault = |detail: String| Refusal::new(ErrorCode::InternalServerError, Some(client_id), detail);
        let Some(client) = self.clients.get_mut(client_id) else {
            return Err(fault(format!("client {client_id} is gone")));
        };
        if client.ports.saturating_add(count) > self.config.max_ports_per_client {
            let detail = format!("{count} more ports than the {} that it holds are too many", client.ports);
            return Err(Refusal::new(ErrorCode::LocalAddrportUnavailable, Some(client_id), detail));
        }
        let bindings = &self.bindings;
        let bind_id = client.next_bind(|bind_id| bindings.contains((client_id, bind_id)));
        if let Err(error) = self.pool.take(&offer, holder_of((client_id, bind_id))) {
            self.commands.push_back(GatewayCommand::Event(Event::Fault { detail: error.to_string() }));
            return Err(fault(error.to_string()));
        }
        client.ports += count;
        let rule = Rule {
            client_id,
            bind_id,
            host: client.host,
            address: offer.address,
            leased: offer.ports.into(),
            remote: Remote::Any,
            tunnel: terms.tunnel,
        };
        self.bindings.insert(Binding {
            rule: rule.clone(),
            listen: request.listen,
            remote_address: terms.remote_address,
            remote_ports: terms.remote_ports,
            lease: self.lease_seconds(request.lease_time),
            expires: now,
            announced: false,
            phase: Phase::Installing(AfterInstall::Answer(to)),
        });
        Ok(rule)
    }

    /// The data path's word on an Install.
    pub(super) fn installed(
        &mut self,
        key: BindingKey,
        then: AfterInstall,
        result: Result<(), InstallFailed>,
        now: Instant,
    ) {
        match (result, then) {
            (Ok(()), AfterInstall::Answer(to)) => self.activate(key, to, now),
            (Ok(()), AfterInstall::Undo(reason)) => self.remove(key, reason, None),
            (Err(InstallFailed), then) => {
                let (client_id, bind_id) = key;
                self.discard(key, RemovalReason::InstallFailed, now);
                if let AfterInstall::Answer(to) = then {
                    let detail = format!("the data path could not take bind {bind_id}");
                    let refusal = Refusal::new(ErrorCode::InternalServerError, Some(client_id), detail);
                    self.refuse(to, refusal, now);
                }
                self.settle(key);
            }
        }
    }

    fn activate(&mut self, key: BindingKey, to: ReplyTo, now: Instant) {
        let Some(binding) = self.bindings.get_mut(key) else { return };
        let until = now + seconds(binding.lease);
        binding.phase = Phase::Active;
        binding.expires = until;
        binding.announced = true;
        let rule = binding.rule.clone();
        let (lease_time, listen) = (binding.lease, binding.listen);
        let response = PortBinding {
            client_id: rule.client_id,
            bind_id: rule.bind_id,
            local_address: Address::Ipv4(rule.address),
            local_ports: rule.leased.ports().cloned().unwrap_or(Ports::ANY),
            remote_address: binding.remote_address.clone(),
            remote_ports: binding.remote_ports.clone(),
            lease_time,
            tunnel_type: rule.tunnel,
            tunnel_endpoint: None,
        };
        self.timers.insert(until, Timer::Binding(key));
        self.prolong(key.0, until);
        let body = if listen { Body::ListenResponse(response) } else { Body::AssignResponseRsapIp(response) };
        self.answer(to, body);
        self.commands.push_back(GatewayCommand::Event(Event::Bound { rule, lease_time, listen }));
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
    fn lease_seconds(&self, wish: Option<u32>) -> u32 {
        let wish = wish.filter(|wish| *wish > 0);
        let wish = wish.unwrap_or_else(|| whole_seconds(self.config.lease_time));
        wish.min(whole_seconds(self.config.max_lease_time))
    }
}

/// The RSIP error for what the pool says.
const fn code_of(error: &LeaseError) -> ErrorCode {
    match error {
        LeaseError::Exhausted => ErrorCode::LocalAddrUnavailable,
        LeaseError::NotInPool(_) => ErrorCode::LocalAddrUnallowed,
        LeaseError::NotLeasable(_) => ErrorCode::LocalAddrportUnallowed,
        LeaseError::InUse(_) => ErrorCode::LocalAddrportInuse,
        LeaseError::TooMany(_) => ErrorCode::LocalAddrportUnavailable,
        LeaseError::NotASet => ErrorCode::BadParam,
    }
}

pub(super) const fn seconds(count: u32) -> Duration {
    Duration::from_secs(count as u64)
}

/// As RSIP writes a lease: never 0, and what does not fit is as long as can be.
fn whole_seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1)
}
