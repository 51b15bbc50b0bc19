//! From bytes to the request's own handler: the checks that are the same for every request, in the order of the table in
//! the documentation of [`super`].
//!
//! **The other transport.** A registration keeps the transport of the packet that made it (RFC 3103 section 5). Requests
//! over the other one are refused: over UDP with 102 USE_TCP, over TCP (for which there is no code) with 301, since over
//! this transport the host is not registered; a host then starts anew as section 10.2.2 says. Two requests are served all
//! the same, since a host that was started anew with another transport could never come back otherwise: REGISTER_REQUEST
//! is answered with 302 and the client ID, and DE-REGISTER_REQUEST with that ID ends the old registration.

use std::time::Instant;

use super::binding::ReplyTo;
use super::policy::Refusal;
use super::replay::Verdict;
use super::{Event, Gateway, GatewayCommand, Peer, Transport, TransportKind};
use crate::ids::{ClientId, MessageCounter};
use crate::wire::{Body, ErrorCode, Message, MessageType, ParseError, Stage};

impl Gateway {
    /// Takes exactly one message, as it came. Whatever the bytes are, the worst that happens is an error answer.
    pub fn handle_input(&mut self, from: Peer, bytes: &[u8], now: Instant) {
        self.expire(now);
        match Message::parse(bytes) {
            Ok(message) => self.handle_message(from, message, now),
            Err(error) => self.handle_unreadable(from, &error, now),
        }
    }

    fn handle_unreadable(&mut self, from: Peer, error: &ParseError, now: Instant) {
        if !error.is_answerable() {
            return;
        }
        let refused = error.message_type().filter(|_| error.stage() > Stage::MessageType);
        let refused = refused.and_then(|message_type| self.unsupported(message_type));
        let code = refused.unwrap_or_else(|| {
            if error.lacks_counter() && from.transport == Transport::Udp {
                ErrorCode::MessageCounterRequired
            } else {
                error.error_code()
            }
        });
        let to = ReplyTo { peer: from, counter: error.counter() };
        self.refuse(to, Refusal::new(code, error.client_id(), error.to_string()), now);
    }

    fn handle_message(&mut self, from: Peer, message: Message, now: Instant) {
        let message_type = message.body.message_type();
        if message_type == MessageType::ErrorResponse {
            // Answering one could go on for ever.
            return;
        }
        let to = ReplyTo { peer: from, counter: message.counter };
        if let Some(code) = self.unsupported(message_type) {
            let detail = format!("{} is not served", message_type.name());
            self.refuse(to, Refusal::new(code, client_id_of(&message.body), detail), now);
            return;
        }
        match message.counter {
            None if from.transport == Transport::Udp => {
                let client_id = client_id_of(&message.body);
                let refusal =
                    Refusal::new(ErrorCode::MessageCounterRequired, client_id, "no message counter");
                self.refuse(to, refusal, now);
                return;
            }
            Some(MessageCounter::ASYNCHRONOUS) => {
                let client_id = client_id_of(&message.body);
                let refusal = Refusal::new(ErrorCode::BadParam, client_id, "0 is not a host's counter");
                self.refuse(to, refusal, now);
                return;
            }
            Some(counter) => match self.replay.judge(from, counter, message_type, now) {
                Verdict::New => {}
                Verdict::Answered(answer) => {
                    self.repeat(from, answer, now);
                    return;
                }
                Verdict::UnderWay | Verdict::Stale => return,
            },
            None => {}
        }
        if message_type == MessageType::RegisterRequest {
            self.register(to, now);
            return;
        }
        match self.identify(from, message_type, client_id_of(&message.body)) {
            Ok(client_id) => {
                if let Some(counter) = to.counter {
                    self.replay.begin(from, counter, message_type, now);
                }
                self.heard(client_id, from, now);
                self.serve(to, client_id, message.body, now);
            }
            Err(refusal) => self.refuse(to, refusal, now),
        }
    }

    /// Why a message of this type is not served at all.
    fn unsupported(&self, message_type: MessageType) -> Option<ErrorCode> {
        match message_type {
            MessageType::AssignRequestRsaIp if self.config.pool.whole.is_empty() => {
                Some(ErrorCode::UnsupportedMessage)
            }
            MessageType::ListenRequest if !self.config.listen => Some(ErrorCode::UnsupportedMessage),
            other if other.is_response() => Some(ErrorCode::IllegalMessage),
            _ => None,
        }
    }

    /// Whose request this is.
    fn identify(
        &self,
        from: Peer,
        message_type: MessageType,
        claimed: Option<ClientId>,
    ) -> Result<ClientId, Refusal> {
        let Some(client) = self.clients.of_host(*from.address.ip()) else {
            return Err(Refusal::new(ErrorCode::RegisterFirst, claimed, "the host is not registered"));
        };
        if message_type != MessageType::DeRegisterRequest {
            match (client.transport, TransportKind::of(from.transport)) {
                (TransportKind::Tcp, TransportKind::Udp) => {
                    let detail = "the host is registered over TCP";
                    return Err(Refusal::new(ErrorCode::UseTcp, claimed, detail));
                }
                (TransportKind::Udp, TransportKind::Tcp) => {
                    let detail = "the host is registered over UDP";
                    return Err(Refusal::new(ErrorCode::RegisterFirst, claimed, detail));
                }
                (TransportKind::Tcp, TransportKind::Tcp) | (TransportKind::Udp, TransportKind::Udp) => {}
            }
        }
        if claimed != Some(client.id) {
            return Err(Refusal::new(ErrorCode::BadClientId, claimed, "not this host's client ID"));
        }
        Ok(client.id)
    }

