//! Which ports are ours to let pass: the bindings in use and the operator's rules, and from both the verdict per port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use rsip_ebpf_common::host::{PORT_DENIED, PORT_GRANTED, PORT_IGNORED, PORT_UNKNOWN, Port};
use rsip_proto::host::{BindingKind, HostBinding};
use rsip_proto::ids::{BindId, ClientId};
use rsip_proto::lease::Leased;
use rsip_proto::wire::TunnelType;

use crate::clock;
use crate::hooks::{HooksError, PortTable};
use crate::rules::set::RuleSet;
use crate::rules::{ALL_PORTS, Action};

/// A refusal holds for this long; then the next bind asks again.
const REFUSAL: Duration = Duration::from_secs(1);

/// The bindings in use, and the rules.
#[derive(Debug)]
pub struct Book {
    bindings: BTreeMap<(ClientId, BindId), HostBinding>,
    holders: BTreeMap<u16, (ClientId, BindId)>,
    rules: RuleSet,
}

impl Book {
    /// No bindings.
    pub fn new(rules: RuleSet) -> Self {
        Self { bindings: BTreeMap::new(), holders: BTreeMap::new(), rules }
    }

    /// The operator's rules.
    pub const fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// From now on these are the rules; ports that they ignore, whoever binds them, and ports that they do not ignore any more
    /// are written.
    ///
    /// # Errors
    ///
    /// The table does not take it.
    pub fn set_rules(&mut self, table: &mut impl PortTable, rules: RuleSet) -> Result<(), HooksError> {
        let before = std::mem::replace(&mut self.rules, rules);
        for port in ALL_PORTS {
            let was_ignored = before.decides(port) == Some(Action::Ignore);
            match (was_ignored, self.ignores(port)) {
                (false, true) => table.set_port(port, plain(PORT_IGNORED))?,
                (true, false) if self.holders.contains_key(&port) => {
                    table.set_port(port, plain(PORT_GRANTED))?;
                }
                (true, false) => table.set_port(port, plain(PORT_UNKNOWN))?,
                (true, true) | (false, false) => {}
            }
        }
        Ok(())
    }

    /// Whether binds of a port pass without a lease, whoever binds it.
    pub fn ignores(&self, port: u16) -> bool {
        self.rules.decides(port) == Some(Action::Ignore)
    }

    /// The bindings in use.
    pub fn bindings(&self) -> impl Iterator<Item = &HostBinding> {
        self.bindings.values()
    }

    /// Whether the whole address is leased (RSA-IP): every port passes, and none of them is known by number.
    pub fn is_whole(&self) -> bool {
        self.bindings.values().any(|binding| binding.leased == Leased::Address)
    }

    /// Whether programs can connect without a port by number: a block is leased, or the whole address.
    pub fn has_ephemeral(&self) -> bool {
        let ephemeral = |kind| matches!(kind, BindingKind::Block | BindingKind::Address);
        self.bindings.values().any(|binding| ephemeral(binding.kind))
    }

    /// Whether a port is leased: by number, or with the whole address.
    pub fn holds(&self, port: u16) -> bool {
        self.holders.contains_key(&port) || self.is_whole()
    }

    /// The binding that holds a port by number.
    pub fn holder(&self, port: u16) -> Option<&HostBinding> {
        self.holders.get(&port).and_then(|key| self.bindings.get(key))
    }

    /// The leased address; all bindings have the same.
    pub fn public(&self) -> Option<Ipv4Addr> {
        self.bindings.values().next().map(|binding| binding.address)
    }

    /// The tunnel's type; all bindings have the same.
    pub fn tunnel(&self) -> TunnelType {
        self.bindings.values().next().map_or(TunnelType::IpIp, |binding| binding.tunnel)
    }

    /// Ports for the kernel's own choice.
    pub fn block_ports(&self) -> BTreeSet<u16> {
        self.bindings
            .values()
            .filter(|binding| binding.kind == BindingKind::Block)
            .flat_map(|binding| binding.leased.iter())
            .collect()
    }

    /// A binding comes into use. Its ports pass only when [`Book::open`] says so.
    pub fn add(&mut self, binding: HostBinding) {
        let key = (binding.client_id, binding.bind_id);
        self.holders.extend(binding.leased.iter().map(|port| (port, key)));
        self.bindings.insert(key, binding);
    }

    /// A binding goes out of use.
    pub fn remove(&mut self, key: (ClientId, BindId)) -> Option<HostBinding> {
        let binding = self.bindings.remove(&key)?;
        for port in binding.leased.iter() {
            if self.holders.get(&port) == Some(&key) {
                self.holders.remove(&port);
            }
        }
        Some(binding)
    }

    /// A binding has another name now.
    pub fn rename(&mut self, old: (ClientId, BindId), binding: HostBinding) {
        self.remove(old);
        self.add(binding);
    }

