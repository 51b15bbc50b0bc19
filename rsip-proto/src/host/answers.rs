//! What the gateway says: which messages are for us, and which request they answer.

use std::time::Instant;

use crate::host::binding::SlotId;
use crate::host::grant::Offer;
use crate::host::registration::Registration;
use crate::host::requests::{Outstanding, Purpose, client_of, creates_binding};
use crate::host::{Host, HostTransport};
use crate::ids::{ClientId, MessageCounter};
use crate::wire::{Body, ErrorCode, Message};

impl Host {
    /// A message from the gateway. The shell drops silently what it cannot parse (RFC 3103 section 9.1.3), and so does
    /// this what it did not ask for: unknown client IDs, old counters, requests.
    pub fn handle_message(&mut self, message: Message, now: Instant) {
        if self.stopped || !self.link_is_up() {
            return;
        }
        let Message { counter, body } = message;
        match counter {
            Some(MessageCounter::ASYNCHRONOUS) => self.asynchronous(&body, now),
            Some(counter) => {
                let expected =
                    self.outstanding.as_ref().is_some_and(|it| it.message.counter == Some(counter));
                if expected {
                    self.take_answer(body, now);
                }
            }
            // Counters are optional over TCP (RFC 3103 section 10.1), also in the answer to a request that has one.
            None if self.config.transport == HostTransport::Tcp => {
                if let Some(body) = self.take_answer(body, now) {
                    self.asynchronous(&body, now);
                }
            }
            None => {}
        }
        self.pump(now);
    }

    /// Handles the answer to the outstanding request; gives back what is none.
    fn take_answer(&mut self, body: Body, now: Instant) -> Option<Body> {
        let own = self.client_id();
        let outstanding = self.outstanding.take_if(|it| answers(it, &body, own));
        let Some(Outstanding { message, purpose, clock }) = outstanding else { return Some(body) };
        self.heard(now);
        match purpose {
            Purpose::Register => self.register_answered(body, clock.round_began(), now),
            Purpose::Forget => {
                // Whatever the answer: it does not know the old name any more (RFC 3103 section 10.2.2).
                if let Registration::None { stale, .. } = &mut self.registration {
                    *stale = None;
                }
                if matches!(body, Body::DeRegisterResponse { .. }) {
                    self.stop_all_use(now);
                }
            }
            Purpose::Leave => self.registration = Registration::None { stale: None, at: now },
            Purpose::Query | Purpose::Slot(_) => {
                let current = client_of(&message.body) == self.client_id();
                if current && !self.registration_is_denied(&body, now) {
                    match purpose {
                        Purpose::Slot(id) => {
                            self.confirm();
                            self.slot_answered(id, &message.body, body, clock.first_sent(), now);
                        }
                        _ => {
                            self.confirm_by_query(now);
                            self.query_answered(&body);
                        }
                    }
                }
                if let Purpose::Slot(id) = purpose {
                    self.settle(id, now);
                    self.enqueue(id, now);
                }
            }
        }
        None
    }

    /// Whether the gateway says that we are not registered under our name; if so, we are not any more.
    fn registration_is_denied(&mut self, body: &Body, now: Instant) -> bool {
        match body {
            Body::ErrorResponse { error: ErrorCode::RegisterFirst, .. } => {
                self.lose_registration(true, now);
                true
            }
            Body::ErrorResponse {
                error: ErrorCode::AlreadyUnregistered | ErrorCode::BadClientId, ..
            } => {
                self.lose_registration(false, now);
                true
            }
            Body::DeRegisterResponse { .. } => {
                self.lose_registration(false, now);
                self.stop_all_use(now);
                true
            }
            _ => false,
        }
    }

