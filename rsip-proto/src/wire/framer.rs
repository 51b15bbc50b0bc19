//! A TCP byte stream to whole messages. RSIP has no framing of its own: the header's Overall Length is all there is.

use crate::wire::error_code::ErrorCode;
use crate::wire::header::{HEADER_LEN, Header, MAX_MESSAGE_LEN, VERSION};

/// Cuts a stream into messages: push what was read, then take messages until there are none.
///
/// Between two pushes it holds less than one message if the caller takes all that there are, so at most
/// [`MAX_MESSAGE_LEN`] bytes or what [`Framer::with_max_message_len`] allows. After a [`FrameError`] the place where the
/// next message begins cannot be known: what is pushed then is thrown away, and the connection is to be closed.
#[derive(Clone, Debug)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Bytes at the start of `buffer` that were given out.
    taken: usize,
    max_message_len: usize,
    failed: bool,
}

/// The stream cannot be cut into messages any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct FrameError {
    header: Header,
    kind: FrameErrorKind,
}

/// Why a stream cannot be cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameErrorKind {
    /// A version other than 1, whose length field may mean anything.
    #[error("RSIP version {0} is not supported")]
    Version(u8),
    /// Overall Length is smaller than the header that holds it.
    #[error("Overall Length says {0}, a header alone has 4 bytes")]
    LengthTooSmall(u16),
    /// Overall Length is more than this end wants to hold.
    #[error("Overall Length says {stated}, at most {max} bytes are taken here")]
    LengthTooLarge {
        /// What the header says.
        stated: u16,
        /// What is taken.
        max: usize,
    },
}

impl FrameError {
    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> FrameErrorKind {
        self.kind
    }

    /// The error that a gateway answers before it closes.
    #[must_use]
    pub const fn error_code(&self) -> ErrorCode {
        match self.kind {
            FrameErrorKind::Version(_) => ErrorCode::UnsupportedRsipVersion,
            FrameErrorKind::LengthTooSmall(_) | FrameErrorKind::LengthTooLarge { .. } => {
                ErrorCode::BadMessage
            }
        }
    }

    /// The offending header. Taken for a message, it gives a [`super::ParseError`] with the same
    /// [`FrameError::error_code`], so that there is one way to answer.
    #[must_use]
    pub const fn header(&self) -> [u8; HEADER_LEN] {
        self.header.to_bytes()
    }
}

impl Framer {
    /// Takes messages of any length that the protocol allows.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_max_message_len(MAX_MESSAGE_LEN)
    }

    /// Takes messages up to this many bytes.
    #[must_use]
    pub const fn with_max_message_len(max_message_len: usize) -> Self {
        Self { buffer: Vec::new(), taken: 0, max_message_len, failed: false }
    }

    /// Adds what was read from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed {
            return;
        }
        self.buffer.drain(..self.taken);
        self.taken = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, header included; `None` until more was pushed. An error is told once.
    pub fn next_message(&mut self) -> Option<Result<Vec<u8>, FrameError>> {
        let rest = self.buffer.get(self.taken..)?;
        let header = Header::read(rest)?;
        if let Err(kind) = self.check(header) {
            self.failed = true;
            self.buffer = Vec::new();
            self.taken = 0;
            return Some(Err(FrameError { header, kind }));
        }
        let message = rest.get(..usize::from(header.length))?.to_vec();
        self.taken += message.len();
        Some(Ok(message))
    }

    /// Bytes of a message that is not whole yet: a peer that leaves some for long has lost its way, or means harm.
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.buffer.len() - self.taken
    }

    fn check(&self, header: Header) -> Result<(), FrameErrorKind> {
        let length = usize::from(header.length);
        if header.version != VERSION {
            return Err(FrameErrorKind::Version(header.version));
        }
        if length < HEADER_LEN {
            return Err(FrameErrorKind::LengthTooSmall(header.length));
        }
        if length > self.max_message_len {
            return Err(FrameErrorKind::LengthTooLarge { stated: header.length, max: self.max_message_len });
        }
        Ok(())
    }
}

impl Default for Framer {
    fn default() -> Self {
        Self::new()
    }
}
