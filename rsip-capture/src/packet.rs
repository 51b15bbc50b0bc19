//! A message in an IPv4 packet of its own, and back.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};

/// The gateway's port, over UDP and TCP (RFC 3103 section 12).
pub const RSIP_PORT: u16 = 4555;

/// What can go wrong with a capture.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// A file cannot be read or written.
    #[error("cannot {what}: {source}")]
    File {
        /// What was to be done, with the file's name.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A file is no capture, or ends in the middle of a packet.
    #[error("{file} is not a whole capture file: {reason}")]
    NotACapture {
        /// Its name.
        file: String,
        /// Why.
        reason: String,
    },
    /// A message does not fit into one packet.
    #[error("{0} bytes are too much for one IPv4 packet")]
    TooLong(usize),
    /// tshark does not run, or fails.
    #[error("tshark: {0}")]
    Tshark(String),
}

/// How a message travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// A message is a datagram.
    Udp,
    /// A message is a part of a stream.
    Tcp,
}

/// A message that somebody sent to somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spoken {
    /// Who sent it; a gateway sends from [`RSIP_PORT`].
    pub from: SocketAddrV4,
    /// To whom.
    pub to: SocketAddrV4,
    /// How it travelled.
    pub transport: Transport,
    /// The whole message, its header included.
    pub message: Vec<u8>,
}

/// Where state machines that have no address speak from.
const GATEWAY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 255, 255, 254), RSIP_PORT);

impl Spoken {
    /// What a gateway said to a host at this address and port.
    #[must_use]
    pub const fn by_gateway(to: SocketAddrV4, transport: Transport, message: Vec<u8>) -> Self {
        Self { from: GATEWAY, to, transport, message }
    }

    /// What a host at this address and port said to its gateway.
    #[must_use]
    pub const fn by_host(from: SocketAddrV4, transport: Transport, message: Vec<u8>) -> Self {
        Self { from, to: GATEWAY, transport, message }
    }

    /// Whether a gateway said it.
    #[must_use]
    pub const fn from_gateway(&self) -> bool {
        self.from.port() == RSIP_PORT
    }

    /// The message in an IPv4 packet, checksums included. Over TCP it is one segment of the stream, at `sequence`.
    ///
    /// # Errors
    /// [`CaptureError::TooLong`].
    pub fn to_packet(&self, sequence: u32) -> Result<Vec<u8>, CaptureError> {
        const WINDOW: u16 = 65_535;
        let ip = PacketBuilder::ipv4(self.from.ip().octets(), self.to.ip().octets(), 64);
        let (from, to) = (self.from.port(), self.to.port());
        let mut packet = Vec::with_capacity(self.message.len() + 60);
        match self.transport {
            Transport::Udp => ip.udp(from, to).write(&mut packet, &self.message),
            Transport::Tcp => {
                ip.tcp(from, to, sequence, WINDOW).ack(1).psh().write(&mut packet, &self.message)
            }
        }
        .map_err(|_| CaptureError::TooLong(self.message.len()))?;
        Ok(packet)
    }

    /// The message in an IPv4 packet that [`Spoken::to_packet`] made; `None` for any other packet.
    #[must_use]
    pub fn from_packet(packet: &[u8]) -> Option<Self> {
        let sliced = SlicedPacket::from_ip(packet).ok()?;
        let Some(NetSlice::Ipv4(ip)) = &sliced.net else { return None };
        let (source, destination) = (ip.header().source_addr(), ip.header().destination_addr());
        let (from, to, transport, payload) = match sliced.transport? {
            TransportSlice::Udp(udp) => {
                (udp.source_port(), udp.destination_port(), Transport::Udp, udp.payload())
            }
            TransportSlice::Tcp(tcp) => {
                (tcp.source_port(), tcp.destination_port(), Transport::Tcp, tcp.payload())
            }
            _ => return None,
        };
        Some(Self {
            from: SocketAddrV4::new(source, from),
            to: SocketAddrV4::new(destination, to),
            transport,
            message: payload.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(transport: Transport, message: &[u8]) -> Spoken {
        Spoken {
            from: SocketAddrV4::new([10, 0, 0, 7].into(), 5000),
            to: SocketAddrV4::new([10, 0, 0, 1].into(), RSIP_PORT),
            transport,
            message: message.to_vec(),
        }
    }

    #[test]
    fn a_message_comes_back_out_of_its_packet() {
        for transport in [Transport::Udp, Transport::Tcp] {
            let spoken = spoken(transport, &[1, 2, 0, 4]);
            let packet = spoken.to_packet(7).unwrap();
            assert_eq!(Spoken::from_packet(&packet), Some(spoken));
        }
        assert_eq!(Spoken::from_packet(&[0x45, 0]), None);
    }

    #[test]
    fn a_message_that_fits_into_no_packet_is_an_error() {
        assert!(spoken(Transport::Udp, &[0; 65_507]).to_packet(0).is_ok());
        assert!(matches!(
            spoken(Transport::Udp, &[0; 65_508]).to_packet(0),
            Err(CaptureError::TooLong(65_508))
        ));
    }
}
