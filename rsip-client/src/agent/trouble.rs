//! Why the start does not succeed, said so that the operator can act on it.

use std::io;
use std::net::SocketAddrV4;
use std::time::Duration;

use rsip_proto::host::{Method, Mismatch};
use rsip_proto::wire::{Body, ErrorCode, ParseError};
use rsip_sys::exit::{ExitCode, Failure};

use crate::transport::TransportError;

/// What was heard last while the gateway could not be used. What says more outweighs what says less.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    found: Option<Found>,
}

#[derive(Debug)]
enum Found {
    /// The socket says so.
    Transport(String),
    /// It closes the connection without a word.
    Closed,
    /// Something answers that does not speak RSIP.
    NotRsip(String),
    /// The gateway does not register this host.
    Refused(ErrorCode),
    /// What the gateway demands or offers does not fit how this host was started.
    Unsuitable(Mismatch),
    /// The gateway registers this host, and gives it no ports, or no address.
    NoLease(Method, ErrorCode),
}

impl Trouble {
    pub(super) fn transport(&mut self, error: &TransportError) {
        match error {
            TransportError::NotRsip(frame) => self.found = Some(Found::NotRsip(frame.to_string())),
            TransportError::Closed if !self.has_spoken() => self.found = Some(Found::Closed),
            TransportError::Io(_) | TransportError::ConnectTimeout if !self.has_spoken() => {
                self.found = Some(Found::Transport(error.to_string()));
            }
            TransportError::Closed | TransportError::Io(_) | TransportError::ConnectTimeout => {}
        }
    }

    pub(super) fn garbage(&mut self, error: &ParseError) {
        if !self.has_spoken() {
            self.found = Some(Found::NotRsip(error.to_string()));
        }
    }

    /// A gateway never asks for anything: whoever does is an echo, or another host.
    pub(super) fn heard(&mut self, body: &Body) {
        let is_request = matches!(
            body,
            Body::RegisterRequest
                | Body::DeRegisterRequest { .. }
                | Body::AssignRequestRsaIp(_)
                | Body::AssignRequestRsapIp(_)
                | Body::ExtendRequest { .. }
                | Body::FreeRequest { .. }
                | Body::QueryRequest { .. }
                | Body::ListenRequest(_)
        );
        if is_request && !self.has_spoken() {
            self.found = Some(Found::NotRsip("it sends requests, not answers".to_owned()));
        }
    }

    pub(super) fn unreachable(&mut self, error: &io::Error) {
        if self.found.is_none() {
            self.found = Some(Found::Transport(error.to_string()));
        }
    }

    pub(super) fn refused(&mut self, error: ErrorCode) {
        self.found = Some(Found::Refused(error));
    }

    pub(super) fn unsuitable(&mut self, mismatch: Mismatch) {
        self.found = Some(Found::Unsuitable(mismatch));
    }

    pub(super) fn no_lease(&mut self, method: Method, error: ErrorCode) {
        self.found = Some(Found::NoLease(method, error));
    }

    pub(super) fn clear(&mut self) {
        self.found = None;
    }

    /// An RSIP gateway has said something about us.
    fn has_spoken(&self) -> bool {
        matches!(
            self.found,
            Some(Found::Refused(_) | Found::Unsuitable(_) | Found::NoLease(..) | Found::NotRsip(_))
        )
    }

    /// Waiting longer would change nothing.
    pub(super) const fn is_final(&self) -> bool {
        matches!(
            self.found,
            Some(Found::Refused(_) | Found::Unsuitable(_) | Found::NoLease(..) | Found::NotRsip(_))
        )
    }

