//! tshark's RSIP dissector and our own reading of the same bytes, field by field.
//!
//! | module | what |
//! |---|---|
//! | [`tshark`], [`pdml`] | one run of tshark over many messages, and its output as [`decoded::Decoded`] |
//! | [`ours`], `words` | our reading in the same shape |
//! | [`slips`] | what may differ, each with its reason |
//! | [`verdict`] | what came of it |

pub mod decoded;
pub mod ours;
pub mod pdml;
pub mod slips;
pub mod tshark;
pub mod verdict;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rsip_proto::wire::{Message, Pretty};

use crate::judge::decoded::Decoded;
use crate::judge::verdict::{Complaint, Verdict};
use crate::packet::{CaptureError, Spoken, Transport};
use crate::recorder::Collection;
use crate::{forms, recorder, traffic};

/// A message that is told from others: who said it, over what, and its bytes.
type Key = (bool, Transport, Vec<u8>);

/// Judges everything in a folder of captures. tshark gets each distinct message once; `scratch` is where the file for it
/// is written.
///
/// # Errors
/// Where captures cannot be read or tshark fails. What is wrong with messages is told by the [`Verdict`].
pub fn folder(folder: &Path, scratch: &Path) -> Result<Verdict, CaptureError> {
    let mut court = Court::default();
    for (path, collection) in files(folder)? {
        court.verdict.files += 1;
        traffic::recorded(&path)?.into_iter().for_each(|spoken| court.hear(collection, spoken));
    }
    court.verdict.complaints.extend(problems(folder)?);
    court.judge(scratch)
}

/// What could not be recorded.
fn problems(folder: &Path) -> Result<Vec<Complaint>, CaptureError> {
    let failed = |source| CaptureError::File { what: format!("read {}", folder.display()), source };
    let mut problems = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.to_string_lossy().ends_with(recorder::PROBLEM) {
            let text = fs::read_to_string(&path).map_err(failed)?;
            problems.extend(text.lines().map(|line| Complaint::new(format!("not recorded: {line}"))));
        }
    }
    Ok(problems)
}

/// Judges these messages, said by gateway and host.
///
/// # Errors
/// As [`folder`].
pub fn messages(spoken: impl IntoIterator<Item = Spoken>, scratch: &Path) -> Result<Verdict, CaptureError> {
    let mut court = Court::default();
    spoken.into_iter().for_each(|spoken| court.hear(Collection::Spoken, spoken));
    court.judge(scratch)
}

/// The capture files in a folder, by name.
fn files(folder: &Path) -> Result<Vec<(PathBuf, Collection)>, CaptureError> {
    let failed = |source| CaptureError::File { what: format!("read {}", folder.display()), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.to_string_lossy().into_owned();
        let collection = Collection::ALL.into_iter().find(|it| name.ends_with(it.ending()));
        files.extend(collection.map(|collection| (path, collection)));
    }
    files.sort();
    Ok(files)
}

#[derive(Default)]
struct Court {
    heard: BTreeMap<Key, BTreeSet<Collection>>,
    verdict: Verdict,
}

impl Court {
    fn hear(&mut self, collection: Collection, spoken: Spoken) {
        self.verdict.recorded += 1;
        let key = (spoken.from_gateway(), spoken.transport, spoken.message);
        self.heard.entry(key).or_default().insert(collection);
    }

    fn judge(self, scratch: &Path) -> Result<Verdict, CaptureError> {
        let Self { heard, mut verdict } = self;
        let (keys, collections): (Vec<Key>, Vec<_>) = heard.into_iter().unzip();
        verdict.distinct = keys.len();
        let ours: Vec<Option<Message>> = keys
            .iter()
            .zip(&collections)
            .map(|(key, collections)| read(key, collections, &mut verdict))
            .collect();
        let probes = Probes::new()?;
        let all: Vec<Key> = keys.iter().cloned().chain(probes.messages()).collect();
        tshark::decode(&all, scratch, |place, seen| match ours.get(place) {
            Some(Some(message)) => {
                if let Err(complaint) = compare(message, seen, &mut verdict.slips) {
                    let bytes = all.get(place).map(|(_, _, bytes)| bytes.clone()).unwrap_or_default();
                    verdict.complaints.push(complaint.about(&bytes));
                }
            }
            Some(None) => {}
            None => verdict.complaints.extend(probes.compare(place - keys.len(), seen)),
        })?;
        Ok(verdict)
    }
}

