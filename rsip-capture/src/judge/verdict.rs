//! What the judge found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use rsip_proto::wire::{Message, MessageType};

use crate::forms;
use crate::judge::{described, slips};
use crate::recorder::Collection;

/// Complaints that are printed in full; more of the same kind say little.
const SHOWN: usize = 20;

/// What the judge found.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Capture files read.
    pub files: usize,
    /// Messages in them.
    pub recorded: usize,
    /// Messages that tshark was given.
    pub distinct: usize,
    /// How many distinct messages of each type gateway and host said, and tests of the codec wrote.
    pub types: BTreeMap<MessageType, [usize; 2]>,
    /// Forms of parameters that were seen.
    pub forms: BTreeSet<String>,
    /// How many parameters showed each known slip.
    pub slips: BTreeMap<&'static str, usize>,
    /// What is wrong.
    pub complaints: Vec<Complaint>,
}

/// Something that is wrong with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint(String);

impl Complaint {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }

    pub(super) fn about(self, bytes: &[u8]) -> Self {
        Self(format!("{}\n    {}", described(bytes), self.0))
    }

    pub(super) fn of_slip(self, name: &str) -> Self {
        Self(format!("the known slip \"{name}\": {}", self.0))
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Verdict {
    pub(super) fn count(&mut self, collection: Collection, message: &Message) {
        let [spoken, written] = self.types.entry(message.message_type()).or_default();
        match collection {
            Collection::Spoken => *spoken += 1,
            Collection::Written => *written += 1,
        }
    }

    /// Whether tshark and we agree on every message.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.complaints.is_empty()
    }

    /// How many distinct messages of a type gateway and host said.
    #[must_use]
    pub fn spoken(&self, message_type: MessageType) -> usize {
        self.types.get(&message_type).map_or(0, |[spoken, _]| *spoken)
    }

    /// Message types that neither gateway nor host ever said.
    #[must_use]
    pub fn unspoken(&self) -> Vec<MessageType> {
        MessageType::ALL.iter().copied().filter(|it| self.spoken(*it) == 0).collect()
    }

    /// Forms of parameters that no message had.
    #[must_use]
    pub fn unseen(&self) -> Vec<String> {
        forms::all().into_iter().filter(|form| !self.forms.contains(form)).collect()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} messages in {} capture files, {} of them distinct",
            self.recorded, self.files, self.distinct
        )?;
        writeln!(f, "    {:<24} {:>10} {:>10}", "message", "said", "written")?;
        for message_type in MessageType::ALL {
            let [spoken, written] = self.types.get(message_type).copied().unwrap_or_default();
            writeln!(f, "    {:<24} {spoken:>10} {written:>10}", message_type.name())?;
        }
        let all = forms::all().len();
        writeln!(f, "    forms of parameters: {} of {all}", all - self.unseen().len())?;
        for slip in slips::OURS {
            let count = self.slips.get(slip.name).copied().unwrap_or_default();
            writeln!(f, "    known slip of the dissector, seen in {count} parameters: {}", slip.name)?;
        }
        for slip in slips::FOREIGN {
            writeln!(f, "    known slip of the dissector, in what we never send: {}", slip.name)?;
        }
        for complaint in self.complaints.iter().take(SHOWN) {
            writeln!(f, "  {complaint}")?;
        }
        if self.complaints.len() > SHOWN {
            writeln!(f, "  and {} more", self.complaints.len() - SHOWN)?;
        }
        Ok(())
    }
}
