//! A stream cut into messages, and streams that cannot be cut.

use proptest::prelude::*;
use rsip_proto::ids::MessageCounter;
use rsip_proto::strategies;
use rsip_proto::wire::{Body, ErrorCode, FrameError, FrameErrorKind, Framer, MAX_MESSAGE_LEN, Message};

fn drain(framer: &mut Framer) -> Vec<Result<Vec<u8>, FrameError>> {
    std::iter::from_fn(|| framer.next_message()).collect()
}

fn register(counter: u32) -> Vec<u8> {
    Message::new(MessageCounter(counter), Body::RegisterRequest).encode().expect("a message")
}

#[test]
fn waits_for_the_last_byte() {
    let message = register(1);
    let mut framer = Framer::new();
    for (index, byte) in message.iter().enumerate() {
        assert_eq!(framer.next_message(), None, "after {index} bytes");
        assert_eq!(framer.pending(), index);
        framer.push(&[*byte]);
    }
    assert_eq!(framer.next_message(), Some(Ok(message)));
    assert_eq!(framer.pending(), 0);
    assert_eq!(framer.next_message(), None);
}

#[test]
fn gives_all_messages_of_one_push() {
    let stream = [register(1), register(2), register(3)].concat();
    let mut framer = Framer::new();
    framer.push(&stream[..stream.len() - 1]);
    assert_eq!(drain(&mut framer), [Ok(register(1)), Ok(register(2))]);
    assert_eq!(framer.pending(), register(3).len() - 1);
    framer.push(&stream[stream.len() - 1..]);
    assert_eq!(drain(&mut framer), [Ok(register(3))]);
}

#[test]
fn takes_the_longest_message() {
    let mut longest = vec![0x01, 0x02, 0xff, 0xff];
    longest.resize(MAX_MESSAGE_LEN, 0);
    let mut framer = Framer::new();
    framer.push(&longest);
    assert_eq!(framer.next_message(), Some(Ok(longest)));
}

/// What the framer says about a header, and that the parser says the same about it.
fn refused(mut framer: Framer, header: [u8; 4]) -> (FrameErrorKind, ErrorCode) {
    framer.push(&header);
    let error = framer.next_message().expect("four bytes are enough").expect_err("a bad header");
    assert_eq!(error.header(), header);
    let parsed = Message::parse(&error.header()).expect_err("no message either");
    assert_eq!(parsed.error_code(), error.error_code());
    (error.kind(), error.error_code())
}

#[test]
fn refuses_a_length_smaller_than_the_header() {
    for length in 0..4 {
        let expected = (FrameErrorKind::LengthTooSmall(u16::from(length)), ErrorCode::BadMessage);
        assert_eq!(refused(Framer::new(), [1, 2, 0, length]), expected);
    }
}

#[test]
fn refuses_another_version() {
    // "GET " of a web browser that lost its way: without the version it would wait for 21,536 bytes.
    let expected = (FrameErrorKind::Version(b'G'), ErrorCode::UnsupportedRsipVersion);
    assert_eq!(refused(Framer::new(), *b"GET "), expected);
}

#[test]
fn refuses_more_than_it_was_told_to_hold() {
    let kind = FrameErrorKind::LengthTooLarge { stated: 11, max: 10 };
    assert_eq!(refused(Framer::with_max_message_len(10), [1, 2, 0, 11]), (kind, ErrorCode::BadMessage));
    let mut framer = Framer::with_max_message_len(11);
    framer.push(&register(1));
    assert_eq!(framer.next_message(), Some(Ok(register(1))));
}

#[test]
fn an_error_ends_the_stream() {
    let mut framer = Framer::new();
    framer.push(&[register(1), vec![1, 2, 0, 3], register(2)].concat());
    let drained = drain(&mut framer);
    assert_eq!(drained.len(), 2);
    assert_eq!(drained[0], Ok(register(1)));
    assert!(drained[1].is_err());
    framer.push(&register(3));
    assert_eq!(framer.next_message(), None);
    assert_eq!(framer.pending(), 0);
}

proptest! {
    #[test]
    fn gives_the_same_messages_however_the_stream_is_cut(
        messages in prop::collection::vec(strategies::message(), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let messages: Vec<Vec<u8>> = messages.iter().map(|message| message.encode().expect("a message")).collect();
        let stream = messages.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();

        let mut framer = Framer::new();
        let mut framed = Vec::new();
        for segment in cuts.windows(2) {
            framer.push(&stream[segment[0]..segment[1]]);
            framed.extend(drain(&mut framer));
        }
        prop_assert_eq!(framed, messages.into_iter().map(Ok).collect::<Vec<_>>());
        prop_assert_eq!(framer.pending(), 0);
    }

    /// Also in errors: they depend on the bytes alone.
    #[test]
    fn takes_any_bytes_the_same_whole_and_byte_by_byte(
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        looks_right in any::<bool>(),
    ) {
        if let (true, Some(start)) = (looks_right, bytes.first_chunk_mut::<4>()) {
            *start = [1, start[1], 0, start[3]];
        }
        let mut whole = Framer::new();
        whole.push(&bytes);
        let at_once = drain(&mut whole);

        let mut single = Framer::new();
        let mut one_by_one = Vec::new();
        for byte in &bytes {
            single.push(&[*byte]);
            one_by_one.extend(drain(&mut single));
        }
        prop_assert_eq!(&at_once, &one_by_one);
        prop_assert_eq!(whole.pending(), single.pending());
        for message in at_once.into_iter().flatten() {
            prop_assert_eq!(usize::from(u16::from_be_bytes([message[2], message[3]])), message.len());
        }
    }
}
