//! Undoing what a dead agent left, from its `state.json`.

use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;

use rsip_proto::host::HostTransport;
use rsip_proto::ids::{ClientId, MessageCounter};
use rsip_proto::wire::{Body, Message};
use rsip_sys::exit::{ExitCode, Failure};
use rsip_sys::netlink::Netlink;
use tokio::sync::mpsc;

use crate::agent::effects::restore_arp;
use crate::agent::failure::{EffectError, failure};
use crate::hooks::pins;
use crate::ports;
use crate::state::{State, StateError};
use crate::transport::{Transport, TransportEvent};
use crate::tunnel;

/// The gateway is told that the host leaves, but not waited for longer than this.
const FAREWELL: Duration = Duration::from_millis(1500);
/// Over UDP the farewell is repeated, as datagrams get lost.
const REPEAT: Duration = Duration::from_millis(200);

/// Reads what a dead agent left; `None`: nothing, or nothing about this network namespace, or nothing that can be used: then
/// as much as the file still says is undone, and it is removed.
///
/// # Errors
///
/// The file cannot be read, or the settings that it names cannot be restored.
pub fn load(directory: &Path, netns_cookie: u64) -> anyhow::Result<Option<State>> {
    let state = match State::load(directory) {
        Ok(state) => state,
        Err(error @ StateError::Read { .. }) => {
            return Err(Failure::new(ExitCode::Failure, error.to_string()).hint("run as root").into());
        }
        Err(error @ (StateError::Damaged { .. } | StateError::Version { .. })) => {
            salvage(&error, directory)?;
            None
        }
    };
    Ok(state.filter(|state| {
        let same = state.netns_cookie == netns_cookie;
        if !same {
            tracing::info!("what the last agent left was about another network namespace, which is gone");
        }
        same
    }))
}

/// What can be done with a file that is damaged, or of another version: the settings of the kernel go back to what it says, or
/// to the kernel's own.
fn salvage(error: &StateError, directory: &Path) -> anyhow::Result<()> {
    let found = State::salvage_sysctls(directory);
    let original = found.clone().unwrap_or_else(ports::kernel_defaults);
    tracing::warn!(
        %error, range = original.range, reserved = original.reserved, known = found.is_some(),
        "begins anew; sets net.ipv4.ip_local_port_range and ip_local_reserved_ports to what they were, or to the \
         kernel's own values; leases end at the gateway by themselves"
    );
    ports::restore(&original).map_err(|error| failure(EffectError::Sysctl(error)))?;
    State::remove(directory).map_err(|error| failure(EffectError::State(error)))
}

/// Removes what a dead agent left and no file tells of: hooks, tunnel, rules.
///
/// # Errors
///
/// Something cannot be removed.
pub async fn remove_unknown(netlink: &Netlink, netns_cookie: u64) -> anyhow::Result<()> {
    if unpin(netns_cookie)? {
        let original = ports::kernel_defaults();
        tracing::warn!(
            range = original.range,
            reserved = original.reserved,
            "no file says what net.ipv4.ip_local_port_range and ip_local_reserved_ports were: sets the kernel's own values"
        );
        ports::restore(&original).map_err(|error| failure(EffectError::Sysctl(error)))?;
    }
    tunnel::remove_leftovers(netlink, None).await.map_err(|error| failure(EffectError::Tunnel(error)))
}

/// Whether there was something.
fn unpin(netns_cookie: u64) -> anyhow::Result<bool> {
    let removed = pins::remove_leftovers(netns_cookie);
    let removed = removed.map_err(|error| Failure::new(ExitCode::Failure, error.to_string()))?;
    if removed {
        tracing::info!("the hooks of the last agent are taken off");
    }
    Ok(removed)
}

/// Undoes all of it: sysctls, rules, filters, the registration, the file.
///
/// # Errors
///
/// The host cannot be restored; the file stays then.
pub async fn undo(state: &State, netlink: &Netlink, directory: &Path) -> anyhow::Result<()> {
    // The hooks first: what they would refuse is not to be refused while the rest goes.
    unpin(state.netns_cookie)?;
    if let Some(original) = &state.sysctls {
        ports::restore(original).map_err(|error| failure(EffectError::Sysctl(error)))?;
    }
    if let Some(arp) = &state.arp {
        restore_arp(arp).map_err(|error| failure(EffectError::Sysctl(error)))?;
    }
    tunnel::remove_leftovers(netlink, state.private_interface.as_deref())
        .await
        .map_err(|error| failure(EffectError::Tunnel(error)))?;
    if let Some(client_id) = state.registration.client_id() {
        let kind = if state.transport == "udp" { HostTransport::Udp } else { HostTransport::Tcp };
        if !leave(kind, state.gateway, client_id).await {
            tracing::warn!(gateway = %state.gateway, "did not confirm the farewell; its leases end by themselves");
        }
    }
    State::remove(directory).map_err(|error| failure(EffectError::State(error)))
}

/// De-registers; `false`: no answer.
async fn leave(kind: HostTransport, gateway: SocketAddrV4, client_id: ClientId) -> bool {
    let (sender, mut events) = mpsc::channel(8);
    let transport = Transport::open(kind, gateway, 0, sender);
    let request = Message::new(MessageCounter::FIRST, Body::DeRegisterRequest { client_id });
    let exchange = async {
        let mut up = false;
        loop {
            let event = tokio::select! {
                event = events.recv() => event,
                () = tokio::time::sleep(REPEAT), if up && kind == HostTransport::Udp => {
                    transport.send(&request);
                    continue;
                }
            };
            match event {
                Some((_, TransportEvent::Up)) => {
                    up = true;
                    transport.send(&request);
                }
                // Refused means that the gateway does not know us any more: as good.
                Some((_, TransportEvent::Message(_))) => return true,
                Some((_, TransportEvent::Garbage(_) | TransportEvent::Unreachable(_))) => {}
                Some((_, TransportEvent::Down(_))) | None => return false,
            }
        }
    };
    tokio::time::timeout(FAREWELL, exchange).await.unwrap_or(false)
}
