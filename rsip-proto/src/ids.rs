//! Identifiers of RFC 3103 and of the seam between a state machine and its shell.

use std::fmt;

/// "Client ID": names a registered host at one gateway; given by the gateway, unique among the hosts registered at the
/// same time (RFC 3103 section 8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

/// "Bind ID": names a binding; given by the gateway, unique within one host (RFC 3103 section 8.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BindId(pub u32);

/// "Message counter" (RFC 3103 sections 8.11 and 10.1). Zero marks an asynchronous message of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageCounter(pub u32);

impl MessageCounter {
    /// The counter of a message that no request asked for.
    pub const ASYNCHRONOUS: Self = Self(0);
    /// The first counter of a session.
    pub const FIRST: Self = Self(1);

    /// The counter after this one: 4294967295 is followed by 1, never by 0 (RFC 3103 section 10.1).
    #[must_use]
    pub const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(next) => Self(next),
            None => Self::FIRST,
        }
    }
}

/// Names one command that changes the data path, so that its outcome can be told to the state machine that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BindId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for MessageCounter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_skip_zero_when_they_wrap() {
        assert_eq!(MessageCounter::FIRST.next(), MessageCounter(2));
        assert_eq!(MessageCounter(u32::MAX - 1).next(), MessageCounter(u32::MAX));
        assert_eq!(MessageCounter(u32::MAX).next(), MessageCounter::FIRST);
    }
}
