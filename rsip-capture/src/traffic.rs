//! Messages out of capture files: our own, and what tcpdump recorded on a cable.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddrV4;
use std::path::Path;

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;

use crate::packet::{CaptureError, RSIP_PORT, Spoken, Transport};
use crate::recorder::file_error;

/// The messages of a file that [`crate::Recorder`](crate::recorder::Recorder) wrote, in its order.
///
/// # Errors
/// Where it cannot be read, or holds anything else.
pub fn recorded(path: &Path) -> Result<Vec<Spoken>, CaptureError> {
    let mut all = Vec::new();
    each_packet(path, |link, packet| {
        let spoken = Some(packet).filter(|_| link == DataLink::IPV4).and_then(Spoken::from_packet);
        let foreign = || CaptureError::NotACapture {
            file: path.display().to_string(),
            reason: format!("packet {} is not one of ours", all.len() + 1),
        };
        let spoken = spoken.ok_or_else(foreign)?;
        all.push(spoken);
        Ok(())
    })?;
    Ok(all)
}

/// What was said on a cable.
#[derive(Debug, Default)]
pub struct Heard {
    /// Whole messages: datagrams, then those of each stream.
    pub messages: Vec<Spoken>,
    /// Streams that have a gap or end in the middle of a message.
    pub torn: Vec<Torn>,
}

/// A direction of a TCP connection that is not messages from end to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// Who sent it.
    pub from: SocketAddrV4,
    /// To whom.
    pub to: SocketAddrV4,
    /// Bytes after the last whole message, up to the stream's end or its first gap.
    pub rest: usize,
    /// Bytes that come after the first gap. What was lost on the cable is sent again, so a gap is left only where the
    /// connection or the recording ended before.
    pub after_gap: usize,
}

/// The RSIP messages in a recording of an Ethernet cable, of those speakers that are `wanted` (from, to): streams are put
/// together and cut by Overall Length (RFC 3103 section 9). What is inside a tunnel is left out: it is somebody's own
/// business.
///
/// # Errors
/// Where it cannot be read.
pub fn on_the_cable(
    path: &Path,
    wanted: impl Fn(SocketAddrV4, SocketAddrV4) -> bool,
) -> Result<Heard, CaptureError> {
    let mut heard = Heard::default();
    let mut streams = Streams::default();
    each_packet(path, |_, packet| {
        let Ok(sliced) = SlicedPacket::from_ethernet(packet) else { return Ok(()) };
        let Some(NetSlice::Ipv4(ip)) = &sliced.net else { return Ok(()) };
        let (source, destination) = (ip.header().source_addr(), ip.header().destination_addr());
        let ends = |from, to| (SocketAddrV4::new(source, from), SocketAddrV4::new(destination, to));
        match sliced.transport {
            Some(TransportSlice::Udp(udp)) => {
                let (from, to) = ends(udp.source_port(), udp.destination_port());
                if is_rsip(from, to) && wanted(from, to) {
                    let message = udp.payload().to_vec();
                    heard.messages.push(Spoken { from, to, transport: Transport::Udp, message });
                }
            }
            Some(TransportSlice::Tcp(tcp)) => {
                let (from, to) = ends(tcp.source_port(), tcp.destination_port());
                if is_rsip(from, to) && wanted(from, to) {
                    streams.segment(from, to, tcp.sequence_number(), tcp.syn(), tcp.payload());
                }
            }
            _ => {}
        }
        Ok(())
    })?;
    for stream in streams.all {
        let (bytes, lost) = stream.joined();
        let (messages, rest) = split(&bytes);
        let (from, to) = (stream.from, stream.to);
        let spoken = |message| Spoken { from, to, transport: Transport::Tcp, message };
        heard.messages.extend(messages.into_iter().map(spoken));
        if rest + lost > 0 {
            heard.torn.push(Torn { from, to, rest, after_gap: lost });
        }
    }
    Ok(heard)
}

fn is_rsip(from: SocketAddrV4, to: SocketAddrV4) -> bool {
    (from.port() == RSIP_PORT) != (to.port() == RSIP_PORT)
}

fn each_packet(
    path: &Path,
    mut take: impl FnMut(DataLink, &[u8]) -> Result<(), CaptureError>,
) -> Result<(), CaptureError> {
    let file = File::open(path)
        .map_err(|source| CaptureError::File { what: format!("read {}", path.display()), source })?;
    let failed = |error| file_error(path, "read", error);
    let mut reader = PcapReader::new(file).map_err(failed)?;
    let link = reader.header().datalink;
    while let Some(packet) = reader.next_packet() {
        take(link, &packet.map_err(failed)?.data)?;
    }
    Ok(())
}

/// TCP connections by direction, in the order in which they began.
#[derive(Debug, Default)]
struct Streams {
    all: Vec<Stream>,
    current: BTreeMap<(SocketAddrV4, SocketAddrV4), usize>,
}

/// One direction of a connection.
#[derive(Debug)]
struct Stream {
    from: SocketAddrV4,
    to: SocketAddrV4,
    /// The sequence number of its first byte.
    start: u32,
    segments: BTreeMap<u32, Vec<u8>>,
}

