//! `rsip-client discover`.

use std::net::SocketAddrV4;

use serde::Serialize;

use super::args::Discover;
use super::offer::Offer;
use super::{DiscoveryError, Question, none_defined, resolve, search};
use crate::calls::say;

/// A gateway in JSON.
#[derive(Serialize)]
struct Line<'a> {
    url: String,
    addresses: Vec<SocketAddrV4>,
    tunnel_types: &'a [String],
    transports: &'a [String],
    load: Option<u8>,
    lifetime: u64,
    ipsec_support: bool,
    ike_support: bool,
}

/// Prints the gateways that there are, the best first.
///
/// # Errors
///
/// There is none: exit code 3.
pub fn discover(arguments: Discover) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = runtime.block_on(look(arguments.clone())).map_err(DiscoveryError::into_failure)?;
    if arguments.json {
        let lines: Vec<_> = found.iter().map(|(offer, addresses)| line(offer, addresses)).collect();
        say(&serde_json::to_string_pretty(&lines)?);
    } else {
        for (offer, addresses) in &found {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            let addresses = if addresses.is_empty() { "unresolved".to_owned() } else { addresses.join(",") };
            say(&format!("{}  {addresses}  {offer}", offer.url));
        }
    }
    if found.is_empty() { Err(none_defined().into()) } else { Ok(()) }
}

async fn look(arguments: Discover) -> Result<Vec<(Offer, Vec<SocketAddrV4>)>, DiscoveryError> {
    let question = Question {
        scopes: arguments.search.scope,
        directory_agents: arguments.search.da,
        interface: arguments.interface,
        // Whoever looks around wants to see all of them.
        transport: None,
        tunnels: Vec::new(),
        patience: arguments.timeout,
    };
    let mut found = Vec::new();
    for offer in search::find(&question).await? {
        let addresses = resolve(&offer).await;
        found.push((offer, addresses));
    }
    Ok(found)
}

fn line<'a>(offer: &'a Offer, addresses: &[SocketAddrV4]) -> Line<'a> {
    Line {
        url: offer.url.to_string(),
        addresses: addresses.to_vec(),
        tunnel_types: &offer.tunnels,
        transports: &offer.transports,
        load: offer.load,
        lifetime: offer.lifetime.as_secs(),
        ipsec_support: offer.ipsec,
        ike_support: offer.ike,
    }
}