    /// A message that no request asked for.
    fn asynchronous(&mut self, body: &Body, now: Instant) {
        let Some(own) = self.client_id() else { return };
        match body {
            Body::DeRegisterResponse { client_id } if *client_id == own => {
                self.heard(now);
                self.registration_is_denied(body, now);
            }
            Body::FreeResponse { client_id, bind_id } if *client_id == own => {
                self.heard(now);
                self.revoked(*bind_id, now);
            }
            Body::ErrorResponse { error, client_id, .. } if client_id.is_none_or(|it| it == own) => {
                self.heard(now);
                if self.registration_is_denied(body, now) {
                    return;
                }
                match error {
                    ErrorCode::InternalServerError => self.probe_now = true,
                    // About packets that the gateway dropped (RFC 3103 section 10.4): for people to see, nothing to decide.
                    ErrorCode::BadTunnelType
                    | ErrorCode::LocalAddrUnallowed
                    | ErrorCode::LocalAddrportUnallowed
                    | ErrorCode::RemoteAddrUnallowed
                    | ErrorCode::RemoteAddrportUnallowed => {
                        let count = self.complaints.entry(*error).or_default();
                        *count = count.saturating_add(1);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn slot_answered(&mut self, id: SlotId, request: &Body, answer: Body, since: Instant, now: Instant) {
        match answer {
            Body::ErrorResponse { error, .. } => match request {
                Body::ExtendRequest { bind_id, .. } => self.extend_refused(id, *bind_id, error, now),
                Body::FreeRequest { bind_id, .. } => self.free_refused(id, *bind_id, error, now),
                _ => self.refused(id, error, now),
            },
            Body::ListenResponse(grant) => {
                let fits = matches!(request, Body::ListenRequest(_));
                self.granted(id, request, &Offer::from(&grant), fits, since, now);
            }
            Body::AssignResponseRsapIp(grant) => {
                let fits = matches!(request, Body::AssignRequestRsapIp(_));
                self.granted(id, request, &Offer::from(&grant), fits, since, now);
            }
            Body::AssignResponseRsaIp(grant) => {
                let fits = matches!(request, Body::AssignRequestRsaIp(_));
                self.granted(id, request, &Offer::from(&grant), fits, since, now);
            }
            Body::ExtendResponse { bind_id, lease_time, .. } => {
                self.extended(id, bind_id, lease_time, since, now);
            }
            Body::FreeResponse { bind_id, .. } => match request {
                Body::FreeRequest { .. } => self.gave_back(id, bind_id, now),
                _ => self.revoked(bind_id, now),
            },
            _ => {}
        }
    }
}

/// Whether `body` is an answer to the outstanding request, its counter apart.
fn answers(outstanding: &Outstanding, body: &Body, own: Option<ClientId>) -> bool {
    let request = &outstanding.message.body;
    let client = client_of(request);
    match body {
        Body::ErrorResponse { client_id, .. } => {
            // The error for a registered host names that host, whom the request did not name.
            matches!(request, Body::RegisterRequest) || client_id.is_none_or(|it| Some(it) == client)
        }
        Body::RegisterResponse { .. } => matches!(request, Body::RegisterRequest),
        // An answer to DE-REGISTER_REQUEST, and the end of the registration instead of any other answer.
        Body::DeRegisterResponse { client_id } => {
            Some(*client_id) == client
                && (matches!(request, Body::DeRegisterRequest { .. }) || Some(*client_id) == own)
        }
        Body::ExtendResponse { client_id, bind_id, .. } => {
            matches!(request, Body::ExtendRequest { bind_id: asked, .. } if asked == bind_id)
                && Some(*client_id) == client
        }
        // A gateway may refuse an extension by taking the binding back (RFC 3103 section 9.10.3).
        Body::FreeResponse { client_id, bind_id } => {
            matches!(request, Body::ExtendRequest { bind_id: asked, .. }
                | Body::FreeRequest { bind_id: asked, .. } if asked == bind_id)
                && Some(*client_id) == client
        }
        Body::QueryResponse { client_id, .. } => {
            matches!(request, Body::QueryRequest { .. }) && Some(*client_id) == client
        }
        // Also one that is not what was asked: it must be given back (RFC 3103 sections 9.7.3 and 9.9.3).
        Body::ListenResponse(_) | Body::AssignResponseRsapIp(_) | Body::AssignResponseRsaIp(_) => {
            creates_binding(request)
        }
        Body::RegisterRequest
        | Body::DeRegisterRequest { .. }
        | Body::AssignRequestRsaIp(_)
        | Body::AssignRequestRsapIp(_)
        | Body::ExtendRequest { .. }
        | Body::FreeRequest { .. }
        | Body::QueryRequest { .. }
        | Body::ListenRequest(_) => false,
    }
}
