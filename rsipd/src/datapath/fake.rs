//! A data path that forwards nothing: it remembers what it was told, and fails when told to. For tests of everything
//! around it; it keeps the contract of [`super::Datapath`].

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rsip_proto::gateway::{Misuse, Rule};
use rsip_proto::lease::{Leased, Remote};
use rsip_proto::wire::TunnelType;
use tokio::sync::Notify;

use super::{Datapath, DatapathError, Stats};

/// What the data path was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `install`, and whether it was done.
    Install(Rule, bool),
    /// `remove`, and whether it was done.
    Remove(Rule, bool),
    /// `close`.
    Close,
}

/// The data path, and the test's window into it: clones share one state. It does any remote policy, unless made by
/// [`Self::without_remote_policy`].
#[derive(Clone, Debug, Default)]
pub struct FakeDatapath {
    state: Arc<Mutex<State>>,
    reported: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    held: BTreeMap<(Ipv4Addr, u16), Holder>,
    whole: BTreeMap<Ipv4Addr, Holder>,
    failures: u32,
    misuses: VecDeque<(Ipv4Addr, Misuse)>,
    no_remotes: bool,
}

/// A host, and with whom it may use what it holds.
type Holder = (Ipv4Addr, Remote);

impl FakeDatapath {
    /// One that refuses rules with a peer.
    #[must_use]
    pub fn without_remote_policy() -> Self {
        let fake = Self::default();
        fake.state().no_remotes = true;
        fake
    }

    /// The next `count` changes fail.
    pub fn fail_next(&self, count: u32) {
        self.state().failures = count;
    }

    /// What it was told so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Who holds which port.
    #[must_use]
    pub fn held(&self) -> BTreeMap<(Ipv4Addr, u16), Ipv4Addr> {
        self.state().held.iter().map(|(place, (host, _))| (*place, *host)).collect()
    }

    /// Who holds which address whole.
    #[must_use]
    pub fn held_whole(&self) -> BTreeMap<Ipv4Addr, Ipv4Addr> {
        self.state().whole.iter().map(|(address, (host, _))| (*address, *host)).collect()
    }

    /// Makes it report a host.
    pub fn report(&self, host: Ipv4Addr, misuse: Misuse) {
        self.state().misuses.push_back((host, misuse));
        self.reported.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fail_if_told(&mut self, action: &'static str) -> Result<(), DatapathError> {
        if self.failures == 0 {
            return Ok(());
        }
        self.failures -= 1;
        Err(DatapathError::System { action, source: std::io::Error::other("told to fail") })
    }

    fn install(&mut self, rule: &Rule) -> Result<(), DatapathError> {
        self.fail_if_told("install")?;
        if rule.tunnel != TunnelType::IpIp {
            return Err(DatapathError::Tunnel(rule.tunnel));
        }
        if self.no_remotes && rule.remote != Remote::Any {
            return Err(DatapathError::Remote(rule.remote));
        }
        if rule.leased.iter().any(|port| port == 0) {
            return Err(DatapathError::PortZero);
        }
        let address = rule.address;
        let us = (rule.host, rule.remote);
        let held = |port, (holder, _): Holder| Err(DatapathError::Held { address, port, holder });
        match self.whole.get(&address) {
            Some(holder) if rule.leased == Leased::Address && *holder != us => return held(None, *holder),
            Some(holder) if holder.0 != rule.host => return held(None, *holder),
            _ => {}
        }
        for (&(_, port), holder) in self.held.range((address, 0)..=(address, u16::MAX)) {
            match &rule.leased {
                Leased::Address if holder.0 != rule.host => return held(None, *holder),
                Leased::Ports(_) if rule.leased.covers(port) && *holder != us => {
                    return held(Some(port), *holder);
                }
                _ => {}
            }
        }
        match &rule.leased {
            Leased::Address => drop(self.whole.insert(address, us)),
            Leased::Ports(ports) => self.held.extend(ports.iter().map(|port| ((address, port), us))),
        }
        Ok(())
    }

    fn remove(&mut self, rule: &Rule) -> Result<(), DatapathError> {
        self.fail_if_told("remove")?;
        let us = (rule.host, rule.remote);
        if rule.leased == Leased::Address && self.whole.get(&rule.address) == Some(&us) {
            self.whole.remove(&rule.address);
        }
        for port in rule.leased.iter() {
            if self.held.get(&(rule.address, port)) == Some(&us) {
                self.held.remove(&(rule.address, port));
            }
        }
        Ok(())
    }

    fn holds(&self, rule: &Rule) -> bool {
        let us = Some(&(rule.host, rule.remote));
        match &rule.leased {
            Leased::Address => self.whole.get(&rule.address) == us,
            Leased::Ports(ports) => ports.iter().all(|port| self.held.get(&(rule.address, port)) == us),
        }
    }
}

impl Datapath for FakeDatapath {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn install(&mut self, rule: &Rule) -> Result<(), DatapathError> {
        let mut state = self.state();
        let outcome = state.install(rule);
        state.calls.push(Call::Install(rule.clone(), outcome.is_ok()));
        outcome
    }

    fn remove(&mut self, rule: &Rule) -> Result<(), DatapathError> {
        let mut state = self.state();
        let outcome = state.remove(rule);
        state.calls.push(Call::Remove(rule.clone(), outcome.is_ok()));
        outcome
    }

    fn holds(&self, rule: &Rule) -> Result<bool, DatapathError> {
        Ok(self.state().holds(rule))
    }

    async fn misused(&mut self) -> (Ipv4Addr, Misuse) {
        loop {
            let next = self.state().misuses.pop_front();
            match next {
                Some(misuse) => return misuse,
                None => self.reported.notified().await,
            }
        }
    }

    fn stats(&self) -> Result<Stats, DatapathError> {
        Ok(Stats::default())
    }

    async fn close(self) -> Result<(), DatapathError> {
        let mut state = self.state();
        state.calls.push(Call::Close);
        state.held.clear();
        state.whole.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rsip_proto::wire::RemotePolicy;
    use tokio::time::timeout;

    use super::super::contract;
    use super::*;

    const POOL: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)];

    #[test]
    fn keeps_the_contract() {
        for policy in [RemotePolicy::Macro, RemotePolicy::Micro] {
            let mut datapath = FakeDatapath::default();
            contract::check(&mut datapath, &POOL, policy);
            assert!(datapath.held().is_empty() && datapath.held_whole().is_empty());
        }
    }

    #[test]
    fn keeps_the_contract_without_a_remote_policy() {
        let mut datapath = FakeDatapath::without_remote_policy();
        contract::check(&mut datapath, &POOL, RemotePolicy::None);
        assert!(datapath.held().is_empty() && datapath.held_whole().is_empty());
    }

    #[tokio::test]
    async fn reports_come_one_by_one_and_survive_a_cancelled_wait() {
        let mut datapath = FakeDatapath::default();
        let host = Ipv4Addr::new(10, 0, 0, 2);
        assert!(timeout(Duration::ZERO, datapath.misused()).await.is_err(), "nothing was reported");
        let window = datapath.clone();
        window.report(host, Misuse::Tunnel);
        window.report(host, Misuse::LocalPort);
        assert_eq!(datapath.misused().await, (host, Misuse::Tunnel));
        assert_eq!(datapath.misused().await, (host, Misuse::LocalPort));
        assert!(timeout(Duration::ZERO, datapath.misused()).await.is_err(), "nothing is left");
    }
}
