//! Messages out of a stream (RFC 2608 section 6.2): each tells its own length.

use super::{HEADER_LENGTH, LENGTH_AT, VERSION};

/// The stream cannot be cut into messages any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Another version has another header.
    #[error("version {0} stands where a message begins")]
    Version(u8),
    /// A message shorter than its own header.
    #[error("a message of {0} bytes")]
    TooShort(usize),
    /// A message that is longer than this end takes.
    #[error("a message of {0} bytes, which is more than is taken")]
    TooLong(usize),
}

/// Cuts a stream into messages. After an error the stream is of no use.
#[derive(Clone, Debug)]
pub struct Framer {
    buffer: Vec<u8>,
    longest: usize,
}

impl Framer {
    /// A framer that takes messages of up to `longest` bytes.
    #[must_use]
    pub fn new(longest: usize) -> Self {
        Self { buffer: Vec::new(), longest }
    }

    /// Takes what was read from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, as its bytes.
    ///
    /// # Errors
    /// When what comes next cannot be a message.
    pub fn next_message(&mut self) -> Result<Option<Vec<u8>>, Broken> {
        if let Some(version) = self.buffer.first().filter(|version| **version != VERSION) {
            return Err(Broken::Version(*version));
        }
        let Some([high, middle, low]) = self.buffer.get(LENGTH_AT..LENGTH_AT + 3) else { return Ok(None) };
        let length = u32::from_be_bytes([0, *high, *middle, *low]);
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length < HEADER_LENGTH {
            return Err(Broken::TooShort(length));
        }
        if length > self.longest {
            return Err(Broken::TooLong(length));
        }
        if self.buffer.len() < length {
            return Ok(None);
        }
        let rest = self.buffer.split_off(length);
        Ok(Some(std::mem::replace(&mut self.buffer, rest)))
    }

    /// Whether the stream stands between two messages.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }
}
