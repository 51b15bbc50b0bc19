//! What must hold: at every step, after quiet, and at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use rsip_proto::host::{BindingKind, BindingState, GatewayState};

use crate::plan::Chaos;
use crate::world::{HOSTS, World};

/// A verdict may be this late: the clock moves in steps.
const SLACK: Duration = Duration::from_millis(1);

impl World {
    /// At every step.
    pub(crate) fn check(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            for (port, deadline) in &node.waiting {
                assert!(self.now <= *deadline + SLACK, "host {index} waits for port {port} for too long");
            }
            let pending = !node.waiting.is_empty() || !node.installing.is_empty() && node.stopped;
            assert!(!pending || node.host.poll_timeout().is_some(), "host {index} is stuck");
        }
        if self.plan.chaos != Chaos::Gateway {
            self.check_that_hosts_are_right();
        }
    }

    /// Nothing is in use at a host that the data path does not give it. (A gateway that forgets, and one whose word that
    /// it took something back was lost, make a host wrong for a while; nobody can help that.)
    fn check_that_hosts_are_right(&self) {
        for (index, node) in self.nodes.iter().enumerate().filter(|(index, _)| self.touched[*index]) {
            for ((client_id, bind_id), binding) in node.held(self.now) {
                for port in binding.leased.iter() {
                    let entry = self.gate.path.get(&(binding.address, port));
                    let right = entry.is_some_and(|entry| {
                        entry.host == node.address && entry.client_id == client_id && entry.bind_id == bind_id
                    });
                    assert!(right, "host {index} uses port {port} as {bind_id}; data path: {entry:?}");
                }
            }
        }
    }

    /// After quiet: gateway, data path and hosts agree, and nothing is held that nobody wants. Something may be under way
    /// at any one moment (a registration without bindings cannot be renewed, only made again), so it is looked at until
    /// it holds, but not for long.
    pub(crate) fn check_agreement(&mut self) {
        let mut disagreement = String::new();
        for _ in 0..100 {
            match self.agreement() {
                Ok(()) => return,
                Err(error) => disagreement = error,
            }
            self.run_for(Duration::from_millis(20));
        }
        assert!(disagreement.is_empty(), "{disagreement}");
    }

    fn agreement(&self) -> Result<(), String> {
        let clients = self.gate.machine.view(self.now).clients;
        let mut in_path = 0;
        for (index, node) in self.nodes.iter().enumerate() {
            let view = node.host.view(self.now);
            let of_host = |what: String| Err(format!("host {index}: {what}"));
            let client = clients.iter().find(|client| client.host == node.address);
            let Some(client) = client.filter(|client| view.client_id == Some(client.client_id)) else {
                return of_host(format!("registered? {view:?}, {client:?}"));
            };
            if view.gateway != GatewayState::Registered {
                return of_host(format!("{:?}", view.gateway));
            }
            let theirs: BTreeMap<_, _> =
                client.bindings.iter().map(|it| (it.bind_id, (it.address, it.leased.clone()))).collect();
            let ours: BTreeMap<_, _> = view
                .bindings
                .iter()
                .map(|it| (it.binding.bind_id, (it.binding.address, it.binding.leased.clone())))
                .collect();
            if ours != theirs {
                return of_host(format!("has {ours:?}, the gateway thinks {theirs:?}"));
            }
            if node.published.len() != ours.len() {
                return of_host(format!("has {ours:?}, its shell {:?}", node.published));
            }
            for it in &view.bindings {
                if it.state != BindingState::InUse || it.binding.kind == BindingKind::Listen {
                    return of_host(format!("keeps {it:?}"));
                }
                in_path += it.binding.leased.iter().count();
            }
            for it in &view.pending {
                let justified = match it.kind {
                    BindingKind::Listen => false,
                    // Somebody else has it.
                    BindingKind::StaticListen => it.ports.iter().all(|port| self.has_another(port, index)),
                    // There are fewer than everybody wants.
                    BindingKind::Address | BindingKind::Block => true,
                };
                if !justified {
                    return of_host(format!("still asks: {it:?}"));
                }
            }
        }
        if clients.len() != HOSTS || self.gate.path.len() != in_path {
            return Err(format!("left over: {clients:?}, {:?}", self.gate.path));
        }
        Ok(())
    }

    fn has_another(&self, port: u16, index: usize) -> bool {
        let own = self.nodes[index].address;
        self.gate.path.iter().any(|((_, it), entry)| *it == port && entry.host != own)
    }

    /// After all have left.
    pub(crate) fn check_nothing_left(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            assert!(node.stopped, "host {index} does not stop");
            assert_eq!(node.host.poll_timeout(), None);
            assert!(node.published.is_empty());
        }
        assert!(self.gate.machine.view(self.now).clients.is_empty());
        assert!(self.gate.path.is_empty(), "left in the data path: {:?}", self.gate.path);
    }
}
