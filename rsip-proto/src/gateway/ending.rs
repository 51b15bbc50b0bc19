//! How bindings and registrations end: FREE, DE-REGISTER, expiry, the administrator, the daemon's end.
//!
//! A registration ends at once: its host may register again in the next moment, under another client ID. Its bindings
//! end when the data path has forgotten them; until then their ports stay taken. A DE-REGISTER_REQUEST is answered when
//! the last of them is forgotten, or when it is known that the data path cannot.
//!
//! Where the data path cannot forget: a binding that its host wanted to free stays the host's (error 104); any other is
//! tried again every [`RETRY`], for as long as it takes.

use std::collections::BTreeSet;
use std::time::Instant;

use super::binding::{AfterInstall, BindingKey, Phase, ReplyTo, holder_of};
use super::lease_timer::{RETRY, Timer};
use super::policy::Refusal;
use super::{Event, Gateway, GatewayCommand, InstallFailed, RemovalReason, Transport};
use crate::ids::{BindId, ClientId, MessageCounter};
use crate::lease::Leased;
use crate::wire::{Body, ErrorCode, Message};

/// A host that asked to leave, and waits for the answer.
pub(super) struct Departure {
    /// None if its connection is gone.
    pub(super) reply: Option<ReplyTo>,
    /// What the data path has yet to forget.
    left: BTreeSet<BindingKey>,
}

impl Gateway {
    pub(super) fn free(&mut self, to: ReplyTo, client_id: ClientId, bind_id: BindId, now: Instant) {
        let key = (client_id, bind_id);
        match self.bindings.get_mut(key).map(|binding| &mut binding.phase) {
            Some(Phase::Active) => self.remove(key, RemovalReason::Freed, Some(to)),
            // Asked again from elsewhere, by a host whose connection or agent died: it must not hear that the binding is
            // gone before that is certain.
            Some(Phase::Removing { reply, reason: RemovalReason::Freed })
                if reply.is_none_or(|before| before.peer != to.peer) =>
            {
                *reply = Some(to);
            }
            _ => {
                let refusal = Refusal::of_bind(ErrorCode::BadBindId, client_id, bind_id, "no such binding");
                self.refuse(to, refusal, now);
            }
        }
    }

    pub(super) fn de_register(&mut self, client_id: ClientId, to: ReplyTo, now: Instant) {
        self.depart(client_id, RemovalReason::DeRegistered, Some(to), now);
    }

    /// Ends a registration. With `reply` the host asked for it, and waits; else it is told at once.
    pub(super) fn depart(
        &mut self,
        client_id: ClientId,
        reason: RemovalReason,
        reply: Option<ReplyTo>,
        now: Instant,
    ) {
        if reply.is_none() {
            self.notify(client_id, Body::DeRegisterResponse { client_id });
        }
        let Some(client) = self.clients.remove(client_id) else { return };
        self.timers.remove(client.expires, Timer::Registration(client_id));
        self.replay.unregistered(client.host);
        let event = Event::Unregistered { client_id, host: client.host, reason };
        self.commands.push_back(GatewayCommand::Event(event));
        let keys = self.bindings.keys_of(client_id);
        for &key in &keys {
            self.end_binding(key, reason, now);
        }
        let Some(reply) = reply else { return };
        let is_stuck = |key: &BindingKey| {
            self.bindings.get(*key).is_some_and(|binding| matches!(binding.phase, Phase::Stuck { .. }))
        };
        let left: BTreeSet<BindingKey> = keys.into_iter().filter(|key| !is_stuck(key)).collect();
        if left.is_empty() {
            self.answer(reply, Body::DeRegisterResponse { client_id });
        } else {
            self.departures.insert(client_id, Departure { reply: Some(reply), left });
        }
    }

