//! What is asked next. Stop-and-wait: one request is outstanding at a time (RFC 3103 section 10.1).

use std::time::{Duration, Instant};

use crate::host::binding::{SlotId, State, Target};
use crate::host::queue::Lane;
use crate::host::registration::{Probe, Registration};
use crate::host::retransmit::Retransmit;
use crate::host::terms::{favourite, remote, remote_parameters};
use crate::host::{Host, HostCommand, WithdrawReason};
use crate::ids::{BindId, ClientId};
use crate::wire::message::{AssignRequestRsaIp, AssignRequestRsapIp, ListenRequest};
use crate::wire::{Address, Body, Message, Ports, TunnelType};

/// What the outstanding request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// REGISTER_REQUEST.
    Register,
    /// DE-REGISTER_REQUEST for a name that is not ours any more.
    Forget,
    /// DE-REGISTER_REQUEST at the end.
    Leave,
    /// QUERY_REQUEST, to hear whether the gateway knows us.
    Query,
    /// ASSIGN, LISTEN, EXTEND or FREE.
    Slot(SlotId),
}

/// A request that waits for its answer.
#[derive(Clone, Debug)]
pub(super) struct Outstanding {
    pub(super) message: Message,
    pub(super) purpose: Purpose,
    pub(super) clock: Retransmit,
}

/// The client ID that a request carries.
pub(super) const fn client_of(request: &Body) -> Option<ClientId> {
    match request {
        Body::DeRegisterRequest { client_id }
        | Body::ExtendRequest { client_id, .. }
        | Body::FreeRequest { client_id, .. }
        | Body::QueryRequest { client_id, .. } => Some(*client_id),
        Body::AssignRequestRsaIp(request) => Some(request.client_id),
        Body::AssignRequestRsapIp(request) => Some(request.client_id),
        Body::ListenRequest(request) => Some(request.client_id),
        _ => None,
    }
}

/// Whether carrying out this request twice leaves a binding whose name is never heard.
pub(super) const fn creates_binding(request: &Body) -> bool {
    matches!(request, Body::AssignRequestRsaIp(_) | Body::AssignRequestRsapIp(_) | Body::ListenRequest(_))
}

impl Host {
    /// Sends the next request, if it is time for one.
    pub(super) fn pump(&mut self, now: Instant) {
        if !self.stopped && self.link_is_up() && self.outstanding.is_none() {
            self.gather_block(now);
            let next = if self.leaving.is_some() { self.leave_request() } else { self.next_request(now) };
            if let Some((body, purpose)) = next {
                self.counter = self.counter.next();
                let message = Message::new(self.counter, body);
                let clock = Retransmit::start(&self.config, now);
                self.commands.push_back(HostCommand::Send(message.clone()));
                self.outstanding = Some(Outstanding { message, purpose, clock });
            }
        }
        self.finish_leaving();
    }

    pub(super) fn is_outstanding(&self, id: SlotId) -> bool {
        self.outstanding.as_ref().is_some_and(|outstanding| outstanding.purpose == Purpose::Slot(id))
    }

    /// A request that will bring this slot a new binding is outstanding.
    pub(super) fn is_asked(&self, id: SlotId) -> bool {
        self.outstanding.as_ref().is_some_and(|outstanding| {
            outstanding.purpose == Purpose::Slot(id) && creates_binding(&outstanding.message.body)
        })
    }

    fn next_request(&mut self, now: Instant) -> Option<(Body, Purpose)> {
        match &self.registration {
            // "At once" (RFC 3103 sections 10.2.1 and 10.2.2), also where the next registration has to wait.
            Registration::None { stale: Some(client_id), .. } => {
                Some((Body::DeRegisterRequest { client_id: *client_id }, Purpose::Forget))
            }
            Registration::None { at, .. } if *at > now => None,
            Registration::None { stale: None, .. } => Some((Body::RegisterRequest, Purpose::Register)),
            Registration::Held(held) => {
                let client_id = held.client_id;
                if self.must_query(now) {
                    return Some(self.query(client_id, now));
                }
                match self.probe(now) {
                    Some(Probe::Query) => return Some(self.query(client_id, now)),
                    Some(Probe::Extend(id, bind_id)) => {
                        return Some((self.extend(client_id, bind_id), Purpose::Slot(id)));
                    }
                    None => {}
                }
                while let Some(id) = self.queue.pop() {
                    if let Some(body) = self.slot_request(id, client_id, now) {
                        return Some((body, Purpose::Slot(id)));
                    }
                }
                self.may_query(now).then(|| self.query(client_id, now))
            }
        }
    }

    /// "Send everything that you are willing to give" (RFC 3103 section 9.14.3). Also asks whether we are registered.
    fn query(&mut self, client_id: ClientId, now: Instant) -> (Body, Purpose) {
        self.query_sent(now);
        (Body::QueryRequest { client_id, tuples: Vec::new() }, Purpose::Query)
    }

    /// Puts a slot in line, if it has something to ask.
    pub(super) fn enqueue(&mut self, id: SlotId, now: Instant) {
        let Some(slot) = self.table.get(id) else { return };
        let lane = match &slot.state {
            State::Asking if self.comes_with_the_address(slot) => return,
            State::Asking | State::Resumed(_) | State::InUse { lost: true, .. } => {
                let more = slot.target == Target::Block && self.is_micro() && self.has_a_block();
                if more { Lane::Background } else { Lane::Urgent }
            }
            State::InUse { lease, .. } => {
                let due = lease.extend_at.is_none_or(|at| at <= now);
                match (slot.wanted(), due) {
                    (true, false) => return,
                    (true, true) if lease.is_urgent(now) => Lane::Urgent,
                    (true, true) | (false, _) => Lane::Background,
                }
            }
            State::Freeing { retry_at: None, .. } if slot.waiting.is_some() => Lane::Urgent,
            State::Freeing { retry_at: None, .. } => Lane::Background,
            State::Freeing { .. } | State::Waiting { .. } | State::Installing { .. } => return,
        };
        if !self.is_outstanding(id) {
            self.queue.push(id, lane);
        }
    }

