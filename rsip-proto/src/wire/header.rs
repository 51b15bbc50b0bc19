//! The four bytes that every message begins with (RFC 3103 section 9).

/// The only version there is.
pub const VERSION: u8 = 1;
/// Bytes of the header: Version, Message type, Overall length.
pub const HEADER_LEN: usize = 4;
/// The longest message that Overall Length can state, in bytes.
pub const MAX_MESSAGE_LEN: usize = u16::MAX as usize;

/// A header as it stands on the wire, nothing judged yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// "Version".
    pub version: u8,
    /// "Message type", see [`super::MessageType`].
    pub message_type: u8,
    /// "Overall length": bytes of the whole message, these four included.
    pub length: u16,
}

impl Header {
    /// The header at the start of `bytes`; `None` when there are fewer than four.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (&[version, message_type, high, low], _) = bytes.split_first_chunk::<HEADER_LEN>()?;
        Some(Self { version, message_type, length: u16::from_be_bytes([high, low]) })
    }

    /// The header as bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; HEADER_LEN] {
        let [high, low] = self.length.to_be_bytes();
        [self.version, self.message_type, high, low]
    }
}
