//! What must hold: at every step, after quiet, and at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use rsip_proto::host::{BindingKind, BindingState, GatewayState};
use rsip_proto::lease::Leased;

use crate::gate::Entry;

use crate::plan::{LOCAL, Terms};
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
        if !self.plan.gateway {
            self.check_that_hosts_are_right();
        }
    }

    /// Nothing is in use at a host that the data path does not give it. (A gateway that forgets, and one whose word that
    /// it took something back was lost, make a host wrong for a while; nobody can help that.)
    fn check_that_hosts_are_right(&self) {
        for (index, node) in self.nodes.iter().enumerate().filter(|(index, _)| self.touched[*index]) {
            for ((client_id, bind_id), binding) in node.held(self.now) {
                let right = |entry: Option<&Entry>| {
                    let expected = Entry { host: node.address, client_id, bind_id, remote: binding.remote };
                    assert_eq!(
                        entry,
                        Some(&expected),
                        "host {index} uses {binding:?}; in the data path otherwise"
                    );
                };
                match &binding.leased {
                    Leased::Address => right(self.gate.whole.get(&binding.address)),
                    Leased::Ports(ports) => {
                        ports.iter().for_each(|port| right(self.gate.path.get(&(binding.address, port))));
                    }
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
        let (mut ports, mut addresses) = (0, 0);
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
            let theirs: BTreeMap<_, _> = client
                .bindings
                .iter()
                .map(|it| (it.bind_id, (it.address, it.leased.clone(), it.remote)))
                .collect();
            let ours: BTreeMap<_, _> = view
                .bindings
                .iter()
                .map(|it| {
                    let it = &it.binding;
                    (it.bind_id, (it.address, it.leased.clone(), it.remote))
                })
                .collect();
            if ours != theirs {
                return of_host(format!("has {ours:?}, the gateway thinks {theirs:?}"));
            }
            if node.local != LOCAL {
                return of_host(format!("thinks that {:?} is local", node.local));
            }
            if self.plan.terms == Terms::OnePort
                && ours.values().any(|(_, leased, _)| leased.iter().count() > 1)
            {
                return of_host(format!("has {ours:?} under the local micro-flow policy"));
            }
            if node.published.len() != ours.len() {
                return of_host(format!("has {ours:?}, its shell {:?}", node.published));
            }
            for it in &view.bindings {
                if it.state != BindingState::InUse || it.binding.kind == BindingKind::Listen {
                    return of_host(format!("keeps {it:?}"));
                }
                match &it.binding.leased {
                    Leased::Address => addresses += 1,
                    Leased::Ports(leased) => ports += leased.iter().count(),
                }
            }
            for it in &view.pending {
                let justified = match it.kind {
                    BindingKind::Listen => false,
                    // Somebody else has it.
                    BindingKind::StaticListen => {
                        it.ports.iter().all(|port| self.gate.is_taken(port, node.address))
                    }
                    BindingKind::Address => self.gate.has_no_address_for(node.address),
                    // There are fewer than everybody wants.
                    BindingKind::Block => true,
                };
                if !justified {
                    return of_host(format!("still asks: {it:?}"));
                }
            }
        }
        if clients.len() != HOSTS || self.gate.path.len() != ports || self.gate.whole.len() != addresses {
            return Err(format!("left over: {clients:?}, {:?}, {:?}", self.gate.path, self.gate.whole));
        }
        Ok(())
    }

    /// After all have left.
    pub(crate) fn check_nothing_left(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            assert!(node.stopped, "host {index} does not stop");
            assert_eq!(node.host.poll_timeout(), None);
            assert!(node.published.is_empty());
        }
        assert!(self.gate.machine.view(self.now).clients.is_empty());
        let left = (&self.gate.path, &self.gate.whole);
        assert!(left.0.is_empty() && left.1.is_empty(), "left in the data path: {left:?}");
    }
}
