//! A data path that forwards nothing: it remembers what it was told, and fails when told to. For tests of everything
//! around it; it keeps the contract of [`super::Datapath`].

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rsip_proto::gateway::Rule;
use rsip_proto::wire::TunnelType;

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

/// The data path, and the test's window into it: clones share one state.
#[derive(Clone, Debug, Default)]
pub struct FakeDatapath {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    calls: Vec<Call>,
    held: BTreeMap<(Ipv4Addr, u16), Ipv4Addr>,
    failures: u32,
}

impl FakeDatapath {
    /// The next `count` changes fail.
    pub fn fail_next(&self, count: u32) {
        self.state().failures = count;
    }

    /// What it was told so far.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Who holds what.
    #[must_use]
    pub fn held(&self) -> BTreeMap<(Ipv4Addr, u16), Ipv4Addr> {
        self.state().held.clone()
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
        let address = rule.address;
        for port in rule.leased.iter() {
            match self.held.get(&(address, port)) {
                Some(holder) if *holder != rule.host => {
                    return Err(DatapathError::Held { address, port, holder: *holder });
                }
                _ => {}
            }
        }
        self.held.extend(rule.leased.iter().map(|port| ((address, port), rule.host)));
        Ok(())
    }

    fn remove(&mut self, rule: &Rule) -> Result<(), DatapathError> {
        self.fail_if_told("remove")?;
        for port in rule.leased.iter() {
            if self.held.get(&(rule.address, port)) == Some(&rule.host) {
                self.held.remove(&(rule.address, port));
            }
        }
        Ok(())
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
        let state = self.state();
        Ok(rule.leased.iter().all(|port| state.held.get(&(rule.address, port)) == Some(&rule.host)))
    }

    fn stats(&self) -> Result<Stats, DatapathError> {
        Ok(Stats::default())
    }

    async fn close(self) -> Result<(), DatapathError> {
        let mut state = self.state();
        state.calls.push(Call::Close);
        state.held.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;

    #[test]
    fn keeps_the_contract() {
        let mut datapath = FakeDatapath::default();
        contract::check(&mut datapath, &[Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(192, 0, 2, 2)]);
        assert!(datapath.held().is_empty());
    }
}
