//! A soak: binds of every kind at full speed, again and again, and what of the daemons grows with them.
//!
//! Binds go in rounds. After each round the host comes to rest (what was asked of the gateway has been given back), and
//! everything that could grow is measured; so what is compared is always the same state, and what is left over in it is a leak.
//! What counts is the trend after the warm-up ([`trend`]), not a figure.

mod bpf;
mod measure;
pub mod trend;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use self::measure::Daemons;
pub use self::measure::Sample;
use self::trend::Course;
use super::error::{LabError, Result};
use super::system::{Options, System};
use super::topology::{Host, Lab, PUBLIC};
use super::wait::{self, Look};
use super::{agent, binaries, exec, gateway, process::Process};

/// Ports that host-a keeps: a bind of them needs no question.
pub const KEPT: (u16, u16) = (7000, 7063);
/// Ports that host-b keeps: the gateway refuses them to host-a.
pub const TAKEN: (u16, u16) = (8000, 8003);
/// Ports that a rule lets pass without a lease.
pub const IGNORED: (u16, u16) = (9000, 9015);
/// Ports that a rule forbids.
pub const FORBIDDEN: (u16, u16) = (9100, 9103);
/// Ports that are asked of the gateway when they are bound, and given back.
pub const NEW: (u16, u16) = (10_000, 29_999);
/// Where the internet host listens.
pub const SERVER: u16 = 9500;

/// The gateway has ports enough for a round.
const GATEWAY: &str = "LISTEN_RANGE = \"1-32767\"\nPORT_RANGE = \"40000-49999\"\nMAX_PORTS_PER_CLIENT = 30000\n\
                       REST_TIME = 0";
/// A round takes so long at most.
const ROUND: Duration = Duration::from_secs(600);
/// The host comes to rest within this time.
const REST: Duration = Duration::from_secs(120);
/// Between two looks at the daemons while binds go on.
const GLANCE: Duration = Duration::from_millis(200);

/// How long a soak goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// So many binds.
    Binds(u64),
    /// As many as there are in this time.
    Time(Duration),
}

/// Binds of one round where the time counts.
const BINDS_OF_A_ROUND: u64 = 25_000;
/// As few rounds as show a trend, and as many as are worth their rest.
const ROUNDS: std::ops::RangeInclusive<u64> = 8..=40;

impl Extent {
    /// The next round's binds, or none; `done` in so many rounds.
    fn next(self, done: u64, rounds: u64, since: Instant) -> Option<u64> {
        match self {
            Self::Binds(all) => {
                let round = all.div_ceil((all / BINDS_OF_A_ROUND).clamp(*ROUNDS.start(), *ROUNDS.end()));
                (done < all).then(|| round.min(all - done))
            }
            Self::Time(time) => {
                (since.elapsed() < time || rounds < *ROUNDS.start()).then_some(BINDS_OF_A_ROUND)
            }
        }
    }
}

/// What the binder says of its binds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many there were of each kind.
    pub binds: BTreeMap<String, u64>,
    /// Those that ended in another way than they should: kind, outcome, number.
    pub surprises: BTreeMap<String, u64>,
}

impl Tally {
    /// All binds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.binds.values().sum()
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        for (mine, others) in [(&mut self.binds, &other.binds), (&mut self.surprises, &other.surprises)] {
            for (kind, count) in others {
                *mine.entry(kind.clone()).or_default() += count;
            }
        }
    }
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Report {
    /// The binds.
    pub tally: Tally,
    /// How long they took, the rests left out.
    pub busy: Duration,
    /// The course of everything that was measured.
    pub courses: Vec<Course>,
}

impl Report {
    /// What is not as it should be; nothing: all is well.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let surprises = self.tally.surprises.iter().map(|(what, count)| format!("{count} times {what}"));
        surprises.chain(self.courses.iter().filter_map(Course::complaint)).collect()
    }

    /// As a table for people.
    #[must_use]
    pub fn table(&self) -> String {
        let seconds = self.busy.as_secs_f64();
        let mut text = format!("{} binds in {seconds:.0} s of work:", self.tally.total());
        for (kind, count) in &self.tally.binds {
            text += &format!(" {kind} {count},");
        }
        text.truncate(text.len() - 1);
        text.push('\n');
        text + &trend::table(&self.courses)
    }
}

/// Soaks a gateway and an agent in a lab that has nothing else. `tell` hears after each round how far it is.
///
/// # Errors
/// Where something does not start, a round does not end, or the host does not come to rest.
pub fn run(lab: Lab, extent: Extent, mut tell: impl FnMut(&Tally, &Sample)) -> Result<Report> {
    let mut system = System::in_lab(lab, Options { agent: Vec::new(), gateway: GATEWAY.into() })?;
    // What a start has taken and given back would hide a leak until it is used up: it goes back to the system at once.
    system.set_environment(
        "GLIBC_TUNABLES",
        "glibc.malloc.mmap_threshold=16384:glibc.malloc.trim_threshold=4096:glibc.malloc.top_pad=4096",
    );
    system.start_gateway()?;
    for host in Host::ALL {
        system.start_agent(host)?;
    }
    let lab = &system.lab;
    let mut command = lab.internet.command(binaries::own("soak")?);
    command.args(["serve", &SERVER.to_string()]);
    let mut server = Process::start("soak serve", &mut command, &lab.folder().join("soak-serve.log"))?;
    server.wait_for_output("listening", exec::SHORT)?;
    for (host, command) in [
        (Host::A, listen(KEPT)),
        (Host::B, listen(TAKEN)),
        (Host::A, rule("ignore", IGNORED)),
        (Host::A, rule("deny", FORBIDDEN)),
    ] {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        agent::client(lab, host, &words)?.success()?;
    }
    let daemons =
        Daemons { agent: system.agent(Host::A)?.process.pid(), gateway: system.gateway()?.process.pid() };
    let lab = &system.lab;
    let (mut tally, mut busy, mut rounds) = (Tally::default(), Duration::ZERO, 0);
    let mut samples = vec![daemons.sample(lab, 0)?];
    let mut peak = Sample::default();
    let since = Instant::now();
    while let Some(binds) = extent.next(tally.total(), rounds, since) {
        let start = Instant::now();
        let done = round(&system, binds, rounds, || {
            peak.raise(&daemons.glance()?);
            Ok(())
        })?;
        busy += start.elapsed();
        rounds += 1;
        tally.add(&done);
        comes_to_rest(&system)?;
        let sample = daemons.sample(lab, tally.total())?;
        tell(&tally, &sample);
        samples.push(sample);
    }
    drop(server);
    system.finish()?;
    Ok(Report { tally, busy, courses: measure::courses(&samples, &peak) })
}

