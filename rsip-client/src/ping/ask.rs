//! One question to a gateway, and its answer: without a state machine, and without anything that the gateway would keep.

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use rsip_proto::host::HostTransport;
use rsip_proto::ids::{ClientId, MessageCounter};
use rsip_proto::wire::{Body, Message};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::transport::{Numbered, Transport, TransportError, TransportEvent};

/// Events that wait to be looked at.
const QUEUE: usize = 16;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The machine answers that nobody listens there.
    #[error("connection refused")]
    Refused,
    /// The way there does not work.
    #[error("{0}")]
    Unreachable(String),
    /// Nothing was heard.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Silence(Duration),
    /// The connection was closed without an answer.
    #[error("the connection is closed without an answer")]
    Closed,
    /// What was heard is not RSIP.
    #[error("what answers there is not RSIP: {0}")]
    NotRsip(String),
}

impl AskError {
    fn io(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::ConnectionRefused {
            Self::Refused
        } else {
            Self::Unreachable(error.to_string())
        }
    }

    fn transport(error: &TransportError, patience: Duration) -> Self {
        match error {
            TransportError::Io(error) => Self::io(error),
            TransportError::ConnectTimeout => Self::Silence(patience),
            TransportError::Closed => Self::Closed,
            TransportError::NotRsip(error) => Self::NotRsip(error.to_string()),
        }
    }
}

/// A question that changes nothing: a gateway answers it to hosts that it does not know with 301 REGISTER_FIRST, and to those
/// that it knows with 305 BAD_CLIENT_ID or 102 USE_TCP. It names no client ID of this host on purpose: what names it is served,
/// and what the gateway tells unasked goes to where the last served request came from.
pub const HARMLESS: Body = Body::QueryRequest { client_id: ClientId(0), tuples: Vec::new() };

/// An open way to a gateway.
#[derive(Debug)]
pub struct Asker {
    transport: Transport,
    events: mpsc::Receiver<Numbered>,
    counter: MessageCounter,
}

impl Asker {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// It cannot be opened within `patience`.
    pub async fn open(
        kind: HostTransport,
        gateway: SocketAddrV4,
        patience: Duration,
    ) -> Result<Self, AskError> {
        let (sender, events) = mpsc::channel(QUEUE);
        let transport = Transport::open(kind, gateway, 0, sender);
        let mut asker = Self { transport, events, counter: MessageCounter::FIRST };
        let deadline = Instant::now() + patience;
        loop {
            match asker.next(deadline, patience).await? {
                TransportEvent::Up => return Ok(asker),
                TransportEvent::Down(error) => return Err(AskError::transport(&error, patience)),
                _ => {}
            }
        }
    }

    /// Asks once and waits for the answer to this very question.
    ///
    /// # Errors
    ///
    /// There is none within `patience`.
    pub async fn ask(&mut self, body: Body, patience: Duration) -> Result<Body, AskError> {
        let counter = self.counter;
        self.counter = counter.next();
        self.transport.send(&Message::new(counter, body));
        let deadline = Instant::now() + patience;
        let mut garbage = None;
        loop {
            let event = match self.next(deadline, patience).await {
                Ok(event) => event,
                Err(silence) => return Err(garbage.unwrap_or(silence)),
            };
            match event {
                // A gateway never asks: who does is an echo.
                TransportEvent::Message(message) if is_answer(&message.body) => {
                    if message.counter == Some(counter) {
                        return Ok(message.body);
                    }
                }
                TransportEvent::Message(_) => {
                    return Err(AskError::NotRsip("it sends requests, not answers".to_owned()));
                }
                TransportEvent::Garbage(error) => garbage = Some(AskError::NotRsip(error.to_string())),
                TransportEvent::Unreachable(error) => return Err(AskError::io(&error)),
                TransportEvent::Down(error) => return Err(AskError::transport(&error, patience)),
                TransportEvent::Up => {}
            }
        }
    }

    async fn next(&mut self, deadline: Instant, patience: Duration) -> Result<TransportEvent, AskError> {
        match timeout_at(deadline, self.events.recv()).await {
            Ok(Some((_, event))) => Ok(event),
            Ok(None) => Err(AskError::Closed),
            Err(_) => Err(AskError::Silence(patience)),
        }
    }
}

const fn is_answer(body: &Body) -> bool {
    matches!(
        body,
        Body::ErrorResponse { .. }
            | Body::RegisterResponse { .. }
            | Body::DeRegisterResponse { .. }
            | Body::AssignResponseRsaIp(_)
            | Body::AssignResponseRsapIp(_)
            | Body::ExtendResponse { .. }
            | Body::FreeResponse { .. }
            | Body::QueryResponse { .. }
            | Body::ListenResponse(_)
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use rsip_proto::wire::ErrorCode;
    use tokio::net::UdpSocket;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn listener() -> (UdpSocket, SocketAddrV4) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("free");
        let address = match socket.local_addr().expect("bound") {
            std::net::SocketAddr::V4(address) => address,
            other => panic!("{other}"),
        };
        (socket, address)
    }

    #[tokio::test]
    async fn takes_the_answer_to_its_own_question_only() {
        let (gateway, address) = listener().await;
        let server = tokio::spawn(async move {
            let mut buffer = [0; 1024];
            let (length, from) = gateway.recv_from(&mut buffer).await.expect("a question");
            let question = Message::parse(&buffer[..length]).expect("RSIP");
            assert_eq!(question.body, HARMLESS);
            for (counter, error) in [(77, ErrorCode::BadParam), (1, ErrorCode::RegisterFirst)] {
                let body = Body::ErrorResponse { error, client_id: None, bind_id: None };
                let answer = Message::new(MessageCounter(counter), body).encode().expect("short");
                gateway.send_to(&answer, from).await.expect("sent");
            }
        });
        let mut asker = Asker::open(HostTransport::Udp, address, PATIENCE).await.expect("a socket");
        let answer = asker.ask(HARMLESS, PATIENCE).await.expect("answered");
        assert!(matches!(answer, Body::ErrorResponse { error: ErrorCode::RegisterFirst, .. }), "{answer:?}");
        server.await.expect("no panic");
    }

    #[tokio::test]
    async fn tells_a_closed_port_from_silence_and_from_nonsense() {
        let (gateway, address) = listener().await;
        let mut asker = Asker::open(HostTransport::Udp, address, PATIENCE).await.expect("a socket");
        let short = Duration::from_millis(100);
        assert!(matches!(asker.ask(HARMLESS, short).await, Err(AskError::Silence(_))));
        let mut buffer = [0; 1024];
        let (length, from) = gateway.recv_from(&mut buffer).await.expect("a question");
        gateway.send_to(&buffer[..length], from).await.expect("sent");
        assert!(matches!(asker.ask(HARMLESS, PATIENCE).await, Err(AskError::NotRsip(_))));
        gateway.send_to(b"hello", from).await.expect("sent");
        assert!(matches!(asker.ask(HARMLESS, short).await, Err(AskError::NotRsip(_))));
        drop(gateway);
        assert!(matches!(asker.ask(HARMLESS, PATIENCE).await, Err(AskError::Refused)));
        let refused = Asker::open(HostTransport::Tcp, address, PATIENCE).await;
        assert!(matches!(refused, Err(AskError::Refused)), "{refused:?}");
    }
}
