//! ARP for IPv4 on Ethernet (RFC 826).

/// The packet that follows the Ethernet header, octets as on the wire.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    hardware_type: [u8; 2],
    protocol_type: [u8; 2],
    hardware_length: u8,
    protocol_length: u8,
    operation: [u8; 2],
    sender_hardware: [u8; 6],
    sender_protocol: [u8; 4],
    target_hardware: [u8; 6],
    target_protocol: [u8; 4],
}

const _: () = assert!(size_of::<Packet>() == 28);

const IPV4: [u8; 2] = [0x08, 0x00];
const REQUEST: [u8; 2] = [0, 1];

impl Packet {
    /// Whether it asks who has this address (network byte order).
    #[inline(always)]
    #[must_use]
    pub fn asks_for(&self, address: u32) -> bool {
        self.protocol_type == IPV4
            && self.hardware_length == 6
            && self.protocol_length == 4
            && self.operation == REQUEST
            && u32::from_ne_bytes(self.target_protocol) == address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASED: [u8; 4] = [203, 0, 113, 1];

    fn request() -> Packet {
        Packet {
            hardware_type: [0, 1],
            protocol_type: IPV4,
            hardware_length: 6,
            protocol_length: 4,
            operation: REQUEST,
            sender_hardware: [2, 0, 0, 0, 0, 9],
            sender_protocol: [10, 0, 0, 3],
            target_hardware: [0; 6],
            target_protocol: LEASED,
        }
    }

    #[test]
    fn only_a_request_for_the_very_address_asks_for_it() {
        let asks = |packet: Packet| packet.asks_for(u32::from_ne_bytes(LEASED));
        assert!(asks(request()));
        assert!(!asks(Packet { operation: [0, 2], ..request() }), "a reply");
        assert!(!asks(Packet { target_protocol: [10, 0, 0, 2], ..request() }), "another address");
        assert!(!asks(Packet { protocol_type: [0x86, 0xdd], ..request() }), "another protocol");
        assert!(!asks(Packet { hardware_length: 8, ..request() }), "another layout");
        assert!(!asks(Packet { protocol_length: 16, ..request() }), "another layout");
    }
}