    /// Writes what the rules ignore into the table.
    ///
    /// # Errors
    ///
    /// The table does not take it.
    pub fn write_rules(&self, table: &mut impl PortTable) -> Result<(), HooksError> {
        ALL_PORTS
            .filter(|port| self.ignores(*port))
            .try_for_each(|port| table.set_port(port, plain(PORT_IGNORED)))
    }

    /// Lets binds of these ports pass from now on. With the whole address leased they pass anyway.
    ///
    /// # Errors
    ///
    /// The table does not take it.
    pub fn open(
        &self,
        table: &mut impl PortTable,
        ports: impl IntoIterator<Item = u16>,
    ) -> Result<(), HooksError> {
        if self.is_whole() {
            return Ok(());
        }
        self.write(table, ports, PORT_GRANTED)
    }

    /// From now on binds of these ports have to ask.
    ///
    /// # Errors
    ///
    /// The table does not take it.
    pub fn close(
        &self,
        table: &mut impl PortTable,
        ports: impl IntoIterator<Item = u16>,
    ) -> Result<(), HooksError> {
        self.write(table, ports, PORT_UNKNOWN)
    }

    /// Lets binds of a port pass without a lease, until [`Book::close`].
    ///
    /// # Errors
    ///
    /// The table does not take it.
    pub fn pass(&self, table: &mut impl PortTable, port: u16) -> Result<(), HooksError> {
        table.set_port(port, plain(PORT_IGNORED))
    }

    /// Refuses binds of a port for a short while.
    ///
    /// # Errors
    ///
    /// The table does not take it.
    pub fn deny(&self, table: &mut impl PortTable, port: u16) -> Result<(), HooksError> {
        let until = clock::monotonic() + REFUSAL;
        let until_ns = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        let errno = libc::EADDRINUSE.unsigned_abs();
        table.set_port(port, Port { until_ns, state: PORT_DENIED, errno })
    }

    /// What the operator ignores stays ignored.
    fn write(
        &self,
        table: &mut impl PortTable,
        ports: impl IntoIterator<Item = u16>,
        state: u32,
    ) -> Result<(), HooksError> {
        ports
            .into_iter()
            .filter(|port| !self.ignores(*port))
            .try_for_each(|port| table.set_port(port, plain(state)))
    }
}

const fn plain(state: u32) -> Port {
    Port { until_ns: 0, state, errno: 0 }
}

#[cfg(test)]
mod tests {
    use rsip_proto::lease::{Leased, Remote};
    use rsip_proto::wire::{Ports, TunnelType};

    use super::*;

    /// What the maps would say.
    #[derive(Debug, Default)]
    struct FakeTable {
        ports: BTreeMap<u16, Port>,
        /// Takes so many more verdicts; `None`: all.
        room: Option<usize>,
    }

    impl PortTable for FakeTable {
        fn set_port(&mut self, port: u16, verdict: Port) -> Result<(), HooksError> {
            if let Some(room) = &mut self.room {
                *room =
                    room.checked_sub(1).ok_or_else(|| HooksError::Events(std::io::Error::other("full")))?;
            }
            self.ports.insert(port, verdict);
            Ok(())
        }
        fn answered(&mut self, _port: u16) -> Result<(), HooksError> {
            Ok(())
        }
        fn waiting(&self) -> Result<Vec<u16>, HooksError> {
            Ok(Vec::new())
        }
        fn uses(&self, _port: u16) -> Result<u32, HooksError> {
            Ok(0)
        }
    }

    fn rules(rules: &[&str]) -> RuleSet {
        let rules: Vec<_> = rules.iter().map(|rule| rule.parse().expect("a rule")).collect();
        RuleSet::new(rules, Action::Lease).expect("few rules")
    }

    fn binding(kind: BindingKind, bind_id: u32, ports: Ports) -> HostBinding {
        HostBinding {
            kind,
            client_id: ClientId(1),
            bind_id: BindId(bind_id),
            address: Ipv4Addr::new(203, 0, 113, 9),
            leased: Leased::Ports(ports),
            remote: Remote::Any,
            tunnel: TunnelType::IpIp,
            tunnel_endpoint: None,
        }
    }

    #[test]
    fn knows_who_holds_what() {
        let mut book = Book::new(rules(&[]));
        assert_eq!(book.public(), None);
        book.add(binding(BindingKind::Block, 1, Ports::Range { first: 10_000, count: 3 }));
        book.add(binding(BindingKind::Listen, 2, Ports::single(80)));
        assert_eq!(book.block_ports(), [10_000, 10_001, 10_002].into());
        assert_eq!(book.public(), Some(Ipv4Addr::new(203, 0, 113, 9)));
        assert_eq!(book.holder(80).map(|b| b.bind_id), Some(BindId(2)));
        assert_eq!(book.holder(81), None);
        book.rename((ClientId(1), BindId(2)), binding(BindingKind::Listen, 7, Ports::single(80)));
        assert_eq!(book.holder(80).map(|b| b.bind_id), Some(BindId(7)));
        assert_eq!(book.remove((ClientId(1), BindId(2))), None);
        assert!(book.remove((ClientId(1), BindId(7))).is_some());
        assert_eq!(book.holder(80), None);
    }

