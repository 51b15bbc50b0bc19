//! SLP programs that follow RFC 2608 and share nothing with ours: a directory agent, an SLP daemon, a user agent; and
//! tshark's view of every SLP packet.
//!
//! The stand-in is a script (`tests/slp/`, Python's standard library alone). It writes whatever it receives into a
//! journal, with what the RFC has against it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::error::{IoContext, LabError, Result};
use super::exec;
use super::netns::Inside;
use super::process::Process;
use super::topology::Lab;
use super::wait::{self, Look};

mod discover;
mod judge;
pub use discover::{Found, discover, discovered, expect_none};
pub use judge::{Packet, Verdict, judge};

/// The stand-in, file by file.
const SCRIPTS: [(&str, &str); 6] = [
    ("stand_in.py", include_str!("../../slp/stand_in.py")),
    ("agent.py", include_str!("../../slp/agent.py")),
    ("registry.py", include_str!("../../slp/registry.py")),
    ("strings.py", include_str!("../../slp/strings.py")),
    ("wire.py", include_str!("../../slp/wire.py")),
    ("test_stand_in.py", include_str!("../../slp/test_stand_in.py")),
];
/// SLP's group (RFC 2608 section 6.1).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(239, 255, 255, 253);

/// Whose part it plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A directory agent: services register from anywhere.
    DirectoryAgent,
    /// An SLP daemon: programs of its own machine register at 127.0.0.1, and it answers for them.
    Daemon,
}

/// A running stand-in.
#[derive(Debug)]
pub struct StandIn {
    /// The script.
    pub process: Process,
    journal: PathBuf,
    control: PathBuf,
}

/// A message that the stand-in received, or bytes that it could not read.
#[derive(Clone, Debug, Deserialize)]
pub struct Received {
    /// Seconds on a clock that only goes forward.
    pub t: f64,
    /// "udp", "tcp", "multicast" or "broadcast".
    pub via: String,
    /// ADDRESS:PORT.
    pub from: String,
    /// "SrvReg", …; absent for what cannot be read.
    #[serde(default)]
    pub function: String,
    /// What RFC 2608 has against it.
    pub complaints: Vec<String>,
    /// What was answered.
    #[serde(default)]
    pub answer: Value,
    /// The message's own fields.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl Received {
    /// A field of the message as text; empty where it has none of that name.
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        self.fields.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// A number of the message; 0 where it has none of that name.
    #[must_use]
    pub fn number(&self, field: &str) -> u64 {
        self.fields.get(field).and_then(Value::as_u64).unwrap_or_default()
    }

    /// A flag of the message.
    #[must_use]
    pub fn flag(&self, field: &str) -> bool {
        self.fields.get(field).and_then(Value::as_bool).unwrap_or_default()
    }
}

/// A service that is registered at the stand-in.
#[derive(Clone, Debug, Deserialize)]
pub struct Registration {
    /// Its URL.
    pub url: String,
    /// Its service type, in lower case.
    #[serde(rename = "type")]
    pub service_type: String,
    /// Its scopes, as registered.
    pub scopes: String,
    /// Tag in lower case to values (strings in lower case); `null`: a keyword.
    pub attributes: Map<String, Value>,
    /// As registered, in seconds.
    pub lifetime: u64,
    /// What of it is left.
    pub left: u64,
}

impl Registration {
    /// An attribute's only number; `None` where it is something else.
    #[must_use]
    pub fn number(&self, tag: &str) -> Option<u64> {
        self.attributes.get(tag)?.get(0)?.as_u64()
    }
}

impl StandIn {
    /// Starts it in a namespace that has the address; `more` are further arguments of the script. It waits until it
    /// serves.
    ///
    /// # Errors
    /// Where it does not start, for example because something has the port.
    pub fn start(lab: &Lab, inside: &Inside, role: Role, address: Ipv4Addr, more: &[&str]) -> Result<Self> {
        let name = match role {
            Role::DirectoryAgent => "da",
            Role::Daemon => "slpd",
        };
        let file = |ending: &str| lab.folder().join(format!("{name}-{address}.{ending}"));
        let (journal, control) = (file("json"), file("socket"));
        fs::write(&journal, "").cannot(|| format!("write {}", journal.display()))?;
        let mut command = script(inside, &install(lab)?);
        command.args([name, "--address", &address.to_string()]);
        command.arg("--journal").arg(&journal).arg("--control").arg(&control).args(more);
        let mut process = Process::start(name, &mut command, &file("log"))?;
        process.wait_for_output("serving", exec::SHORT)?;
        Ok(Self { process, journal, control })
    }

    /// Everything that it has received, in order.
    ///
    /// # Errors
    /// Where the journal cannot be read.
    pub fn received(&self) -> Result<Vec<Received>> {
        let text = fs::read_to_string(&self.journal).cannot(|| "read the stand-in's journal".into())?;
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
        whole.lines().map(parse).collect()
    }