    /// Ends a binding without its host having asked for just that.
    pub(super) fn end_binding(&mut self, key: BindingKey, reason: RemovalReason, now: Instant) {
        let Some(binding) = self.bindings.get_mut(key) else { return };
        let not_allowed = match binding.rule.leased {
            Leased::Address => ErrorCode::LocalAddrUnallowed,
            Leased::Ports(_) => ErrorCode::LocalAddrportUnallowed,
        };
        match &mut binding.phase {
            Phase::Active => self.remove(key, reason, None),
            Phase::Installing(then) => {
                let AfterInstall::Answer(to) = *then else { return };
                *then = AfterInstall::Undo(reason);
                let (client_id, _) = key;
                let code = match reason {
                    RemovalReason::Revoked if self.clients.get(client_id).is_some() => not_allowed,
                    _ => ErrorCode::RegisterFirst,
                };
                self.refuse(to, Refusal::new(code, Some(client_id), "ended before it began"), now);
            }
            Phase::Removing { .. } | Phase::Stuck { .. } => {}
        }
    }

    /// Tells the data path to forget a binding.
    pub(super) fn remove(&mut self, key: BindingKey, reason: RemovalReason, reply: Option<ReplyTo>) {
        let Some(binding) = self.bindings.get_mut(key) else { return };
        self.timers.remove(binding.expires, Timer::Binding(key));
        binding.phase = Phase::Removing { reply, reason };
        let rule = binding.rule.clone();
        let op = self.next_op(key);
        self.commands.push_back(GatewayCommand::Remove { op, rule });
    }

    /// The data path's word on a Remove.
    pub(super) fn removed(
        &mut self,
        key: BindingKey,
        reply: Option<ReplyTo>,
        reason: RemovalReason,
        result: Result<(), InstallFailed>,
        now: Instant,
    ) {
        let (client_id, bind_id) = key;
        if result.is_ok() {
            if let Some(to) = reply {
                self.answer(to, Body::FreeResponse { client_id, bind_id });
            }
            self.discard(key, reason, now);
        } else {
            self.keep(key, reason, now);
            if let Some(to) = reply {
                let detail = "the data path could not forget it";
                let refusal = Refusal::of_bind(ErrorCode::InternalServerError, client_id, bind_id, detail);
                self.refuse(to, refusal, now);
            }
        }
        self.settle(key);
    }

    /// A binding that the data path could not forget.
    fn keep(&mut self, key: BindingKey, reason: RemovalReason, now: Instant) {
        let has_owner = reason == RemovalReason::Freed && self.clients.get(key.0).is_some();
        let Some(binding) = self.bindings.get_mut(key) else { return };
        if has_owner {
            binding.phase = Phase::Active;
            self.timers.insert(binding.expires, Timer::Binding(key));
        } else {
            binding.phase = Phase::Stuck { reason };
            self.timers.insert(now + RETRY, Timer::Retry(key));
            let rule = binding.rule.clone();
            self.commands.push_back(GatewayCommand::Event(Event::Stuck { rule }));
        }
    }

    /// Nothing of a binding is left in the data path: its ports go back.
    pub(super) fn discard(&mut self, key: BindingKey, reason: RemovalReason, now: Instant) {
        let Some(binding) = self.bindings.remove(key) else { return };
        let never_held = reason == RemovalReason::InstallFailed;
        let returned = if never_held {
            self.pool.cancel(&binding.grant(), holder_of(key))
        } else {
            self.pool.release(&binding.grant(), holder_of(key), now)
        };
        if let Err(error) = returned {
            self.commands.push_back(GatewayCommand::Event(Event::Fault { detail: error.to_string() }));
        }
        if let Some(client) = self.clients.get_mut(key.0) {
            client.ports = client.ports.saturating_sub(binding.port_count());
        }
        if binding.announced || never_held {
            let event = Event::Unbound { rule: binding.rule, reason };
            self.commands.push_back(GatewayCommand::Event(event));
        }
    }

    /// One thing less that a leaving host waits for.
    pub(super) fn settle(&mut self, key: BindingKey) {
        let (client_id, _) = key;
        let Some(departure) = self.departures.get_mut(&client_id) else { return };
        departure.left.remove(&key);
        if departure.left.is_empty()
            && let Some(Departure { reply: Some(to), .. }) = self.departures.remove(&client_id)
        {
            self.answer(to, Body::DeRegisterResponse { client_id });
        }
    }

