//! Where no agent runs: a registration that is ended at once, and one port that is given back, as `up` would ask for them.

use std::net::SocketAddrV4;
use std::time::Duration;

use rsip_proto::host::HostTransport;
use rsip_proto::ids::{BindId, ClientId};
use rsip_proto::wire::message::AssignRequestRsapIp;
use rsip_proto::wire::{Address, Body, ErrorCode, Ports, RemotePolicy, TunnelType};

use super::finding::{Finding, Trouble};
use crate::ping::ask::{AskError, Asker};

const PATIENCE: Duration = Duration::from_secs(3);

/// Registers, leases a port where the gateway's policy lets it, and leaves.
pub(super) async fn check(gateway: SocketAddrV4, kind: HostTransport) -> Vec<Finding> {
    match try_out(gateway, kind).await {
        Ok(findings) => findings,
        Err(error) => vec![unable(gateway, &error.to_string())],
    }
}

fn unable(gateway: SocketAddrV4, why: &str) -> Finding {
    Finding::fail(
        "trial registration",
        format!("{gateway}: {why}"),
        "rsip-client up would not start (exit code 4)",
        "see the gateway's log; MAX_CLIENTS and its access rules decide (rsipdctl clients shows who is registered)",
    )
    .known_as(Trouble::UnableToRegister)
}

async fn try_out(gateway: SocketAddrV4, kind: HostTransport) -> Result<Vec<Finding>, AskError> {
    let mut asker = Asker::open(kind, gateway, PATIENCE).await?;
    let (client_id, remote) = match asker.ask(Body::RegisterRequest, PATIENCE).await? {
        Body::RegisterResponse { client_id, flow_policy, .. } => (client_id, flow_policy.remote),
        Body::ErrorResponse { error: ErrorCode::AlreadyRegistered, client_id, .. } => {
            let id = client_id.map_or_else(String::new, |id| format!(" as client {id}"));
            return Ok(vec![Finding::warn(
                "trial registration",
                format!("{gateway} has this host registered already{id}"),
                "an agent in another network namespace with the same address, or one whose state is lost, holds it",
                "rsip-client up takes it over or ends it; rsipdctl release CLIENT at the gateway ends it",
            )]);
        }
        Body::ErrorResponse { error, .. } => return Ok(vec![unable(gateway, &error.to_string())]),
        other => return Err(AskError::NotRsip(format!("{} to a registration", other.message_type()))),
    };
    let mut findings =
        vec![Finding::ok("trial registration", format!("{gateway} registers this host (ended again)"))];
    let leased = if remote == RemotePolicy::None { Some(lease(&mut asker, client_id).await) } else { None };
    // Whatever became of the lease: nothing of the trial stays.
    let left = asker.ask(Body::DeRegisterRequest { client_id }, PATIENCE).await;
    findings.push(match leased {
        None => Finding::ok(
            "trial lease",
            "not tried: the gateway leases for one peer only, which --remote has to name",
        ),
        Some(outcome) => outcome?,
    });
    left?;
    Ok(findings)
}

async fn lease(asker: &mut Asker, client_id: ClientId) -> Result<Finding, AskError> {
    let request = Body::AssignRequestRsapIp(AssignRequestRsapIp {
        client_id,
        local_address: Address::ANY,
        local_ports: Ports::ANY,
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: None,
        tunnel_type: Some(TunnelType::IpIp),
    });
    let bind_id: BindId = match asker.ask(request, PATIENCE).await? {
        Body::AssignResponseRsapIp(binding) => binding.bind_id,
        Body::ErrorResponse { error, .. } => {
            return Ok(Finding::fail(
                "trial lease",
                format!("no port: {error}"),
                "rsip-client up would not start (exit code 4), unless with --block 0 or another --method",
                "all ports are leased, or POOL and PORT_RANGE hold none for this host: rsipdctl pool shows; widen PORT_RANGE, add to POOL",
            )
            .known_as(Trouble::UnableToGetPorts));
        }
        other => return Err(AskError::NotRsip(format!("{} to a lease", other.message_type()))),
    };
    asker.ask(Body::FreeRequest { client_id, bind_id }, PATIENCE).await?;
    Ok(Finding::ok("trial lease", "a port is to be had (given back)"))
}
