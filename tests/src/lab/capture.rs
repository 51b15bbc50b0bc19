//! Packets of one leg, recorded by tcpdump and judged by tshark.
//!
//! tshark decodes RSIP over TCP one segment at a time, and knows nothing of the overall length. [`Capture::rsip`]
//! therefore puts each TCP stream together, cuts it into messages by their overall length (RFC 3103 section 8.2), and
//! gives tshark each message as a datagram of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::error::{IoContext, LabError, Result};
use super::exec;
use super::netns::Inside;
use super::process::Process;
use super::topology::Lab;

/// tshark starts slowly on a busy machine.
const DECODE: Duration = Duration::from_secs(60);
/// The port of RSIP (RFC 3103 section 5).
const RSIP: u16 = 4555;

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
        let file = lab.folder().join(format!("{}-{interface}.pcap", netns.name()));
        let log = lab.folder().join(format!("tcpdump-{interface}.log"));
        let mut command = netns.command("tcpdump");
        command
            .args(["-i", interface, "-U", "-n", "-s", "0", "--immediate-mode", "-Z", "root", "-w"])
            .arg(&file);
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

/// What tshark thinks of the RSIP messages in a capture.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Message types, in the order of the capture, with how often each was seen.
    pub types: BTreeMap<u8, usize>,
    /// Messages handed to tshark.
    pub messages: usize,
    /// Messages that it took for RSIP.
    pub decoded: usize,
    /// What it says about each message that it finds malformed.
    pub malformed: Vec<String>,
    /// Bytes of TCP streams that are no whole message.
    pub left_over: usize,
}

impl Capture {
    /// Fields of the packets that match a display filter, one row per packet.
    ///
    /// # Errors
    /// Where tshark does not know the filter or a field.
    pub fn fields(&self, filter: &str, fields: &[&str]) -> Result<Vec<Vec<String>>> {
        decode(&self.file, filter, fields)
    }

    /// Every RSIP message, over UDP and TCP, judged by tshark.
    ///
    /// # Errors
    /// Where tshark fails.
    pub fn rsip(&self) -> Result<Verdict> {
        let mut messages = Vec::new();
        // Datagrams inside a tunnel are somebody's own business.
        for row in self.fields(&format!("udp.port == {RSIP} && !(ip.proto == 4)"), &["udp.payload"])? {
            messages.extend(row.first().map(|hex| bytes(hex)));
        }
        let mut streams: BTreeMap<(String, String), BTreeMap<u64, Vec<u8>>> = BTreeMap::new();
        let fields = ["tcp.stream", "tcp.srcport", "tcp.seq", "tcp.payload"];
        let filter = format!("tcp.port == {RSIP} && tcp.len > 0 && !(ip.proto == 4)");
        for row in self.fields(&filter, &fields)? {
            let [stream, from, sequence, payload] = row.as_slice() else { continue };
            let offset: u64 = sequence.parse().unwrap_or_default();
            // A retransmission carries the same bytes at the same place.
            streams.entry((stream.clone(), from.clone())).or_default().insert(offset, bytes(payload));
        }
        let mut left_over = 0;
        for segments in streams.values() {
            let (whole, rest) = split(&join(segments));
            messages.extend(whole);
            left_over += rest;
        }
        let mut verdict = self.judge(&messages)?;
        verdict.left_over = left_over;
        Ok(verdict)
    }

    fn judge(&self, messages: &[Vec<u8>]) -> Result<Verdict> {
        let mut verdict = Verdict { messages: messages.len(), ..Verdict::default() };
        if messages.is_empty() {
            return Ok(verdict);
        }
        let file = self.file.with_extension("messages.pcap");
        fs::write(&file, datagrams(messages)).cannot(|| format!("write {}", file.display()))?;
        for row in decode(&file, "rsip", &["rsip.message_type"])? {
            verdict.decoded += 1;
            let number = row.first().and_then(|field| field.parse().ok()).unwrap_or_default();
            *verdict.types.entry(number).or_default() += 1;
        }
        for row in decode(&file, "_ws.malformed", &["frame.number", "udp.payload"])? {
            verdict.malformed.push(row.join(" "));
        }
        Ok(verdict)
    }
}

