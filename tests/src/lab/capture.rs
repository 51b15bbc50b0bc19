//! Packets of one leg, recorded by tcpdump, read and judged by tshark.

mod leg;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use rsip_capture::judge::{self, verdict::Verdict};
use rsip_capture::{Spoken, traffic};

use super::error::{LabError, Result};
use super::exec;
use super::netns::Inside;
use super::process::Process;
use super::topology::Lab;

pub use leg::RsipLeg;

/// tshark starts slowly on a busy machine.
const DECODE: Duration = Duration::from_secs(60);

/// A running recording.
#[derive(Debug)]
pub struct Recording {
    process: Process,
    file: PathBuf,
}

impl Recording {
    /// Records every packet of an interface from now on.
    ///
    /// # Errors
    /// Where tcpdump does not start.
    pub fn start(lab: &Lab, netns: &Inside, interface: &str) -> Result<Self> {
        Self::start_as(lab, netns, interface, &format!("{}-{interface}", netns.name()), "")
    }

    /// Records what passes a filter (as of pcap-filter(7)), in a file of this name.
    fn start_as(lab: &Lab, netns: &Inside, interface: &str, name: &str, filter: &str) -> Result<Self> {
        let file = lab.folder().join(format!("{name}.pcap"));
        let log = lab.folder().join(format!("tcpdump-{name}.log"));
        let mut command = netns.command("tcpdump");
        // Not promiscuous: that would be a change of the lab.
        command
            .args(["-i", interface, "-p", "-U", "-n", "-s", "0", "--immediate-mode", "-Z", "root", "-w"])
            .arg(&file)
            .arg(filter);
        let mut process = Process::start("tcpdump", &mut command, &log)?;
        process.wait_for_output("listening on", exec::SHORT)?;
        Ok(Self { process, file })
    }

    /// Ends the recording.
    ///
    /// # Errors
    /// Where tcpdump does not end.
    pub fn stop(mut self) -> Result<Capture> {
        self.process.signal(Signal::SIGINT)?;
        self.process.wait(exec::SHORT)?;
        Ok(Capture { file: self.file.clone() })
    }
}

/// Recorded packets.
#[derive(Clone, Debug)]
pub struct Capture {
    file: PathBuf,
}

impl Capture {
    /// Fields of the packets that match a display filter, one row per packet.
    ///
    /// # Errors
    /// Where tshark does not know the filter or a field.
    pub fn fields(&self, filter: &str, fields: &[&str]) -> Result<Vec<Vec<String>>> {
        decode(&self.file, filter, fields)
    }

    /// Every RSIP message, over UDP and TCP.
    ///
    /// # Errors
    /// Where the file cannot be read, or a stream ends in the middle of a message.
    pub fn rsip(&self) -> Result<Vec<Spoken>> {
        let heard = traffic::on_the_cable(&self.file, |_, _| true).map_err(|error| unreadable(&error))?;
        if heard.torn.is_empty() { Ok(heard.messages) } else { Err(unreadable(&format!("{:?}", heard.torn))) }
    }

    /// Every RSIP message, judged by tshark; fails unless there were some, and it sees in each what we see.
    ///
    /// # Errors
    /// [`LabError::Unexpected`], or where tshark fails.
    pub fn rsip_is_clean(&self) -> Result<Verdict> {
        let scratch = self.file.with_extension("messages.pcap");
        let verdict = judge::messages(self.rsip()?, &scratch).map_err(|error| unreadable(&error))?;
        if verdict.distinct > 0 && verdict.is_clean() {
            return Ok(verdict);
        }
        Err(LabError::Unexpected {
            what: "RSIP messages on the wire, as tshark sees them".into(),
            expected: "some, all of them well formed".into(),
            seen: verdict.to_string(),
        })
    }
}

fn unreadable(error: &dyn std::fmt::Display) -> LabError {
    LabError::Unexpected {
        what: "the recording of a cable".into(),
        expected: "whole messages".into(),
        seen: error.to_string(),
    }
}

fn decode(file: &Path, filter: &str, fields: &[&str]) -> Result<Vec<Vec<String>>> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args([
        "-n",
        "-o",
        "ip.check_checksum:TRUE",
        "-Y",
        filter,
        "-T",
        "fields",
        "-E",
        "separator=/t",
    ]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = exec::run(&mut command, DECODE)?.success()?;
    Ok(output.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect())
}
