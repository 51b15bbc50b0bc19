//! Messages out of streams.

use rsip_slp::wire::{Broken, Framer, Message};

use crate::hex;

#[test]
fn any_segmentation_gives_the_same_messages() {
    let messages: Vec<Vec<u8>> = hex::files().into_values().collect();
    let stream = messages.concat();
    for step in [1, 2, 5, 13, 14, 100, stream.len()] {
        let mut framer = Framer::new(4096);
        let mut seen = Vec::new();
        for piece in stream.chunks(step) {
            framer.push(piece);
            while let Some(message) = framer.next_message().expect("a good stream") {
                assert!(Message::parse(&message).is_ok());
                seen.push(message);
            }
        }
        assert_eq!(seen, messages, "in pieces of {step}");
        assert!(framer.is_empty());
    }
}

fn broken(hex: &str) -> Result<Option<Vec<u8>>, Broken> {
    let mut framer = Framer::new(100);
    framer.push(&hex::bytes(hex));
    framer.next_message()
}

#[test]
fn what_cannot_be_a_message_breaks_the_stream() {
    assert_eq!(broken("01"), Err(Broken::Version(1)));
    assert_eq!(broken("02 01 00 00 0d"), Err(Broken::TooShort(13)));
    assert_eq!(broken("02 01 00 00 65"), Err(Broken::TooLong(101)));
    assert_eq!(broken("02 01 ff ff ff"), Err(Broken::TooLong(0x00ff_ffff)));
    assert_eq!(broken("02 01 00 00 64"), Ok(None), "a hundred bytes are taken");
    assert_eq!(broken(""), Ok(None));
    let mut framer = Framer::new(100);
    framer.push(&[2]);
    assert!(!framer.is_empty(), "half a message");
}