    /// The line for the operator.
    pub(super) fn start_failure(&self, gateway: SocketAddrV4, waited: Option<Duration>) -> anyhow::Error {
        let what = format!("gateway {gateway}");
        let unreachable = |why: String, hint: &'static str| {
            Failure::new(ExitCode::Unreachable, what.clone()).why(why).hint(hint)
        };
        let seconds = waited.map_or(0.0, |waited| waited.as_secs_f32());
        match &self.found {
            None => unreachable(
                format!("no answer within {seconds} s"),
                "check --gateway and that rsipd runs there, or wait for it with --persist",
            ),
            Some(Found::Transport(why)) => unreachable(
                format!("cannot be reached: {why}"),
                "check --gateway and that rsipd runs there, or wait for it with --persist",
            ),
            Some(Found::Closed) => unreachable(
                "closes the connection without an answer".to_owned(),
                "check that an RSIP gateway listens on that port, and that it serves this interface",
            ),
            Some(Found::NotRsip(why)) => unreachable(
                format!("what answers there is not RSIP: {why}"),
                "check address and port of --gateway (RSIP's port is 4555)",
            ),
            Some(Found::Refused(error)) => Failure::new(ExitCode::Refused, what)
                .why(format!("unable to register: {error}"))
                .hint("see the gateway's log; MAX_CLIENTS and its access rules decide"),
            Some(Found::Unsuitable(mismatch)) => {
                let hint = match mismatch {
                    Mismatch::Method(Method::RsaIp) => {
                        "ask for ports with --method rsap-ip, or see RSA_POOL at the gateway"
                    }
                    Mismatch::Method(Method::RsapIp) => "ask for a whole address with --method rsa-ip",
                    Mismatch::LocalMicro => {
                        "ask for ports with --method rsap-ip, or see FLOW_POLICY at the gateway"
                    }
                    Mismatch::Tunnel => "leave out --tunnel, or see TUNNEL at the gateway",
                    Mismatch::RemoteAddress => "name it with --remote ADDR",
                    Mismatch::RemotePort => "name them with --remote ADDR:PORT",
                };
                Failure::new(ExitCode::Refused, what).why(mismatch.to_string()).hint(hint)
            }
            Some(Found::NoLease(method, error)) => {
                let (noun, hint) = match (method, error) {
                    (_, ErrorCode::RemoteAddrUnallowed | ErrorCode::RemoteAddrportUnallowed) => (
                        "address for this peer",
                        "name another one with --remote; REMOTE_DENY at the gateway decides",
                    ),
                    (Method::RsaIp, _) => (
                        "whole address",
                        "see RSA_POOL at the gateway, or ask for ports with --method rsap-ip",
                    ),
                    (Method::RsapIp, _) => {
                        ("ephemeral ports", "ask for fewer with --block, or widen PORT_RANGE at the gateway")
                    }
                };
                Failure::new(ExitCode::Refused, what)
                    .why(format!("unable to get port assignments: leases no {noun}: {error}"))
                    .hint(hint)
            }
        }
        .into()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const GATEWAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 4555);

    /// The exit code and the line for what was heard.
    fn said(trouble: &Trouble) -> (ExitCode, String) {
        let error = trouble.start_failure(GATEWAY, Some(Duration::from_secs(5)));
        (rsip_sys::exit::code(&error), rsip_sys::exit::line(&error))
    }

    fn refused_connection() -> TransportError {
        TransportError::Io(io::ErrorKind::ConnectionRefused.into())
    }

    #[test]
    fn silence_says_how_long_was_waited() {
        let (code, line) = said(&Trouble::default());
        assert_eq!(code, ExitCode::Unreachable);
        assert!(line.starts_with("gateway 10.0.0.1:4555: no answer within 5 s: "), "{line}");
    }

    #[test]
    fn what_says_more_outweighs_what_says_less() {
        let mut trouble = Trouble::default();
        trouble.transport(&refused_connection());
        assert!(!trouble.is_final(), "the gateway may be on its way up");
        assert!(said(&trouble).1.contains("connection refused"));
        trouble.transport(&TransportError::Closed);
        assert!(said(&trouble).1.contains("closes the connection"));
        trouble.refused(ErrorCode::RegistrationDenied);
        trouble.transport(&TransportError::Closed);
        trouble.transport(&refused_connection());
        let (code, line) = said(&trouble);
        assert!(trouble.is_final());
        assert_eq!(code, ExitCode::Refused);
        assert!(line.contains("304 REGISTRATION_DENIED"), "{line}");
        trouble.clear();
        assert!(!trouble.is_final());
    }

    #[test]
    fn who_sends_requests_is_no_gateway() {
        let mut trouble = Trouble::default();
        let error = ErrorCode::RegisterFirst;
        trouble.heard(&Body::ErrorResponse { error, client_id: None, bind_id: None });
        assert!(!trouble.is_final());
        trouble.heard(&Body::RegisterRequest);
        let (code, line) = said(&trouble);
        assert_eq!(code, ExitCode::Unreachable);
        assert!(line.contains("not RSIP"), "{line}");
    }

    #[test]
    fn a_gateway_without_ports_is_named_with_its_reason() {
        let mut trouble = Trouble::default();
        trouble.no_lease(Method::RsapIp, ErrorCode::LocalAddrportUnavailable);
        let (code, line) = said(&trouble);
        assert_eq!(code, ExitCode::Refused);
        assert!(line.contains("309 LOCAL_ADDRPORT_UNAVAILABLE") && line.contains("--block"), "{line}");
    }

    #[test]
    fn what_does_not_fit_says_which_option_to_add() {
        for (mismatch, option) in [
            (Mismatch::RemoteAddress, "--remote ADDR"),
            (Mismatch::RemotePort, "--remote ADDR:PORT"),
            (Mismatch::Method(Method::RsaIp), "--method rsap-ip"),
            (Mismatch::Method(Method::RsapIp), "--method rsa-ip"),
            (Mismatch::LocalMicro, "--method rsap-ip"),
        ] {
            let mut trouble = Trouble::default();
            trouble.unsuitable(mismatch);
            let (code, line) = said(&trouble);
            assert!(trouble.is_final() && code == ExitCode::Refused, "{mismatch}");
            assert!(line.contains(option), "{line}");
        }
    }

    #[test]
    fn a_gateway_without_a_whole_address_is_named_with_its_reason() {
        let mut trouble = Trouble::default();
        trouble.no_lease(Method::RsaIp, ErrorCode::LocalAddrUnavailable);
        let (code, line) = said(&trouble);
        assert_eq!(code, ExitCode::Refused);
        assert!(line.contains("308 LOCAL_ADDR_UNAVAILABLE") && line.contains("RSA_POOL"), "{line}");
        trouble.no_lease(Method::RsapIp, ErrorCode::RemoteAddrUnallowed);
        assert!(said(&trouble).1.contains("--remote"), "{}", said(&trouble).1);
    }
}
