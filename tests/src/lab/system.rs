//! A lab in which the gateway and the agents run: what most tests start from.

use std::time::Duration;

use super::agent::{self, Agent};
use super::capture::RsipLeg;
use super::error::{LabError, Result};
use super::gateway::{self, Gateway, State};
use super::snapshot::Snapshot;
use super::topology::{Host, Lab};
use super::wait::{self, Look};

/// How long the gateway may take to see what has happened on a host, waiting times of the agent included.
pub const NOTICE: Duration = Duration::from_secs(20);

/// What differs from the usual.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// More lines for `rsipd.conf`.
    pub gateway: String,
    /// More arguments for `rsip-client up`.
    pub agent: Vec<String>,
}

/// The lab, `rsipd` on its gateway, `rsip-client up` on its hosts. Tests may stop, kill and start each of them.
#[derive(Debug)]
pub struct System {
    agents: [Option<Agent>; 2],
    gateway: Option<Gateway>,
    options: Options,
    environment: Vec<(&'static str, &'static str)>,
    before: Snapshot,
    // Dropped after the daemons, whose last words belong to it, and before the network.
    leg: Option<RsipLeg>,
    /// The network.
    pub lab: Lab,
}

impl System {
    /// The lab alone; nothing runs yet. What there is now is what [`Self::finish`] wants to see again.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn new(options: Options) -> Result<Self> {
        Self::in_lab(Lab::new()?, options)
    }

    /// The same in a lab that is there.
    ///
    /// # Errors
    /// Where no snapshot can be taken.
    pub fn in_lab(lab: Lab, options: Options) -> Result<Self> {
        let before = Snapshot::take(&lab.all())?;
        let environment = Vec::new();
        Ok(Self { agents: [None, None], gateway: None, options, environment, before, leg: None, lab })
    }

    /// From now on daemons are started with this variable.
    pub fn set_environment(&mut self, name: &'static str, value: &'static str) {
        self.environment.push((name, value));
    }

    /// Everything runs.
    ///
    /// # Errors
    /// Where something does not start.
    pub fn up() -> Result<Self> {
        Self::up_with(Options::default())
    }

    /// Everything runs, with settings of choice.
    ///
    /// # Errors
    /// Where something does not start.
    pub fn up_with(options: Options) -> Result<Self> {
        let mut system = Self::new(options)?;
        system.start_gateway()?;
        for host in Host::ALL {
            system.start_agent(host)?;
        }
        Ok(system)
    }

    /// Starts `rsipd`.
    ///
    /// # Errors
    /// Where it is not ready in time.
    pub fn start_gateway(&mut self) -> Result<()> {
        self.listen_in()?;
        self.gateway = Some(Gateway::start_with(
            &self.lab,
            &gateway::configuration(&self.options.gateway),
            &self.environment,
        )?);
        Ok(())
    }

    /// Starts `rsip-client up` on a host.
    ///
    /// # Errors
    /// Where it is not ready in time.
    pub fn start_agent(&mut self, host: Host) -> Result<()> {
        self.listen_in()?;
        *self.slot(host) = Some(Agent::start_with(&self.lab, host, &self.options.agent, &self.environment)?);
        Ok(())
    }

    /// Records what gateway and hosts say, for the judge.
    fn listen_in(&mut self) -> Result<()> {
        if self.leg.is_none() {
            self.leg = RsipLeg::start(&self.lab)?;
        }
        Ok(())
    }

    /// From now on others than our programs send to the RSIP port: what comes from hosts is not judged.
    pub fn has_strangers(&mut self) {
        self.leg.iter_mut().for_each(RsipLeg::has_strangers);
    }

    /// The running gateway daemon.
    ///
    /// # Errors
    /// [`LabError::Unexpected`] where it was not started.
    pub fn gateway(&mut self) -> Result<&mut Gateway> {
        self.gateway.as_mut().ok_or_else(|| not_started("rsipd"))
    }

    /// The running agent of a host.
    ///
    /// # Errors
    /// [`LabError::Unexpected`] where it was not started.
    pub fn agent(&mut self, host: Host) -> Result<&mut Agent> {
        self.slot(host).as_mut().ok_or_else(|| not_started("rsip-client"))
    }

    fn slot(&mut self, host: Host) -> &mut Option<Agent> {
        let [a, b] = &mut self.agents;
        match host {
            Host::A => a,
            Host::B => b,
        }
    }

    /// Waits until the gateway's state is as wanted, and gives it.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the last state, after `limit`.
    pub fn gateway_sees(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&State) -> bool,
    ) -> Result<State> {
        wait::until(&format!("the gateway to see {what}"), limit, || {
            let state = gateway::state(&self.lab)?;
            Ok(if wanted(&state) { Look::Ready(state) } else { Look::NotYet(format!("{:?}", state.clients)) })
        })
    }

    /// Waits until a host holds exactly these ports besides its block.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the last state.
    pub fn gateway_sees_listening(&self, host: Host, ports: &[u16]) -> Result<State> {
        let what = format!("{} with ports {ports:?}", host.name());
        self.gateway_sees(&what, NOTICE, |state| state.listening(host) == ports)
    }

    /// What people are shown: `rsip-client status` of a host.
    ///
    /// # Errors
    /// Where it fails.
    pub fn status(&self, host: Host) -> Result<String> {
        agent::client(&self.lab, host, &["status"])?.success()
    }

    /// What people are shown: `rsipdctl dump`.
    ///
    /// # Errors
    /// Where it fails.
    pub fn dump(&self) -> Result<String> {
        gateway::ctl(&self.lab, &["dump"])?.success()
    }

    /// Stops whatever runs, which must end with 0, and compares the lab and the machine with what was there before.
    ///
    /// # Errors
    /// Where a daemon fails to stop, or something is left behind.
    pub fn finish(mut self) -> Result<()> {
        self.stop_all()?;
        self.expect_as_before()
    }

    /// Waits until these words are in the log of a host's agent.
    ///
    /// # Errors
    /// Where there is no agent; [`LabError::Timeout`] with its log.
    pub fn agent_says(&mut self, host: Host, words: &str) -> Result<()> {
        let process = &self.agent(host)?.process;
        wait::until(&format!("{words:?} in the log"), NOTICE, || {
            let log = process.output();
            Ok(if log.contains(words) { Look::Ready(()) } else { Look::NotYet(log) })
        })
    }

    /// Stops whatever runs, agents first.
    ///
    /// # Errors
    /// Where a daemon does not end, or not with 0.
    pub fn stop_all(&mut self) -> Result<()> {
        for agent in self.agents.iter_mut().flatten() {
            expect_clean_end("rsip-client", agent.process.stop()?)?;
        }
        if let Some(gateway) = &mut self.gateway {
            expect_clean_end("rsipd", gateway.process.stop()?)?;
        }
        Ok(())
    }

    /// Compares the lab and the machine with what was there before the daemons.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with every difference.
    pub fn expect_as_before(&self) -> Result<()> {
        self.before.expect_again(&self.lab.all())
    }

    /// Leaves everything running when this value is dropped, for a person to look around.
    pub fn keep(&mut self) {
        self.lab.keep();
        self.agents.iter_mut().flatten().for_each(|agent| agent.process.keep());
        if let Some(gateway) = &mut self.gateway {
            gateway.process.keep();
        }
    }
}

/// Zero, or killed: only a test does that, and the daemon cannot help it.
fn expect_clean_end(what: &str, code: i32) -> Result<()> {
    const KILLED: i32 = 128 + 9;
    if code == 0 || code == KILLED {
        return Ok(());
    }
    Err(LabError::Unexpected {
        what: format!("end of {what}"),
        expected: "code 0".into(),
        seen: format!("code {code}"),
    })
}

fn not_started(what: &str) -> LabError {
    LabError::Unexpected {
        what: what.into(),
        expected: "that it was started".into(),
        seen: "that it was not".into(),
    }
}
