//! The capture files of a process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};

use crate::packet::{CaptureError, Spoken, Transport};

/// The environment variable that names the folder of captures. Unset or empty: nothing is recorded.
pub const CAPTURE_DIR: &str = "RSIP_CAPTURE_DIR";

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Collection {
    /// Messages that a gateway or a host said.
    Spoken,
    /// Messages that tests of the codec wrote, to have every form there is.
    Written,
}

impl Collection {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Spoken, Self::Written];

    /// The end of the names of its files.
    #[must_use]
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Spoken => ".spoken.pcap",
            Self::Written => ".written.pcap",
        }
    }
}

/// Messages that a process writes before it becomes choosy, see [`record`].
const IN_FULL: usize = 10_000;

/// Writes a message to this process's capture file, if [`CAPTURE_DIR`] names a folder.
///
/// What the process has recorded before, same bytes in the same direction over the same transport, is not written again.
/// After ten thousand messages neither is what differs from an earlier one only in its Client ID, Bind ID or Message
/// Counter, where these are ordinary numbers: ten thousand seeded runs of one dialogue have millions of those, and say
/// nothing new in them.
///
/// # Errors
/// Where the file cannot be written, or the message fits into no packet.
pub fn record(collection: Collection, spoken: &Spoken) -> Result<(), CaptureError> {
    static RECORDER: LazyLock<Option<Mutex<Recorder>>> = LazyLock::new(|| {
        let folder = std::env::var_os(CAPTURE_DIR).filter(|folder| !folder.is_empty())?;
        Some(Mutex::new(Recorder::new(Path::new(&folder))))
    });
    match &*RECORDER {
        Some(recorder) => recorder.lock().unwrap_or_else(PoisonError::into_inner).record(collection, spoken),
        None => Ok(()),
    }
}

/// The end of the names of files that say why something is missing in a capture.
pub const PROBLEM: &str = ".problem";

/// Leaves word for the judge that something could not be recorded; for places that cannot fail themselves.
pub fn report_problem(what: &str) {
    let Some(folder) = std::env::var_os(CAPTURE_DIR) else { return };
    let path = Path::new(&folder).join(format!("{}{PROBLEM}", std::process::id()));
    let written =
        File::options().create(true).append(true).open(&path).and_then(|mut file| writeln!(file, "{what}"));
    if let Err(error) = written {
        eprintln!("{what}\ncannot write {}: {error}", path.display());
    }
}

/// Capture files that grow as things are said.
#[derive(Debug)]
pub struct Recorder {
    /// Folder, and how this process's files begin.
    path: PathBuf,
    files: BTreeMap<Collection, PcapWriter<File>>,
    seen: HashSet<(bool, Transport, Vec<u8>)>,
    written: usize,
    /// How far each TCP stream has come.
    sequences: HashMap<(SocketAddrV4, SocketAddrV4), u32>,
}

impl Recorder {
    /// Files in `folder`, named for this program and process. None is made before there is something to write.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        let program = std::env::current_exe().ok();
        let program = program.as_deref().and_then(Path::file_stem).map(|name| name.to_string_lossy());
        let name = format!("{}-{}", program.as_deref().unwrap_or("unknown"), std::process::id());
        Self {
            path: folder.join(name),
            files: BTreeMap::new(),
            seen: HashSet::new(),
            written: 0,
            sequences: HashMap::new(),
        }
    }

    /// Writes a message, unless it was written before.
    ///
    /// # Errors
    /// As [`record`].
    pub fn record(&mut self, collection: Collection, spoken: &Spoken) -> Result<(), CaptureError> {
        let key = |message| (spoken.from_gateway(), spoken.transport, message);
        let known = if self.written < IN_FULL {
            // Noted as well, so that it need not be written once more later on.
            self.seen.insert(key(without_ordinary_numbers(&spoken.message)));
            !self.seen.insert(key(spoken.message.clone()))
        } else {
            !self.seen.insert(key(without_ordinary_numbers(&spoken.message)))
        };
        if known {
            return Ok(());
        }
        self.written += 1;
        let sequence = self.sequences.entry((spoken.from, spoken.to)).or_insert(1);
        let packet = spoken.to_packet(*sequence)?;
        *sequence = sequence.wrapping_add(u32::try_from(spoken.message.len()).unwrap_or(u32::MAX));
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let path = self.file_name(collection);
        let failed = |error: pcap_file::PcapError| file_error(&path, "write", error);
        // Every packet at once: a test that crashes leaves what was said until then.
        let written = self.file(collection)?.write_packet(&PcapPacket::new(time, length, &packet));
        written.map(drop).map_err(failed)
    }

    fn file_name(&self, collection: Collection) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(collection.ending());
        name.into()
    }

    fn file(&mut self, collection: Collection) -> Result<&mut PcapWriter<File>, CaptureError> {
        let path = self.file_name(collection);
        match self.files.entry(collection) {
            std::collections::btree_map::Entry::Occupied(file) => Ok(file.into_mut()),
            std::collections::btree_map::Entry::Vacant(place) => Ok(place.insert(create(&path)?)),
        }
    }
}

