//! What must hold: at every step, after quiet, and at the end.

use std::collections::BTreeMap;
use std::time::Duration;

use rsip_proto::host::{BindingKind, BindingState, GatewayState};

use crate::gate::STATIC;
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
                for port in binding.ports.iter() {
                    let entry = self.gate.path.get(&(binding.address, port));
                    let right = entry.is_some_and(|entry| {
                        entry.host == node.address && entry.client_id == client_id && entry.bind_id == bind_id
                    });
                    assert!(right, "host {index} uses port {port} as {bind_id}; data path: {entry:?}");
                }
            }
        }
    }

    /// After quiet: gateway, data path and hosts agree, and nothing is held that nobody wants.
    pub(crate) fn check_agreement(&self) {
        let clients = self.gate.machine.view(self.now).clients;
        let mut in_path = 0;
        for (index, node) in self.nodes.iter().enumerate() {
            let view = node.host.view(self.now);
            assert_eq!(view.gateway, GatewayState::Registered, "host {index}: {view:?}");
            let client = clients
                .iter()
                .find(|client| client.host == node.address)
                .expect("the gateway knows every host");
            assert_eq!(view.client_id, Some(client.client_id), "host {index}");
            let theirs: BTreeMap<_, _> =
                client.bindings.iter().map(|it| (it.bind_id, (it.address, it.ports.clone()))).collect();
            let ours: BTreeMap<_, _> = view
                .bindings
                .iter()
                .map(|it| (it.binding.bind_id, (it.binding.address, it.binding.ports.clone())))
                .collect();
            assert_eq!(ours, theirs, "host {index} and the gateway disagree");
            assert_eq!(node.published.len(), ours.len(), "host {index} and its shell disagree");
            for it in &view.bindings {
                assert_eq!(it.state, BindingState::InUse, "host {index}: {it:?}");
                assert_ne!(it.binding.kind, BindingKind::Listen, "host {index} keeps an unused port: {it:?}");
                in_path += it.binding.ports.iter().count();
            }
            for it in &view.pending {
                let mut ports = it.ports.iter();
                let justified = match it.kind {
                    BindingKind::Listen => false,
                    // Somebody else has it.
                    BindingKind::StaticListen => ports.all(|port| {
                        STATIC.contains(&port)
                            && self.gate.path.values().any(|entry| entry.host != node.address)
                    }),
                    // There are fewer than everybody wants.
                    BindingKind::Block => true,
                };
                assert!(justified, "host {index} still asks: {it:?}");
            }
        }
        assert_eq!(clients.len(), HOSTS);
        assert_eq!(self.gate.path.len(), in_path, "the data path holds what nobody has");
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