/// Our own reading, and what can be said about a message without tshark.
fn read(key: &Key, collections: &BTreeSet<Collection>, verdict: &mut Verdict) -> Option<Message> {
    let (from_gateway, transport, bytes) = key;
    let mut complain = |what: String| verdict.complaints.push(Complaint::new(what).about(bytes));
    let message = match Message::parse(bytes) {
        Ok(message) => message,
        Err(error) => {
            complain(format!("we cannot read it ourselves: {error}"));
            return None;
        }
    };
    if message.message_type().is_response() != *from_gateway {
        complain(format!("a {} sent it", if *from_gateway { "gateway" } else { "host" }));
    }
    if *transport == Transport::Udp && message.counter.is_none() && collections.contains(&Collection::Spoken)
    {
        complain("no Message Counter over UDP (RFC 3103 section 8.11)".to_owned());
    }
    for collection in collections {
        verdict.count(*collection, &message);
    }
    verdict.forms.extend(forms::of(&message));
    Some(message)
}

/// tshark's reading against ours, slips allowed for; counts those that were seen.
fn compare(
    message: &Message,
    seen: Option<Decoded>,
    slips: &mut BTreeMap<&'static str, usize>,
) -> Result<(), Complaint> {
    let Some(seen) = seen else { return Err(Complaint::new("tshark does not take it for RSIP")) };
    if !seen.complaints.is_empty() {
        return Err(Complaint::new(format!("tshark complains: {}", seen.complaints.join("; "))));
    }
    let (expected, applied) = with_slips(ours::rendered(message));
    let (seen, expected) = (seen.without_long_lines(), expected.without_long_lines());
    if seen != expected {
        return Err(Complaint::new(format!("tshark sees\n{seen}  where we see\n{expected}")));
    }
    applied.into_iter().for_each(|slip| *slips.entry(slip).or_default() += 1);
    Ok(())
}

/// A reading as the dissector shows it, and the slips that make the difference, once for each parameter.
fn with_slips(mut decoded: Decoded) -> (Decoded, Vec<&'static str>) {
    let mut applied = Vec::new();
    for parameter in &mut decoded.parameters {
        applied.extend(slips::OURS.iter().filter(|slip| (slip.apply)(parameter)).map(|slip| slip.name));
    }
    (decoded, applied)
}

/// Messages that show every known slip, so that one that is no more is noticed.
struct Probes {
    ours: Vec<(&'static slips::Slip, Message, Vec<u8>)>,
    foreign: Vec<(&'static slips::Foreign, Vec<u8>)>,
}

impl Probes {
    fn new() -> Result<Self, CaptureError> {
        let mut ours = Vec::new();
        for slip in slips::OURS {
            let bytes = from_hex(slip.probe);
            let message = Message::parse(&bytes)
                .map_err(|error| CaptureError::Tshark(format!("the message for {:?}: {error}", slip.name)))?;
            ours.push((slip, message, bytes));
        }
        let foreign = slips::FOREIGN.iter().map(|slip| (slip, from_hex(slip.probe))).collect();
        Ok(Self { ours, foreign })
    }

    fn messages(&self) -> impl Iterator<Item = Key> + '_ {
        let ours = self.ours.iter().map(|(_, _, bytes)| bytes);
        ours.chain(self.foreign.iter().map(|(_, bytes)| bytes)).map(|bytes| {
            let response = bytes.get(1).is_some_and(|number| number % 2 == 1);
            (response, Transport::Udp, bytes.clone())
        })
    }

    fn compare(&self, place: usize, seen: Option<Decoded>) -> Option<Complaint> {
        if let Some((slip, message, bytes)) = self.ours.get(place) {
            let mut slips = BTreeMap::new();
            let complaint = match compare(message, seen, &mut slips) {
                Ok(()) if slips.contains_key(slip.name) => return None,
                Ok(()) => Complaint::new("its own message does not show it"),
                Err(complaint) => complaint,
            };
            return Some(complaint.about(bytes).of_slip(slip.name));
        }
        let (slip, bytes) = self.foreign.get(place - self.ours.len())?;
        let seen = seen.unwrap_or_default();
        let shown = seen.parameters.get(slip.place).is_some_and(|parameter| slip.is_shown_by(parameter));
        if shown && slip.malformed != seen.complaints.is_empty() {
            return None;
        }
        let what = format!("tshark does not show it as it is known\n{seen}");
        Some(Complaint::new(what).about(bytes).of_slip(slip.name))
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    text.split_whitespace().filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

/// The message on one line, then its bytes.
fn described(bytes: &[u8]) -> String {
    let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}\n    {}", Pretty(bytes), hex.join(" "))
}

#[cfg(test)]
mod tests;
