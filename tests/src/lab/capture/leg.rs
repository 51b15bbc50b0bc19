//! What gateway and hosts of a lab say to each other, recorded beside every test.

use std::net::SocketAddrV4;
use std::path::PathBuf;

use rsip_capture::{CAPTURE_DIR, Collection, RSIP_PORT, traffic};

use super::{Recording, unreadable};
use crate::lab::error::Result;
use crate::lab::topology::{INTERNAL_IF, Lab};

/// The internal leg of a lab while it is recorded. At the end all messages of our programs go into this process's capture
/// file, from where `rsip-judge` takes them.
#[derive(Debug)]
pub struct RsipLeg {
    recording: Option<Recording>,
    strangers: bool,
}

impl RsipLeg {
    /// Records from now on, if [`CAPTURE_DIR`] is set: `cargo xtask test` does that.
    ///
    /// # Errors
    /// Where tcpdump does not start.
    pub fn start(lab: &Lab) -> Result<Option<Self>> {
        if std::env::var_os(CAPTURE_DIR).is_none_or(|folder| folder.is_empty()) {
            return Ok(None);
        }
        let filter = format!("port {RSIP_PORT}");
        let recording = Recording::start_as(lab, &lab.gateway, INTERNAL_IF, "rsip-leg", &filter)?;
        Ok(Some(Self { recording: Some(recording), strangers: false }))
    }

    /// From now on not all that hosts send to the RSIP port is said by our programs: none of it counts.
    pub const fn has_strangers(&mut self) {
        self.strangers = true;
    }

    fn harvest(&mut self) -> Result<()> {
        let Some(recording) = self.recording.take() else { return Ok(()) };
        let capture = recording.stop()?;
        let wanted = |from: SocketAddrV4, _| from.port() == RSIP_PORT || !self.strangers;
        let heard = traffic::on_the_cable(&capture.file, wanted).map_err(|error| unreadable(&error))?;
        // Whom a stranger cuts short, it cuts short. And what a cable lost (tests cut cables and kill daemons) and nobody was
        // there to send again, nobody said wrong; up to there it is judged.
        let torn: Vec<_> = heard.torn.iter().filter(|torn| torn.after_gap == 0).collect();
        if !torn.is_empty() && !self.strangers {
            // The lab's folder goes with the lab.
            let kept = std::env::var_os(CAPTURE_DIR).map(|folder| PathBuf::from(folder).join("torn.pcap"));
            let kept = kept.filter(|kept| std::fs::copy(&capture.file, kept).is_ok());
            let test = std::thread::current().name().unwrap_or("no test").to_owned();
            return Err(unreadable(&format!("torn streams {torn:?} in {test}, recording {kept:?}")));
        }
        heard
            .messages
            .iter()
            .try_for_each(|spoken| rsip_capture::record(Collection::Spoken, spoken))
            .map_err(|error| unreadable(&error))
    }
}

impl Drop for RsipLeg {
    fn drop(&mut self) {
        if let Err(error) = self.harvest() {
            // Not lost: the judge fails on it.
            rsip_capture::recorder::report_problem(&error.to_string());
        }
    }
}
