//! What holds for all messages and for all bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rsip_slp::strategies;
use rsip_slp::wire::{Framer, Message};

/// Everything that is asked of bytes from the network. None of it may panic.
fn inspect(bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut framer = Framer::new(1 << 16);
    framer.push(bytes);
    while let Ok(Some(_)) = framer.next_message() {}
    if let Ok(message) = Message::parse(bytes) {
        let encoded = message.encode();
        prop_assert!(encoded.is_ok(), "parsed, but not to be encoded: {:?}", encoded);
        prop_assert_eq!(Message::parse(&encoded.unwrap_or_default()), Ok(message));
    }
    Ok(())
}

proptest! {
    #[test]
    fn parsing_what_was_encoded_gives_the_message(message in strategies::message()) {
        let bytes = message.encode().expect("generated messages can be encoded");
        prop_assert_eq!(Message::parse(&bytes), Ok(message));
    }

    #[test]
    fn a_datagram_keeps_to_its_limit_or_is_a_request(message in strategies::message(), limit in 200_usize..400) {
        let bytes = message.encode_datagram(limit).expect("generated messages can be encoded");
        let cut = Message::parse(&bytes);
        prop_assert!(cut.is_ok(), "{:?}", cut);
        prop_assert!(bytes == message.encode().expect("again") || cut.is_ok_and(|cut| cut.flags.overflow));
    }

    #[test]
    fn any_bytes_are_taken(bytes in vec(any::<u8>(), 0..300)) {
        inspect(&bytes)?;
    }

    /// As before, but past the header.
    #[test]
    fn any_body_is_taken(function in 0_u8..13, flags in any::<u8>(), body in vec(any::<u8>(), 0..200)) {
        let length = u8::try_from(body.len() + 16).expect("short");
        let header = [2, function, 0, 0, length, flags, 0, 0, 0, 0, 0, 1, 0, 2, b'e', b'n'];
        inspect(&[&header, body.as_slice()].concat())?;
    }

    #[test]
    fn a_message_with_changed_bytes_is_taken(message in strategies::message(), changes in vec((any::<Index>(), any::<u8>()), 1..5)) {
        let mut bytes = message.encode().expect("generated messages can be encoded");
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        inspect(&bytes)?;
    }
}
