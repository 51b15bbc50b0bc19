//! How bindings begin: ASSIGN and LISTEN, from the request to the answer.
//!
//! What is wanted is taken in the pool first, then the data path is told, and the host is answered when it holds. Whoever
//! has as many ports as he may have gets 309, as many whole addresses 308; both come last, since what is wrong with the
//! request itself does not get better when something is freed.

use std::net::Ipv4Addr;
use std::time::Instant;

use super::binding::{AfterInstall, Binding, BindingKey, Phase, ReplyTo, holder_of, port_count};
use super::client::Client;
use super::grant::seconds;
use super::lease_timer::Timer;
use super::policy::{self, LeaseRequest, Local, Refusal};
use super::{Event, Gateway, GatewayCommand, InstallFailed, RemovalReason, Rule, remote};
use crate::ids::ClientId;
use crate::lease::Leased;
use crate::pool::{Grant, LeaseError};
use crate::wire::message::{AssignResponseRsaIp, PortBinding};
use crate::wire::{Address, Body, ErrorCode, TunnelType};

impl Gateway {
    /// ASSIGN and LISTEN: takes what is wanted and tells the data path. The answer follows its outcome.
    pub(super) fn lease(&mut self, to: ReplyTo, request: &LeaseRequest, now: Instant) {
        match self.reserve(to, request, now) {
            Ok(rule) => {
                let op = self.next_op((rule.client_id, rule.bind_id));
                self.commands.push_back(GatewayCommand::Install { op, rule });
            }
            Err(refusal) => self.refuse(to, refusal, now),
        }
    }

    fn reserve(&mut self, to: ReplyTo, request: &LeaseRequest, now: Instant) -> Result<Rule, Refusal> {
        let client_id = request.client_id;
        let refuse = |error, detail: String| Refusal::new(error, Some(client_id), detail);
        let terms = policy::judge(&self.config, request)?;
        let tunnel = self.tunnel_for(request, terms.tunnel).ok_or_else(|| {
            refuse(ErrorCode::BadTunnelType, "it has leases with a tunnel of another type".to_owned())
        })?;
        let preferred = self.clients.get(client_id).and_then(|client| self.preferred(client, &terms.local));
        let offer = self
            .pool
            .offer(terms.local.wish(), terms.address, preferred, now)
            .map_err(|error| refuse(code_of(&error), error.to_string()))?;
        self.check_limits(client_id, &offer).map_err(|(error, detail)| refuse(error, detail))?;
        let Some(client) = self.clients.get_mut(client_id) else {
            return Err(refuse(ErrorCode::InternalServerError, format!("client {client_id} is gone")));
        };
        let bindings = &self.bindings;
        let bind_id = client.next_bind(|bind_id| bindings.contains((client_id, bind_id)));
        if let Err(error) = self.pool.take(&offer, holder_of((client_id, bind_id))) {
            self.commands.push_back(GatewayCommand::Event(Event::Fault { detail: error.to_string() }));
            return Err(refuse(ErrorCode::InternalServerError, error.to_string()));
        }
        client.ports += port_count(&offer.leased);
        let rule = Rule {
            client_id,
            bind_id,
            host: client.host,
            address: offer.address,
            leased: offer.leased,
            remote: terms.remote,
            tunnel,
        };
        self.bindings.insert(Binding {
            rule: rule.clone(),
            listen: request.is_listen(),
            lease: self.lease_seconds(request.lease_time),
            expires: now,
            announced: false,
            phase: Phase::Installing(AfterInstall::Answer(to)),
        });
        Ok(rule)
    }

    /// A host has one tunnel: what has no port of its own, as a fragment, could not tell two apart. The first lease decides;
    /// `best` is what would be granted without one.
    fn tunnel_for(&self, request: &LeaseRequest, best: TunnelType) -> Option<TunnelType> {
        let Some(held) = self.bindings.of(request.client_id).map(|binding| binding.rule.tunnel).next() else {
            return Some(best);
        };
        let acceptable = request.tunnel_types.is_empty() || request.tunnel_types.contains(&held);
        acceptable.then_some(held)
    }

