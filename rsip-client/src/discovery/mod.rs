//! Finding gateways by the Service Location Protocol (RFC 3105).
//!
//! | module | what it does |
//! |---|---|
//! | [`args`] | its part of the command line |
//! | [`offer`] | what a gateway says of itself |
//! | [`search`] | the user agent of `rsip-slp` on real sockets |
//! | [`wires`] | these sockets |
//! | [`command`] | `rsip-client discover` |
//!
//! What is advertised is not authenticated (RFC 3105 section 8): whoever can answer on the private network can name any
//! gateway. Nothing an answer says is used before it has been read as what it must be.

pub mod args;
pub mod command;
pub mod offer;
pub mod search;
pub mod wires;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use rsip_proto::host::HostTransport;
use rsip_proto::wire::TunnelType;
use rsip_slp::text::ScopeList;
use rsip_slp::wire::EncodeError;
use rsip_sys::exit::{ExitCode, Failure};
use rsip_sys::netlink::NetlinkError;

use self::offer::Offer;

/// How long the resolver may take for one host name.
const RESOLVE: Duration = Duration::from_secs(5);

/// Which gateways are looked for, and how.
#[derive(Clone, Debug)]
pub struct Question {
    /// They must be of one of these.
    pub scopes: ScopeList,
    /// Whom to ask; none: those who are found.
    pub directory_agents: Vec<Ipv4Addr>,
    /// Where to look; `None`: on every interface that will do.
    pub interface: Option<String>,
    /// Only gateways that serve a host with this transport.
    pub transport: Option<HostTransport>,
    /// And with one of these tunnels.
    pub tunnels: Vec<TunnelType>,
    /// No longer than this.
    pub patience: Duration,
}

/// A gateway that can be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// As it is advertised.
    pub offer: Offer,
    /// Where it is.
    pub gateway: SocketAddrV4,
}

/// Why there was no search.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The interfaces.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// Nothing to look on.
    #[error("no interface is up and has an IPv4 address")]
    NoInterface,
    /// The named one does not do.
    #[error("interface {0} is down, or has no IPv4 address")]
    Unusable(String),
    /// The socket.
    #[error("cannot open a socket: {0}")]
    Socket(#[from] io::Error),
    /// What is looked for does not fit into a request.
    #[error("--scope: {0}")]
    Question(#[from] EncodeError),
}

impl DiscoveryError {
    /// Exit code and line for the operator.
    pub fn into_failure(self) -> Failure {
        let line = self.to_string();
        match self {
            Self::Netlink(NetlinkError::NoSuchInterface(_)) => {
                Failure::new(ExitCode::Config, line).hint("see `ip link` for the names")
            }
            Self::Question(_) => Failure::new(ExitCode::Usage, line),
            Self::Netlink(_) | Self::Socket(_) => Failure::new(ExitCode::Failure, line),
            Self::NoInterface | Self::Unusable(_) => {
                Failure::new(ExitCode::Unreachable, NONE).why(line).hint("see `ip address`")
            }
        }
    }
}

/// What is said where no gateway is found.
const NONE: &str = "No service:rsip defined!";

/// The end of a search without a result.
pub fn none_defined() -> Failure {
    Failure::new(ExitCode::Unreachable, NONE)
        .why("no gateway answers, and no directory agent knows one")
        .hint("check --scope and that rsipd runs, or name the gateway with --gateway")
}

/// Gateways that can be tried, the best first.
///
/// # Errors
///
/// Nothing could be looked for.
pub async fn candidates(question: &Question) -> Result<Vec<Candidate>, DiscoveryError> {
    let mut found: Vec<Candidate> = Vec::new();
    for offer in search::find(question).await? {
        for gateway in resolve(&offer).await {
            if !found.iter().any(|other| other.gateway == gateway) {
                found.push(Candidate { offer: offer.clone(), gateway });
            }
        }
    }
    Ok(found)
}

/// The addresses of a gateway, by the system's resolver where it names a host.
pub async fn resolve(offer: &Offer) -> Vec<SocketAddrV4> {
    let looked_up = tokio::net::lookup_host((offer.url.host.as_str(), offer.port()));
    let addresses = match tokio::time::timeout(RESOLVE, looked_up).await {
        Ok(Ok(addresses)) => addresses,
        Ok(Err(error)) => {
            tracing::warn!(host = %offer.url.host, %error, "a gateway's name has no address");
            return Vec::new();
        }
        Err(_) => {
            tracing::warn!(host = %offer.url.host, "the resolver takes too long");
            return Vec::new();
        }
    };
    let mut gateways = Vec::new();
    for address in addresses {
        if let SocketAddr::V4(gateway) = address
            && crate::cli::is_one_machine(*gateway.ip())
            && !gateways.contains(&gateway)
        {
            gateways.push(gateway);
        }
    }
    gateways
}