impl Verdict {
    /// Fails unless there were messages and tshark found each of them well formed.
    ///
    /// # Errors
    /// [`LabError::Unexpected`].
    pub fn expect_clean(&self) -> Result<()> {
        if self.messages > 0
            && self.decoded == self.messages
            && self.malformed.is_empty()
            && self.left_over == 0
        {
            return Ok(());
        }
        Err(LabError::Unexpected {
            what: "RSIP messages on the wire, as tshark sees them".into(),
            expected: "some, all of them well formed".into(),
            seen: format!("{self:?}"),
        })
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

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .filter_map(|digit| digit.try_into().ok())
        .collect();
    digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect()
}

/// The bytes of one direction of a connection, up to the first gap.
fn join(segments: &BTreeMap<u64, Vec<u8>>) -> Vec<u8> {
    let mut stream = Vec::new();
    let Some(start) = segments.keys().next() else { return stream };
    for (offset, payload) in segments {
        let known = start + stream.len() as u64;
        let Some(overlap) = known.checked_sub(*offset) else { break };
        let overlap = usize::try_from(overlap).unwrap_or(usize::MAX);
        stream.extend_from_slice(payload.get(overlap..).unwrap_or_default());
    }
    stream
}

/// Cuts a stream into messages; also how many bytes at its end are none.
fn split(stream: &[u8]) -> (Vec<Vec<u8>>, usize) {
    let mut messages = Vec::new();
    let mut rest = stream;
    // Version, message type, overall length (in bytes, with this header).
    while let [_, _, high, low, ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        if length < 4 || length > rest.len() {
            break;
        }
        let (message, after) = rest.split_at(length);
        messages.push(message.to_vec());
        rest = after;
    }
    (messages, rest.len())
}

/// A capture file (pcap, raw IPv4) with each message in a UDP datagram to the RSIP port.
fn datagrams(messages: &[Vec<u8>]) -> Vec<u8> {
    const RAW_IPV4: u32 = 228;
    let mut file = Vec::new();
    // Magic number (which tells the byte order), version 2.4, no time zone, no accuracy, snapshot length, link type.
    for word in [0xa1b2_c3d4, 0x0002_0004, 0, 0, 65_535, RAW_IPV4] {
        file.extend(word.to_be_bytes());
    }
    for message in messages {
        let udp_length = u16::try_from(message.len() + 8).unwrap_or(u16::MAX);
        let total = udp_length.saturating_add(20);
        for word in [0, 0, u32::from(total), u32::from(total)] {
            file.extend(word.to_be_bytes());
        }
        file.extend([0x45, 0]);
        file.extend(total.to_be_bytes());
        // No identification, fragments or checksum; 64 hops; UDP; from and to loopback.
        file.extend([0, 0, 0, 0, 64, 17, 0, 0, 127, 0, 0, 1, 127, 0, 0, 2]);
        for half in [40_000, RSIP, udp_length, 0] {
            file.extend(half.to_be_bytes());
        }
        file.extend(message);
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REGISTER_REQUEST with message counter 1: 4 bytes of header, 7 of a parameter.
    const REGISTER: [u8; 11] = [1, 2, 0, 11, 11, 0, 4, 0, 0, 0, 1];

    fn capture(folder: &Path) -> Capture {
        Capture { file: folder.join("x.pcap") }
    }

    #[test]
    fn cuts_a_stream_by_overall_length() {
        let stream = [&REGISTER[..], &REGISTER[..], &REGISTER[..5]].concat();
        assert_eq!(split(&stream), (vec![REGISTER.to_vec(), REGISTER.to_vec()], 5));
        assert_eq!(split(&[1, 2, 0, 0, 9]), (vec![], 5));
    }

    #[test]
    fn joins_segments_once_and_stops_at_a_gap() {
        let segments = BTreeMap::from([(1, vec![1, 2, 3]), (3, vec![3, 4]), (9, vec![9])]);
        assert_eq!(join(&segments), [1, 2, 3, 4]);
    }

    #[test]
    fn tshark_takes_a_good_message_and_refuses_a_bad_one() {
        let folder = tempfile::tempdir().unwrap();
        let good = capture(folder.path()).judge(&[REGISTER.to_vec()]).unwrap();
        good.expect_clean().unwrap();
        assert_eq!(good.types, BTreeMap::from([(2, 1)]));
        // The parameter claims four bytes more than there are.
        let truncated = REGISTER[..8].to_vec();
        let bad = capture(folder.path()).judge(&[REGISTER.to_vec(), truncated]).unwrap();
        assert_eq!((bad.messages, bad.malformed.len()), (2, 1));
        assert!(bad.expect_clean().is_err());
    }

    #[test]
    fn no_message_at_all_is_not_clean() {
        assert!(Verdict::default().expect_clean().is_err());
    }
}
