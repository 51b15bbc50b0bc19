//! The user agent of `rsip-slp` on real sockets.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::net::SocketAddrV4;
use std::time::Instant;

use rsip_slp::agent::{Command, Source, Via};
use rsip_slp::user::{UserAgent, UserConfig, Wish};
use rsip_sys::netlink::Netlink;
use tokio::task::JoinSet;

use super::offer::{Offer, predicate};
use super::wires::{self, LARGEST, Wires, ask_by_tcp};
use super::{DiscoveryError, Question};

/// An answer over a connection, or why there is none.
type Asked = (SocketAddrV4, io::Result<Vec<u8>>);

/// Looks for gateways; the best first, none where there are none.
///
/// # Errors
///
/// Nothing could be looked for.
pub async fn find(question: &Question) -> Result<Vec<Offer>, DiscoveryError> {
    let netlink = Netlink::open()?;
    let interfaces = wires::interfaces(&netlink, question.interface.as_deref()).await?;
    // A directory agent may be where no multicast leads.
    if interfaces.is_empty() && question.directory_agents.is_empty() {
        return Err(match &question.interface {
            Some(name) => DiscoveryError::Unusable(name.clone()),
            None => DiscoveryError::NoInterface,
        });
    }
    tracing::debug!(?interfaces, directory_agents = ?question.directory_agents, "where to look");
    let wires = Wires::open(interfaces).await?;
    let agent = UserAgent::new(config(question), RandomState::new().hash_one(0), Instant::now())?;
    Ok(drive(agent, &wires).await)
}

fn config(question: &Question) -> UserConfig {
    UserConfig {
        predicate: question
            .transport
            .map(|transport| predicate(transport, &question.tunnels))
            .unwrap_or_default(),
        scopes: question.scopes.clone(),
        directories: question.directory_agents.clone(),
        attributes: Wish::Everything,
        limit: question.patience,
        ..UserConfig::rsip()
    }
}

async fn drive(mut agent: UserAgent, wires: &Wires) -> Vec<Offer> {
    // Ends with the search, whatever is still under way.
    let mut connections: JoinSet<Asked> = JoinSet::new();
    let mut buffer = vec![0; LARGEST];
    loop {
        while let Some(command) = agent.next_command() {
            carry_out(command, wires, &mut connections).await;
        }
        if let Some(outcome) = agent.outcome() {
            return outcome.unwrap_or_default().into_iter().map(Offer::from).collect();
        }
        // Without a deadline the search is at its end, which was looked at above.
        let deadline = agent.poll_timeout().unwrap_or_else(Instant::now);
        tokio::select! {
            (address, length) = wires.receive(&mut buffer) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                agent.handle_message(Source { address, via: Via::Datagram }, bytes, Instant::now());
            }
            Some(Ok((address, answer))) = connections.join_next() => match answer {
                Ok(bytes) => {
                    agent.handle_message(Source { address, via: Via::Opened }, &bytes, Instant::now());
                }
                Err(error) => {
                    tracing::debug!(%address, %error, "asking over a connection");
                    agent.handle_failure(address, Instant::now());
                }
            },
            () = tokio::time::sleep_until(deadline.into()) => agent.handle_timeout(Instant::now()),
        }
    }
}

async fn carry_out(command: Command, wires: &Wires, connections: &mut JoinSet<Asked>) {
    match command {
        Command::Multicast { bytes } => wires.multicast(&bytes).await,
        Command::Datagram { to, bytes } => {
            if let Err(error) = wires.send(to, &bytes).await {
                tracing::debug!(%to, %error, "cannot send");
            }
        }
        Command::Connect { to, bytes } => {
            connections.spawn(async move { (to, ask_by_tcp(to, &bytes).await) });
        }
        // Nobody opens connections to somebody who only asks.
        Command::Answer { .. } => {}
    }
}
