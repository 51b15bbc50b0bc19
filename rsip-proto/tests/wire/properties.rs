//! What holds for all messages and for all bytes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use rsip_proto::strategies;
use rsip_proto::wire::{Message, MessageType, ParseErrorKind, Pretty, Stage};

use crate::capture;

/// Everything that is asked of bytes from the network. None of it may panic.
fn inspect(bytes: &[u8]) -> Result<(), TestCaseError> {
    prop_assert!(!Pretty(bytes).to_string().contains('\n'));
    match Message::parse(bytes) {
        Ok(message) => {
            let encoded = message.encode();
            prop_assert!(encoded.is_ok(), "parsed, but not to be encoded: {:?}", encoded);
            prop_assert_eq!(Message::parse(&encoded.unwrap_or_default()), Ok(message));
        }
        Err(error) => {
            prop_assert!(error.offset() <= bytes.len());
            prop_assert_eq!(error.message_type_number(), bytes.get(1).copied());
            if error.lacks_counter() {
                prop_assert_eq!(error.counter(), None);
                prop_assert_eq!(error.stage(), Stage::Parameters);
            }
            if error.message_type() == Some(MessageType::ErrorResponse) {
                prop_assert!(!error.is_answerable());
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn parsing_what_was_encoded_gives_the_message(message in strategies::message()) {
        let bytes = message.encode().expect("generated messages can be encoded");
        capture::written(&message, &bytes);
        prop_assert_eq!(bytes.len(), message.buffer_len());
        prop_assert_eq!(Message::parse(&bytes), Ok(message));
    }

    #[test]
    fn a_message_prints_on_one_line_of_its_own_name(message in strategies::message()) {
        let line = message.to_string();
        prop_assert!(line.starts_with(message.message_type().name()));
        prop_assert!(line.chars().all(|c| c.is_ascii() && !c.is_ascii_control()), "{}", line);
    }

    #[test]
    fn any_bytes_are_taken(bytes in vec(any::<u8>(), 0..400)) {
        inspect(&bytes)?;
    }

    /// As before, but past the header.
    #[test]
    fn any_parameters_are_taken(message_type in 0_u8..24, params in vec(any::<u8>(), 0..400)) {
        let length = u16::try_from(params.len() + 4).expect("short");
        let [high, low] = length.to_be_bytes();
        inspect(&[&[1, message_type, high, low], params.as_slice()].concat())?;
    }

    /// As before, but with parameters that can be told apart, so that the later checks see them.
    #[test]
    fn any_choice_of_parameters_is_taken(
        message_type in 1_u8..=17,
        params in vec((0_u8..14, vec(any::<u8>(), 0..6)), 0..10),
    ) {
        let body: Vec<u8> = params
            .iter()
            .flat_map(|(number, value)| {
                [&[*number, 0, u8::try_from(value.len()).expect("short")], value.as_slice()].concat()
            })
            .collect();
        let [high, low] = u16::try_from(body.len() + 4).expect("short").to_be_bytes();
        inspect(&[&[1, message_type, high, low], body.as_slice()].concat())?;
    }

    #[test]
    fn changed_messages_are_taken(
        message in strategies::message(),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = message.encode().expect("a message");
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        inspect(&bytes)?;
    }

    /// A message whose end is missing is told by its length; with the length mended, by what is missing.
    #[test]
    fn shortened_messages_are_refused(message in strategies::message(), end in any::<Index>()) {
        let whole = message.encode().expect("a message");
        let mut bytes = whole[..end.index(whole.len())].to_vec();
        inspect(&bytes)?;
        let error = Message::parse(&bytes).expect_err("something is missing");
        prop_assert_eq!(error.stage(), Stage::Header);
        if let Some([_, _, high, low]) = bytes.first_chunk_mut() {
            let length = u16::try_from(end.index(whole.len())).expect("short");
            [*high, *low] = length.to_be_bytes();
            inspect(&bytes)?;
        }
    }

    #[test]
    fn lengthened_messages_are_refused(message in strategies::message(), more in vec(any::<u8>(), 1..20)) {
        let mut bytes = message.encode().expect("a message");
        let stated = u16::try_from(bytes.len()).expect("short");
        bytes.extend(&more);
        let error = Message::parse(&bytes).expect_err("too much");
        prop_assert_eq!(error.kind(), ParseErrorKind::OverallLength { stated, actual: bytes.len() });
        prop_assert_eq!(error.counter(), message.counter);
    }

    /// Whatever else is wrong, the answer can carry the counter of a message whose parameters can be told apart.
    #[test]
    fn the_counter_survives_any_error(message in strategies::request(), junk in 13_u8..) {
        let mut bytes = message.encode().expect("a message");
        bytes.extend([junk, 0, 0]);
        let [high, low] = u16::try_from(bytes.len()).expect("short").to_be_bytes();
        (bytes[2], bytes[3]) = (high, low);
        let error = Message::parse(&bytes).expect_err("an unknown parameter");
        prop_assert_eq!(error.kind(), ParseErrorKind::UnknownParam(junk));
        prop_assert_eq!(error.counter(), message.counter);
        prop_assert_eq!(error.lacks_counter(), message.counter.is_none());
    }
}