impl Streams {
    fn segment(&mut self, from: SocketAddrV4, to: SocketAddrV4, sequence: u32, syn: bool, payload: &[u8]) {
        // SYN takes a sequence number of its own. The same SYN again is no new connection.
        let start = sequence.wrapping_add(u32::from(syn));
        let known = self.current.get(&(from, to)).and_then(|index| self.all.get_mut(*index));
        let stream = match known {
            Some(stream) if !syn || stream.start == start => stream,
            _ => {
                self.current.insert((from, to), self.all.len());
                self.all.push(Stream { from, to, start, segments: BTreeMap::new() });
                let Some(stream) = self.all.last_mut() else { return };
                stream
            }
        };
        if !payload.is_empty() {
            // A retransmission carries the same bytes at the same place.
            let place = stream.segments.entry(start.wrapping_sub(stream.start)).or_default();
            if place.len() < payload.len() {
                *place = payload.to_vec();
            }
        }
    }
}

impl Stream {
    /// Its bytes up to the first gap, and how many there are after it.
    fn joined(&self) -> (Vec<u8>, usize) {
        let (mut bytes, mut lost) = (Vec::new(), 0);
        for (offset, payload) in &self.segments {
            match bytes.len().checked_sub(*offset as usize) {
                Some(overlap) if lost == 0 => {
                    bytes.extend_from_slice(payload.get(overlap..).unwrap_or_default());
                }
                _ => lost += payload.len(),
            }
        }
        (bytes, lost)
    }
}

/// Cuts a stream into messages; also how many bytes at its end are none.
fn split(stream: &[u8]) -> (Vec<Vec<u8>>, usize) {
    let mut messages = Vec::new();
    let mut rest = stream;
    // Version, message type, overall length in bytes with this header.
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

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};

    use super::*;

    /// REGISTER_REQUEST with message counter 1: 4 bytes of header, 7 of a parameter.
    const REGISTER: [u8; 11] = [1, 2, 0, 11, 11, 0, 4, 0, 0, 0, 1];
    const HOST: [u8; 4] = [10, 0, 0, 2];
    const GATEWAY: [u8; 4] = [10, 0, 0, 1];

    fn ethernet() -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
        PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(HOST, GATEWAY, 64)
    }

    fn segment(sequence: u32, syn: bool, payload: &[u8]) -> Vec<u8> {
        let step = ethernet().tcp(40_000, RSIP_PORT, sequence, 1000);
        let step = if syn { step.syn() } else { step.ack(1) };
        let mut packet = Vec::new();
        step.write(&mut packet, payload).unwrap();
        packet
    }

    fn datagram(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        ethernet().udp(from, to).write(&mut packet, payload).unwrap();
        packet
    }

    fn read(packets: &[Vec<u8>]) -> Heard {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cable.pcap");
        let mut writer =
            PcapWriter::with_header(File::create(&path).unwrap(), PcapHeader::default()).unwrap();
        for packet in packets {
            let length = u32::try_from(packet.len()).unwrap();
            writer.write_packet(&PcapPacket::new(std::time::Duration::ZERO, length, packet)).unwrap();
        }
        on_the_cable(&path, |_, _| true).unwrap()
    }

    fn messages(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
        read(packets).messages.into_iter().map(|spoken| spoken.message).collect()
    }

    #[test]
    fn a_stream_is_put_together_and_cut_by_overall_length() {
        // Near the end of the sequence numbers; the second segment comes late and once too often.
        let start = u32::MAX - 4;
        let stream = [REGISTER, REGISTER].concat();
        let (one, two, three) = (
            segment(start.wrapping_add(1), false, &stream[..3]),
            segment(start.wrapping_add(4), false, &stream[3..15]),
            segment(start.wrapping_add(16), false, &stream[15..]),
        );
        let packets = [segment(start, true, &[]), one, three, two.clone(), two];
        assert_eq!(messages(&packets), [REGISTER, REGISTER]);
    }

    #[test]
    fn a_new_connection_from_the_same_port_is_a_new_stream() {
        let packets = [
            segment(100, true, &[]),
            segment(101, false, &REGISTER),
            segment(9000, true, &[]),
            segment(9001, false, &REGISTER),
        ];
        assert_eq!(messages(&packets), [REGISTER, REGISTER]);
    }

    #[test]
    fn half_a_message_at_the_end_is_told() {
        let packets = [segment(1, true, &[]), segment(2, false, &REGISTER[..5])];
        let torn = &read(&packets).torn[0];
        assert_eq!((torn.rest, torn.after_gap), (5, 0));
    }

    #[test]
    fn a_gap_is_told() {
        let packets = [segment(1, true, &[]), segment(2, false, &REGISTER), segment(99, false, &REGISTER)];
        let torn = &read(&packets).torn[0];
        assert_eq!((torn.rest, torn.after_gap), (0, 11));
    }

    #[test]
    fn datagrams_of_other_services_are_none() {
        let packets = [datagram(40_000, RSIP_PORT, &REGISTER), datagram(40_000, 53, &REGISTER)];
        assert_eq!(messages(&packets), [REGISTER]);
    }
}