    /// The messages of one kind that it has received.
    ///
    /// # Errors
    /// As [`Self::received`].
    pub fn received_of(&self, function: &str) -> Result<Vec<Received>> {
        let all = self.received()?;
        Ok(all.into_iter().filter(|one| one.function == function).collect())
    }

    /// Fails unless it received messages and none of them was against the RFC.
    ///
    /// # Errors
    /// [`LabError::Unexpected`] with the complaints.
    pub fn expect_no_complaints(&self) -> Result<()> {
        let all = self.received()?;
        let bad: Vec<_> = all.iter().filter(|one| !one.complaints.is_empty()).collect();
        if !all.is_empty() && bad.is_empty() {
            return Ok(());
        }
        Err(LabError::Unexpected {
            what: "SLP messages at the stand-in".into(),
            expected: "some, all of them as RFC 2608 wants them".into(),
            seen: format!("{} messages, complaints about {bad:#?}", all.len()),
        })
    }

    /// What is registered.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn registrations(&self) -> Result<Vec<Registration>> {
        let answer = self.order(&json!({ "do": "registrations" }))?;
        serde_json::from_value(answer["registrations"].clone())
            .cannot(|| format!("read the registrations {answer}"))
    }

    /// Waits until what is registered is as wanted, and gives it.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with what is registered instead.
    pub fn registrations_become(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&[Registration]) -> bool,
    ) -> Result<Vec<Registration>> {
        wait::until(&format!("the stand-in to have {what}"), limit, || {
            let seen = self.registrations()?;
            Ok(if wanted(&seen) { Look::Ready(seen) } else { Look::NotYet(format!("{seen:?}")) })
        })
    }

    /// Waits until it has received messages of a kind that are as wanted; gives all of the kind.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with what was received instead.
    pub fn receives(
        &self,
        what: &str,
        function: &str,
        limit: Duration,
        wanted: impl Fn(&[Received]) -> bool,
    ) -> Result<Vec<Received>> {
        wait::until(&format!("the stand-in to receive {what}"), limit, || {
            let seen = self.received_of(function)?;
            Ok(if wanted(&seen) {
                Look::Ready(seen)
            } else {
                Look::NotYet(format!("{:?}", self.received()?))
            })
        })
    }

    /// An order of the test: `{"do": "set", "busy": 1}`, `{"do": "advertise"}`, …; see `obey` in `stand_in.py`.
    ///
    /// # Errors
    /// Where it does not know the order or is gone.
    pub fn order(&self, order: &Value) -> Result<Value> {
        let context = || format!("order the stand-in to {order}");
        let mut stream = UnixStream::connect(&self.control).cannot(context)?;
        stream.set_read_timeout(Some(exec::SHORT)).cannot(context)?;
        writeln!(stream, "{order}").cannot(context)?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).cannot(context)?;
        serde_json::from_str(&line).cannot(context)
    }
}

/// Asks as a user agent that is none of ours; `arguments` are those of the script's `ask`. Gives the answers.
///
/// # Errors
/// Where the script fails.
pub fn ask(lab: &Lab, inside: &Inside, arguments: &[&str]) -> Result<Vec<Received>> {
    let mut command = script(inside, &install(lab)?);
    let output = exec::run(command.arg("ask").args(arguments), exec::SHORT)?.success()?;
    // The first line is what was sent.
    output.lines().skip(1).map(|line| parse(&line.replacen('{', r#"{"t":0,"via":"answer","#, 1))).collect()
}

/// Lets the stand-in test itself.
///
/// # Errors
/// Where one of its tests fails.
pub fn self_test(folder: &Path) -> Result<String> {
    write_scripts(folder)?;
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-B", "-m", "unittest", "-v", "test_stand_in"]).current_dir(folder);
    let output = exec::run(&mut command, exec::SHORT)?;
    // unittest reports on standard error.
    let report = output.stderr.clone();
    output.success().map(|_| report)
}

fn install(lab: &Lab) -> Result<PathBuf> {
    let folder = lab.subfolder("slp")?;
    write_scripts(&folder)?;
    Ok(folder)
}

fn write_scripts(folder: &Path) -> Result<()> {
    for (name, text) in SCRIPTS {
        let path = folder.join(name);
        // A running one has read its own already.
        fs::write(&path, text).cannot(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn script(inside: &Inside, folder: &Path) -> Command {
    let mut command = inside.command("/usr/bin/python3");
    command.arg("-B").arg(folder.join("stand_in.py"));
    command
}

fn parse(line: &str) -> Result<Received> {
    serde_json::from_str(line).cannot(|| format!("read {line}"))
}
