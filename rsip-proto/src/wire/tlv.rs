//! Parameters as they stand on the wire: type, length, value (RFC 3103 section 8). Packed, without padding.

use crate::wire::header::HEADER_LEN;

/// Bytes of a parameter's type and length.
pub(super) const TLV_HEADER_LEN: usize = 3;

/// One parameter, its value not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tlv<'a> {
    /// Where the parameter begins in the message.
    pub(super) offset: usize,
    /// Its type.
    pub(super) number: u8,
    /// As many bytes as its length says.
    pub(super) value: &'a [u8],
}

/// A parameter reaches past the end; holds where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Overrun(pub(super) usize);

/// Walks the parameters of a message. Ends after the last one, or after the first [`Overrun`].
#[derive(Clone, Debug)]
pub(super) struct Tlvs<'a> {
    message: &'a [u8],
    offset: usize,
}

impl<'a> Tlvs<'a> {
    /// The parameters of `message`, which begins with its header; none where it is shorter than that.
    pub(super) const fn of_message(message: &'a [u8]) -> Self {
        Self { message, offset: HEADER_LEN }
    }
}

impl<'a> Iterator for Tlvs<'a> {
    type Item = Result<Tlv<'a>, Overrun>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let rest = self.message.get(offset..).filter(|rest| !rest.is_empty())?;
        let parts = rest.split_first_chunk().and_then(|(&[number, high, low], rest)| {
            let length = usize::from(u16::from_be_bytes([high, low]));
            Some((number, rest.get(..length)?))
        });
        let Some((number, value)) = parts else {
            self.offset = self.message.len();
            return Some(Err(Overrun(offset)));
        };
        self.offset = offset + TLV_HEADER_LEN + value.len();
        Some(Ok(Tlv { offset, number, value }))
    }
}