    /// The address at which the host is served best: where it has ports already, or the one that it had whole.
    fn preferred(&self, client: &Client, local: &Local) -> Option<Ipv4Addr> {
        match local {
            Local::Any(_) | Local::Named(_) => {
                let mut rules = self.bindings.of(client.id).map(|binding| &binding.rule);
                rules.find(|rule| rule.leased.ports().is_some()).map(|rule| rule.address)
            }
            Local::Whole => {
                let mut had = self.had_whole.iter().filter(|(_, host)| **host == client.host);
                had.find(|(address, _)| !self.pool.is_held_whole(**address)).map(|(address, _)| *address)
            }
        }
    }

    fn check_limits(&self, client_id: ClientId, offer: &Grant) -> Result<(), (ErrorCode, String)> {
        match offer.leased {
            Leased::Address => {
                let rules = self.bindings.of(client_id).map(|binding| &binding.rule.leased);
                let held = rules.filter(|leased| **leased == Leased::Address).count();
                let most = self.config.max_addresses_per_client;
                if u32::try_from(held).unwrap_or(u32::MAX) >= most {
                    let detail = format!("more whole addresses than the {held} that it holds are too many");
                    return Err((ErrorCode::LocalAddrUnavailable, detail));
                }
            }
            Leased::Ports(_) => {
                let held = self.clients.get(client_id).map_or(0, |client| client.ports);
                let more = port_count(&offer.leased);
                if held.saturating_add(more) > self.config.max_ports_per_client {
                    let detail = format!("{more} more ports than the {held} that it holds are too many");
                    return Err((ErrorCode::LocalAddrportUnavailable, detail));
                }
            }
        }
        Ok(())
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
        let (rule, lease_time, listen) = (binding.rule.clone(), binding.lease, binding.listen);
        self.timers.insert(until, Timer::Binding(key));
        self.prolong(key.0, until);
        if rule.leased == Leased::Address {
            self.had_whole.insert(rule.address, rule.host);
        }
        self.answer(to, response(&rule, lease_time, listen));
        self.commands.push_back(GatewayCommand::Event(Event::Bound { rule, lease_time, listen }));
    }
}

fn response(rule: &Rule, lease_time: u32, listen: bool) -> Body {
    let Rule { client_id, bind_id, tunnel: tunnel_type, .. } = *rule;
    let local_address = Address::Ipv4(rule.address);
    let (remote_address, remote_ports) = remote::stated(rule.remote);
    let tunnel_endpoint = None;
    match rule.leased.clone() {
        Leased::Address => Body::AssignResponseRsaIp(AssignResponseRsaIp {
            client_id,
            bind_id,
            local_address,
            remote_address,
            remote_ports,
            lease_time,
            tunnel_type,
            tunnel_endpoint,
        }),
        Leased::Ports(local_ports) => {
            let binding = PortBinding {
                client_id,
                bind_id,
                local_address,
                local_ports,
                remote_address,
                remote_ports,
                lease_time,
                tunnel_type,
                tunnel_endpoint,
            };
            if listen { Body::ListenResponse(binding) } else { Body::AssignResponseRsapIp(binding) }
        }
    }
}

/// The RSIP error for what the pool says.
const fn code_of(error: &LeaseError) -> ErrorCode {
    match error {
        LeaseError::Exhausted | LeaseError::NoWholeAddress => ErrorCode::LocalAddrUnavailable,
        LeaseError::NotInPool(_) | LeaseError::NotShared(_) | LeaseError::NotWhole(_) => {
            ErrorCode::LocalAddrUnallowed
        }
        LeaseError::AddressInUse(_) => ErrorCode::LocalAddrInuse,
        LeaseError::NotLeasable(_) => ErrorCode::LocalAddrportUnallowed,
        LeaseError::InUse(_) => ErrorCode::LocalAddrportInuse,
        LeaseError::TooMany(_) => ErrorCode::LocalAddrportUnavailable,
        LeaseError::NotASet => ErrorCode::BadParam,
    }
}
