//! A cursor over the bytes of one message.

use super::parse::ParseErrorKind;

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], ParseErrorKind> {
        let end = self.at.saturating_add(length);
        let taken = self.bytes.get(self.at..end).ok_or(ParseErrorKind::Truncated)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ParseErrorKind> {
        self.take(N)?.try_into().map_err(|_| ParseErrorKind::Truncated)
    }

    pub(super) fn u8(&mut self) -> Result<u8, ParseErrorKind> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u16(&mut self) -> Result<u16, ParseErrorKind> {
        self.array().map(u16::from_be_bytes)
    }

    /// Three bytes.
    pub(super) fn u24(&mut self) -> Result<u32, ParseErrorKind> {
        self.array().map(|[high, middle, low]| u32::from_be_bytes([0, high, middle, low]))
    }

    pub(super) fn u32(&mut self) -> Result<u32, ParseErrorKind> {
        self.array().map(u32::from_be_bytes)
    }

    /// A string with its length before it.
    pub(super) fn string(&mut self) -> Result<String, ParseErrorKind> {
        let length = self.u16()?;
        self.text(length)
    }

    /// A string of `length` bytes.
    pub(super) fn text(&mut self, length: u16) -> Result<String, ParseErrorKind> {
        let bytes = self.take(length.into())?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ParseErrorKind::NotUtf8)
    }
}
