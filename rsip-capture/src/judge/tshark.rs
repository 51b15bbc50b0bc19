//! tshark: one run over many messages.

use std::io::{BufReader, Read as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, Stdio};

use pcap_file::pcap::PcapPacket;

use crate::judge::decoded::Decoded;
use crate::judge::pdml::Packets;
use crate::packet::{CaptureError, RSIP_PORT, Spoken, Transport};
use crate::recorder;

/// Between two addresses of no importance, and always to and from the same ports: a host's port may be another
/// service's, and tshark would ask that one's dissector.
const GATEWAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), RSIP_PORT);
const HOST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 40_000);

/// tshark's version, as in `4.0.17`.
///
/// # Errors
/// Where it is not installed.
pub fn version() -> Result<String, CaptureError> {
    let output = Command::new("tshark").arg("--version").output().map_err(cannot_start)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let word = text.lines().next().and_then(|line| line.split_whitespace().nth(2));
    word.map(|word| word.trim_end_matches('.').to_owned())
        .ok_or_else(|| CaptureError::Tshark(format!("what version is {text:?}?")))
}

/// Gives each message to tshark in a packet of its own, all of them in one file `scratch`, and hands what it sees to
/// `take`: the message's place in `messages`, and its decoding, `None` where tshark does not take it for RSIP.
///
/// # Errors
/// Where the file cannot be written, tshark fails, or it sees more or fewer packets than there are.
pub fn decode(
    messages: &[(bool, Transport, Vec<u8>)],
    scratch: &Path,
    mut take: impl FnMut(usize, Option<Decoded>),
) -> Result<(), CaptureError> {
    write(messages, scratch)?;
    let mut child = Command::new("tshark")
        .arg("-n")
        .arg("-r")
        .arg(scratch)
        // A message is a segment. Streams of made-up sequence numbers mean nothing.
        .args(["-o", "tcp.desegment_tcp_streams:FALSE", "-o", "tcp.analyze_sequence_numbers:FALSE"])
        // Only our layer in full, else most of the output is about IP.
        .args(["-T", "pdml", "-J", "rsip"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(cannot_start)?;
    let output = child.stdout.take().ok_or_else(|| CaptureError::Tshark("no output".to_owned()))?;
    let mut packets = Packets::new(BufReader::with_capacity(1 << 16, output));
    let mut count = 0;
    while let Some(decoded) = packets.next_packet()? {
        take(count, decoded);
        count += 1;
    }
    let mut complaint = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut complaint).map_err(cannot_start)?;
    }
    let status = child.wait().map_err(cannot_start)?;
    if !status.success() || count != messages.len() {
        return Err(CaptureError::Tshark(format!(
            "{status}, {count} packets of {}: {}",
            messages.len(),
            complaint.trim()
        )));
    }
    Ok(())
}

fn write(messages: &[(bool, Transport, Vec<u8>)], scratch: &Path) -> Result<(), CaptureError> {
    let mut file = recorder::create(scratch)?;
    for (number, (from_gateway, transport, message)) in messages.iter().enumerate() {
        let (from, to) = if *from_gateway { (GATEWAY, HOST) } else { (HOST, GATEWAY) };
        let packet = Spoken { from, to, transport: *transport, message: message.clone() }.to_packet(1)?;
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let time = std::time::Duration::from_micros(number as u64);
        file.write_packet(&PcapPacket::new(time, length, &packet))
            .map_err(|error| recorder::file_error(scratch, "write", error))?;
    }
    Ok(())
}

fn cannot_start(error: std::io::Error) -> CaptureError {
    let hint =
        if error.kind() == std::io::ErrorKind::NotFound { ": `cargo xtask setup` installs it" } else { "" };
    CaptureError::Tshark(format!("{error}{hint}"))
}