    #[test]
    fn a_whole_address_holds_every_port_and_none_by_number() {
        let mut book = Book::new(rules(&[]));
        assert!(!book.is_whole() && !book.has_ephemeral() && !book.holds(80));
        let whole =
            HostBinding { leased: Leased::Address, ..binding(BindingKind::Address, 1, Ports::single(1)) };
        book.add(whole.clone());
        assert!(book.is_whole() && book.has_ephemeral() && book.holds(80) && book.holds(65_535));
        assert_eq!((book.holder(80), book.block_ports()), (None, BTreeSet::new()));
        assert_eq!(book.public(), Some(whole.address));
        book.rename((ClientId(1), BindId(1)), HostBinding { bind_id: BindId(2), ..whole });
        assert!(book.is_whole());
        assert!(book.remove((ClientId(1), BindId(2))).is_some());
        assert!(!book.is_whole() && !book.holds(80));
    }

    #[test]
    fn ports_leased_one_by_one_are_one_choice() {
        let mut book = Book::new(rules(&[]));
        for (bind_id, port) in [(1, 30_000), (2, 20_007), (3, 20_003)] {
            book.add(binding(BindingKind::Block, bind_id, Ports::single(port)));
        }
        assert_eq!(book.block_ports(), [20_003, 20_007, 30_000].into());
        book.remove((ClientId(1), BindId(2)));
        assert_eq!(book.block_ports(), [20_003, 30_000].into());
        assert!(book.has_ephemeral() && !book.is_whole() && !book.holds(20_007));
    }

    #[test]
    fn the_operators_rule_stands_above_leases() {
        let mut table = FakeTable::default();
        let book = Book::new(rules(&["I6010-6011"]));
        book.write_rules(&mut table).expect("a map");
        book.open(&mut table, [6011, 80]).expect("a map");
        book.close(&mut table, [6010]).expect("a map");
        let state = |port| table.ports.get(&port).map(|verdict| verdict.state);
        assert_eq!([6010, 6011, 80].map(state), [PORT_IGNORED, PORT_IGNORED, PORT_GRANTED].map(Some));
    }

    #[test]
    fn other_rules_write_the_ports_that_they_change() {
        let mut table = FakeTable::default();
        let mut book = Book::new(rules(&["I6010-6011", "I6012-6012 tcp"]));
        book.add(binding(BindingKind::Listen, 2, Ports::single(6010)));
        book.set_rules(&mut table, rules(&["D6011-6011", "I80-81"])).expect("a map");
        let written: Vec<_> = table.ports.iter().map(|(port, verdict)| (*port, verdict.state)).collect();
        let wanted = [(80, PORT_IGNORED), (81, PORT_IGNORED), (6010, PORT_GRANTED), (6011, PORT_UNKNOWN)];
        assert_eq!(written, wanted, "6012 was asked for by UDP and is so still");
    }

    #[test]
    fn a_refusal_says_address_in_use_and_ends() {
        let mut table = FakeTable::default();
        let before = clock::monotonic();
        Book::new(rules(&[])).deny(&mut table, 80).expect("a map");
        let verdict = table.ports.get(&80).expect("written");
        assert_eq!((verdict.state, verdict.errno), (PORT_DENIED, 98));
        let until = Duration::from_nanos(verdict.until_ns);
        assert!(until >= before + REFUSAL && until <= clock::monotonic() + REFUSAL);
    }

    #[test]
    fn a_change_that_breaks_off_opens_nothing_that_neither_set_ignores_and_is_put_back() {
        let (old, new) = (rules(&["I10-14", "D20-24"]), rules(&["I13-22", "D23-30"]));
        for room in 0..12 {
            let mut table = FakeTable::default();
            let mut book = Book::new(old.clone());
            book.write_rules(&mut table).expect("written");
            let before: BTreeSet<u16> = ignored(&table);
            table.room = Some(room);
            let outcome = book.set_rules(&mut table, new.clone());
            assert_eq!(outcome.is_ok(), room >= 11, "three ports are closed, and eight opened");
            for port in ignored(&table) {
                let either = [&old, &new].map(|set| set.decides(port) == Some(Action::Ignore));
                assert!(either.contains(&true), "{port} after {room} writes");
            }
            table.room = None;
            book.set_rules(&mut table, old.clone()).expect("written");
            assert_eq!((ignored(&table), book.rules()), (before, &old), "after {room} writes");
        }
    }

    fn ignored(table: &FakeTable) -> BTreeSet<u16> {
        let is_ignored = |(port, verdict): (&u16, &Port)| (verdict.state == PORT_IGNORED).then_some(*port);
        table.ports.iter().filter_map(is_ignored).collect()
    }
}