    /// What this slot asks, now that it is its turn.
    fn slot_request(&mut self, id: SlotId, client_id: ClientId, now: Instant) -> Option<Body> {
        let slot = self.table.get(id)?;
        let wanted = slot.wanted();
        match &slot.state {
            State::Asking | State::InUse { lost: true, .. } if wanted => self.ask(id, client_id),
            State::Asking => {
                self.table.remove(id);
                None
            }
            State::InUse { lost: true, .. } => {
                self.withdraw(id, WithdrawReason::Freed);
                self.table.remove(id);
                None
            }
            State::Resumed(lease) if wanted => Some(self.extend(client_id, lease.binding.bind_id)),
            State::Resumed(lease) => {
                let bind_id = lease.binding.bind_id;
                self.give_back(id, bind_id, false);
                Some(Body::FreeRequest { client_id, bind_id })
            }
            State::InUse { lease, .. } if wanted => {
                let bind_id = lease.binding.bind_id;
                let due = lease.extend_at.is_none_or(|at| at <= now);
                due.then(|| {
                    self.table.change(id, |slot| {
                        if let State::InUse { lease, .. } = &mut slot.state {
                            lease.extend_at = None;
                        }
                    });
                    self.extend(client_id, bind_id)
                })
            }
            State::InUse { lease, .. } => {
                // Out of use first, then given back: another host may have it the moment the gateway hears of it.
                let bind_id = lease.binding.bind_id;
                self.withdraw(id, WithdrawReason::Freed);
                self.give_back(id, bind_id, false);
                Some(Body::FreeRequest { client_id, bind_id })
            }
            State::Freeing { bind_id, retry_at: None, .. } => {
                Some(Body::FreeRequest { client_id, bind_id: *bind_id })
            }
            State::Freeing { .. } | State::Waiting { .. } | State::Installing { .. } => None,
        }
    }

    fn ask(&mut self, id: SlotId, client_id: ClientId) -> Option<Body> {
        // One public address for all: the host has one tunnel device, and programs bind "any address".
        let address = self.table.iter().find_map(|(_, slot)| match &slot.state {
            State::Installing { lease, .. } | State::InUse { lease, lost: false } => {
                Some(lease.binding.address)
            }
            _ => None,
        });
        let policy = self.flow_policy()?;
        let (remote_address, remote_ports) = remote_parameters(remote(&self.config, policy));
        let lease_time = self.lease_wish();
        let tunnel = self.tunnel();
        let slot = self.table.get(id)?;
        let (address, ports) = match (&slot.hint, slot.target) {
            (_, Target::Stray) => return None,
            (Some((held, leased)), _) => (Some(*held), leased.ports().cloned()),
            (None, Target::Port(port)) => (address, Some(Ports::single(port))),
            (None, Target::Block) => (address, Some(Ports::DontCare { count: slot.size })),
            (None, Target::Address) => (address, None),
        };
        let local_address = address.map_or(Address::ANY, Address::Ipv4);
        Some(match (slot.target, ports) {
            (Target::Port(_), Some(local_ports)) => Body::ListenRequest(ListenRequest {
                client_id,
                local_address,
                local_ports,
                remote_address,
                remote_ports,
                lease_time,
                tunnel_types: vec![tunnel],
            }),
            (_, Some(local_ports)) => Body::AssignRequestRsapIp(AssignRequestRsapIp {
                client_id,
                local_address,
                local_ports,
                remote_address,
                remote_ports,
                lease_time,
                tunnel_type: Some(tunnel),
            }),
            (_, None) => Body::AssignRequestRsaIp(AssignRequestRsaIp {
                client_id,
                local_address,
                remote_address,
                remote_ports,
                lease_time,
                tunnel_type: Some(tunnel),
            }),
        })
    }

    fn extend(&self, client_id: ClientId, bind_id: BindId) -> Body {
        Body::ExtendRequest { client_id, bind_id, lease_time: self.lease_wish() }
    }

    /// The tunnel that is asked for. There is one for all bindings: that of those which are in use, else the gateway's favourite
    /// (after a resume without a registration: what the last run used, as far as it is known).
    fn tunnel(&self) -> TunnelType {
        let used = self.table.iter().find_map(|(_, slot)| match &slot.state {
            State::Installing { lease, .. } | State::InUse { lease, lost: false } => {
                Some(lease.binding.tunnel)
            }
            _ => None,
        });
        used.or_else(|| favourite(&self.config.tunnels, self.offered_tunnels()))
            .or_else(|| self.config.tunnels.first().copied())
            .unwrap_or(TunnelType::IpIp)
    }

    /// In whole seconds, a part of one counting as one.
    fn lease_wish(&self) -> Option<u32> {
        self.config.lease_wish.map(|wish| {
            let seconds = wish.as_secs() + u64::from(wish.subsec_nanos() > 0);
            u32::try_from(seconds.max(Duration::from_secs(1).as_secs())).unwrap_or(u32::MAX)
        })
    }
}