/// The message with its IDs and counters set to one of a few numbers: what is seldom, and what others may read as
/// negative, stays apart. Bytes that are no message stay as they are.
fn without_ordinary_numbers(message: &[u8]) -> Vec<u8> {
    const CLIENT_ID: u8 = 4;
    const BIND_ID: u8 = 5;
    const MESSAGE_COUNTER: u8 = 11;
    /// No message of ours is marked by this as its first byte, so a masked one equals no other.
    const MARK: u8 = 0;
    let mut masked = message.to_vec();
    if let Some(version) = masked.first_mut() {
        *version = MARK;
    }
    let mut rest = masked.get_mut(4..).unwrap_or_default();
    while let Some((&mut [number, high, low], after)) = rest.split_first_chunk_mut() {
        let length = usize::from(u16::from_be_bytes([high, low]));
        let Some((value, next)) = after.split_at_mut_checked(length) else { return message.to_vec() };
        if let (CLIENT_ID | BIND_ID | MESSAGE_COUNTER, Ok(value)) = (number, <&mut [u8; 4]>::try_from(value))
        {
            *value = match u32::from_be_bytes(*value) {
                seldom @ (0 | 1 | u32::MAX) => seldom,
                low if low < 1 << 31 => 2,
                _ => 1 << 31,
            }
            .to_be_bytes();
        }
        rest = next;
    }
    masked
}

/// A capture file of IPv4 packets without a link header.
pub(crate) fn create(path: &Path) -> Result<PcapWriter<File>, CaptureError> {
    let error = |source| CaptureError::File { what: format!("make {}", path.display()), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(error)?;
    }
    let file = File::create(path).map_err(error)?;
    let header = PcapHeader { datalink: DataLink::IPV4, ..PcapHeader::default() };
    PcapWriter::with_header(file, header).map_err(|error| file_error(path, "write", error))
}

pub(crate) fn file_error(path: &Path, verb: &str, error: pcap_file::PcapError) -> CaptureError {
    match error {
        pcap_file::PcapError::IoError(source) => {
            CaptureError::File { what: format!("{verb} {}", path.display()), source }
        }
        other => CaptureError::NotACapture { file: path.display().to_string(), reason: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::RSIP_PORT;
    use crate::traffic;

    fn spoken(from: u16, transport: Transport, message: &[u8]) -> Spoken {
        Spoken {
            from: SocketAddrV4::new([10, 0, 0, 7].into(), from),
            to: SocketAddrV4::new([10, 0, 0, 1].into(), 5000),
            transport,
            message: message.to_vec(),
        }
    }

    #[test]
    fn only_ordinary_numbers_are_left_out_of_account() {
        let free = |client: u32, bind: u32, counter: u32| {
            let number = |kind: u8, value: u32| [&[kind, 0, 4][..], &value.to_be_bytes()].concat();
            without_ordinary_numbers(
                &[vec![1, 12, 0, 25], number(4, client), number(5, bind), number(11, counter)].concat(),
            )
        };
        assert_eq!(free(77, 8, 9), free(78, 900, 1000));
        assert_eq!(free(1 << 31, 8, 9), free(u32::MAX - 1, 8, 9));
        for other in [free(1 << 31, 8, 9), free(77, 1, 9), free(77, 8, 0), free(77, 8, u32::MAX)] {
            assert_ne!(other, free(77, 8, 9));
        }
        // A lease time stays, and so does what cannot be taken apart.
        let lease = |seconds: u8| without_ordinary_numbers(&[1, 10, 0, 11, 3, 0, 4, 0, 0, 0, seconds]);
        assert_ne!(lease(5), lease(6));
        assert_eq!(without_ordinary_numbers(&[1, 2, 0, 9, 4, 0, 9, 1]), [1, 2, 0, 9, 4, 0, 9, 1]);
    }

    #[test]
    fn what_was_recorded_stands_in_the_file_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::new(folder.path());
        let first = spoken(RSIP_PORT, Transport::Tcp, &[1, 2, 0, 4]);
        let elsewhere = Spoken { to: SocketAddrV4::new([10, 0, 0, 9].into(), 5000), ..first.clone() };
        let back = spoken(40_000, Transport::Tcp, &[1, 2, 0, 4]);
        let datagram = spoken(RSIP_PORT, Transport::Udp, &[1, 2, 0, 4]);
        for it in [&first, &first, &elsewhere, &back, &datagram] {
            recorder.record(Collection::Spoken, it).unwrap();
        }
        let path = recorder.file_name(Collection::Spoken);
        drop(recorder);
        assert_eq!(traffic::recorded(&path).unwrap(), [first, back, datagram]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no file without a message");
    }
}