fn listen((first, last): (u16, u16)) -> Vec<String> {
    std::iter::once("listen".to_owned()).chain((first..=last).map(|port| port.to_string())).collect()
}

fn rule(action: &str, (first, last): (u16, u16)) -> Vec<String> {
    vec!["rules".to_owned(), "add".to_owned(), format!("{action} {first}-{last}")]
}

/// One round of the binder, with `glance` again and again while it goes on.
fn round(system: &System, binds: u64, number: u64, mut glance: impl FnMut() -> Result<()>) -> Result<Tally> {
    let lab = &system.lab;
    let mut command = lab.host(Host::A).command(binaries::own("soak")?);
    command.args(["bind", &binds.to_string(), &number.to_string()]);
    command.args([Host::A.address().to_string(), PUBLIC.to_string()]);
    command.arg(super::topology::INTERNET.to_string());
    let mut binder = Process::start("soak", &mut command, &lab.folder().join("binder.log"))?;
    let limit = wait::limit(ROUND);
    let start = Instant::now();
    while binder.running()? {
        if start.elapsed() > limit {
            return Err(LabError::Timeout {
                what: "the binder".into(),
                waited: limit,
                last: binder.output(),
            });
        }
        glance()?;
        std::thread::sleep(GLANCE);
    }
    let (code, output) = (binder.wait(exec::SHORT)?, binder.output());
    let unexpected = |expected: String| LabError::Unexpected {
        what: "the binder's end".into(),
        expected,
        seen: format!("code {code}: {output}"),
    };
    if code != 0 {
        return Err(unexpected("code 0".into()));
    }
    serde_json::from_str(output.trim()).map_err(|error| unexpected(error.to_string()))
}

/// Waits until everything that the binds asked of the gateway has been given back, and nobody waits.
fn comes_to_rest(system: &System) -> Result<()> {
    let lab = &system.lab;
    wait::until("the host to come to rest", REST, || {
        let status = agent::status(lab, Host::A)?;
        let left: Vec<_> = status.leases.iter().filter(|lease| lease.kind == "listen").collect();
        if !left.is_empty() || !status.waiting.ports.is_empty() {
            let (leases, waiting) = (left.len(), &status.waiting.ports);
            return Ok(Look::NotYet(format!("{leases} leases of programs, {waiting:?} waited for")));
        }
        let state = gateway::state(lab)?;
        let kept = state.listening(Host::A).len();
        let wanted = usize::from(KEPT.1 - KEPT.0) + 1;
        Ok(if kept == wanted && status.ephemeral.blocks == 1 {
            Look::Ready(())
        } else {
            Look::NotYet(format!("{kept} ports at the gateway, {} blocks", status.ephemeral.blocks))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divides_binds_into_rounds() {
        let now = Instant::now();
        for all in [1, 7, 20_000, 1_000_000, 3_000_000] {
            let (mut done, mut rounds) = (0, 0);
            while let Some(next) = Extent::Binds(all).next(done, rounds, now) {
                assert!(next > 0, "{all}");
                (done, rounds) = (done + next, rounds + 1);
            }
            assert_eq!(done, all);
            assert!(rounds <= *ROUNDS.end() && (all < 100 || rounds >= *ROUNDS.start()), "{all}: {rounds}");
        }
    }

    #[test]
    fn goes_on_for_a_time_and_long_enough_for_a_trend() {
        let over = Extent::Time(Duration::ZERO);
        assert_eq!(over.next(0, 0, Instant::now()), Some(BINDS_OF_A_ROUND));
        assert_eq!(over.next(200_000, 8, Instant::now()), None);
        assert!(Extent::Time(Duration::from_secs(3600)).next(200_000, 8, Instant::now()).is_some());
    }

    #[test]
    fn adds_up() {
        let mut sum = Tally::default();
        let one: Tally =
            serde_json::from_str(r#"{"binds":{"kept":3,"new":1},"surprises":{"new: EIO":1}}"#).unwrap();
        sum.add(&one);
        sum.add(&one);
        assert_eq!((sum.total(), sum.surprises["new: EIO"]), (8, 2));
        let report = Report { tally: sum, busy: Duration::from_secs(1), courses: Vec::new() };
        assert_eq!(report.complaints(), ["2 times new: EIO"]);
        assert!(report.table().starts_with("8 binds in 1 s of work: kept 6, new 2\n"), "{}", report.table());
    }
}