    /// Tells a registered host something that it did not ask for (counter 0), if there is a way to it.
    pub(super) fn notify(&mut self, client_id: ClientId, body: Body) {
        if let Some(to) = self.clients.get(client_id).and_then(|client| client.peer) {
            let message = Message::new(MessageCounter::ASYNCHRONOUS, body);
            self.commands.push_back(GatewayCommand::Send { to, message });
        }
    }

    /// Ends a registration by the administrator's will. False if there is none of this name.
    pub fn release_client(&mut self, client_id: ClientId, now: Instant) -> bool {
        self.expire(now);
        let known = self.clients.get(client_id).is_some();
        self.depart(client_id, RemovalReason::Revoked, None, now);
        known
    }

    /// Ends a binding by the administrator's will; the host is told at once (FREE_RESPONSE, counter 0). False if the
    /// client has none of this name.
    pub fn release_bind(&mut self, client_id: ClientId, bind_id: BindId, now: Instant) -> bool {
        self.expire(now);
        let key = (client_id, bind_id);
        let Some(binding) = self.bindings.get(key) else { return false };
        if binding.phase == Phase::Active {
            self.notify(client_id, Body::FreeResponse { client_id, bind_id });
        }
        self.end_binding(key, RemovalReason::Revoked, now);
        true
    }

    /// Ends every registration: each host is told, each rule is removed, each connection is closed. From now on nobody
    /// registers. [`Gateway::is_drained`] says when the data path has forgotten everything.
    pub fn shutdown(&mut self, now: Instant) {
        self.expire(now);
        self.stopping = true;
        let clients: Vec<_> = self.clients.iter().map(|client| (client.id, client.peer)).collect();
        for (client_id, peer) in clients {
            self.depart(client_id, RemovalReason::Revoked, None, now);
            if let Some(peer) = peer.filter(|peer| peer.transport != Transport::Udp) {
                self.commands.push_back(GatewayCommand::Close { peer });
            }
        }
    }

    /// The server must stop because of a fault of its own: each host hears INTERNAL_SERVER_ERROR with its client ID
    /// (RFC 3103 section 10.4), then all is as with [`Gateway::shutdown`].
    pub fn fail(&mut self, now: Instant) {
        self.expire(now);
        let clients: Vec<ClientId> = self.clients.iter().map(|client| client.id).collect();
        for client_id in clients {
            let error = ErrorCode::InternalServerError;
            self.notify(client_id, Body::ErrorResponse { error, client_id: Some(client_id), bind_id: None });
        }
        self.shutdown(now);
    }

    /// A TCP connection is gone. The registration stays: its lease rules. What was asked for over the connection and not
    /// yet answered is undone, since the host cannot know that it has it.
    pub fn handle_disconnect(&mut self, connection: u64, now: Instant) {
        self.expire(now);
        let gone = Transport::Tcp(connection);
        let is_lost = |to: &mut ReplyTo| to.peer.transport == gone;
        // Whoever waits for an answer waits for an operation under way.
        for key in self.ops.values() {
            match self.bindings.get_mut(*key).map(|binding| &mut binding.phase) {
                Some(Phase::Installing(then)) => {
                    if let AfterInstall::Answer(to) = then
                        && is_lost(to)
                    {
                        *then = AfterInstall::Undo(RemovalReason::Revoked);
                    }
                }
                Some(Phase::Removing { reply, .. }) => {
                    reply.take_if(is_lost);
                }
                Some(Phase::Active | Phase::Stuck { .. }) | None => {}
            }
        }
        for departure in self.departures.values_mut() {
            departure.reply.take_if(is_lost);
        }
        for client in self.clients.iter_mut() {
            client.peer.take_if(|peer| peer.transport == gone);
        }
        self.replay.forget_connection(connection);
    }
}
