//! Any bytes as one message.

use rsip_proto::wire::{ErrorCode, Message, ParseErrorKind, Pretty};

pub(crate) fn run(data: &[u8]) {
    match Message::parse(data) {
        Ok(message) => {
            assert!(!Pretty(data).to_string().is_empty());
            match message.encode() {
                Ok(bytes) => {
                    assert_eq!(Message::parse(&bytes).as_ref(), Ok(&message), "read back differently");
                    assert_eq!(message.encode().as_ref(), Ok(&bytes), "written in two ways");
                }
                // One-byte Indicators are taken, and written as two bytes: a full message may not fit any more.
                Err(error) => assert!(data.len() > 60_000, "{message:?}: {error}"),
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            assert!(
                (101..=208).contains(&error.error_code().number()),
                "{error}: {} is no error about a message",
                error.error_code()
            );
            let unversioned = matches!(error.kind(), ParseErrorKind::Version(_));
            assert_eq!(unversioned, error.error_code() == ErrorCode::UnsupportedRsipVersion);
            assert!(error.offset() <= data.len(), "{error}: outside of the message");
        }
    }
}