    fn serve(&mut self, to: ReplyTo, client_id: ClientId, body: Body, now: Instant) {
        match body {
            Body::DeRegisterRequest { .. } => self.de_register(client_id, to, now),
            Body::AssignRequestRsaIp(request) => self.lease(to, &request.into(), now),
            Body::AssignRequestRsapIp(request) => self.lease(to, &request.into(), now),
            Body::ListenRequest(request) => self.lease(to, &request.into(), now),
            Body::ExtendRequest { bind_id, lease_time, .. } => {
                self.extend(to, client_id, bind_id, lease_time, now);
            }
            Body::FreeRequest { bind_id, .. } => self.free(to, client_id, bind_id, now),
            Body::QueryRequest { tuples, .. } => {
                let tuples = self.local_nets.answer(&tuples);
                self.answer(to, Body::QueryResponse { client_id, tuples });
            }
            // None of these comes here: `handle_message` has dealt with them.
            Body::RegisterRequest
            | Body::ErrorResponse { .. }
            | Body::RegisterResponse { .. }
            | Body::DeRegisterResponse { .. }
            | Body::AssignResponseRsaIp(_)
            | Body::AssignResponseRsapIp(_)
            | Body::ExtendResponse { .. }
            | Body::FreeResponse { .. }
            | Body::QueryResponse { .. }
            | Body::ListenResponse(_) => {}
        }
    }

    /// Answers a request, and keeps the answer for its duplicates.
    pub(super) fn answer(&mut self, to: ReplyTo, body: Body) {
        let message = Message { counter: to.counter, body };
        self.replay.store(to.peer, &message);
        self.commands.push_back(GatewayCommand::Send { to: to.peer, message });
    }

    /// Answers with an error, if the source has not had too many over UDP.
    pub(super) fn refuse(&mut self, to: ReplyTo, refusal: Refusal, now: Instant) {
        // Over UDP every message has a counter, so an error without one to echo has 0.
        let fallback = (to.peer.transport == Transport::Udp).then_some(MessageCounter::ASYNCHRONOUS);
        let Refusal { error, client_id, bind_id, detail } = refusal;
        let message = Message {
            counter: to.counter.or(fallback),
            body: Body::ErrorResponse { error, client_id, bind_id },
        };
        self.replay.store(to.peer, &message);
        if self.may_send(to.peer, &message.body, now) {
            self.commands.push_back(GatewayCommand::Send { to: to.peer, message });
            self.commands.push_back(GatewayCommand::Event(Event::Refused { peer: to.peer, error, detail }));
        }
    }

    /// Gives a duplicate the answer that was given before.
    fn repeat(&mut self, to: Peer, message: Message, now: Instant) {
        if self.may_send(to, &message.body, now) {
            self.commands.push_back(GatewayCommand::Send { to, message });
        }
    }

    /// Errors over UDP are limited, unless they answer somebody who knows the host's client ID: nobody else's garbage
    /// keeps a registered host from its answers. (302 tells the ID to who does not know it, and so is limited.)
    fn may_send(&mut self, to: Peer, body: &Body, now: Instant) -> bool {
        let Body::ErrorResponse { error, client_id, .. } = body else { return true };
        let host = *to.address.ip();
        let known = self.clients.of_host(host).is_some_and(|client| Some(client.id) == *client_id);
        let limited = to.transport == Transport::Udp && (!known || *error == ErrorCode::AlreadyRegistered);
        !limited || self.limiter.allows(host, now)
    }
}

/// The client ID that a host's message claims.
fn client_id_of(body: &Body) -> Option<ClientId> {
    match body {
        Body::DeRegisterRequest { client_id }
        | Body::ExtendRequest { client_id, .. }
        | Body::FreeRequest { client_id, .. }
        | Body::QueryRequest { client_id, .. }
        | Body::RegisterResponse { client_id, .. }
        | Body::DeRegisterResponse { client_id }
        | Body::ExtendResponse { client_id, .. }
        | Body::FreeResponse { client_id, .. }
        | Body::QueryResponse { client_id, .. } => Some(*client_id),
        Body::AssignRequestRsaIp(request) => Some(request.client_id),
        Body::AssignRequestRsapIp(request) => Some(request.client_id),
        Body::ListenRequest(request) => Some(request.client_id),
        Body::AssignResponseRsaIp(response) => Some(response.client_id),
        Body::AssignResponseRsapIp(response) | Body::ListenResponse(response) => Some(response.client_id),
        Body::ErrorResponse { client_id, .. } => *client_id,
        Body::RegisterRequest => None,
    }
}
