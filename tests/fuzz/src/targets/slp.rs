//! Any bytes as an SLP message and as SLP's strings: what anybody on the private network may send to port 427.

use rsip_slp::text::{AttributeList, Predicate, ScopeList, ServiceUrl};
use rsip_slp::wire::{Framer, Message};

use crate::input::Input;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => message(input.rest()),
        1 => stream(&mut input),
        _ => strings(input),
    }
}

fn message(bytes: &[u8]) {
    match Message::parse(bytes) {
        Ok(message) => {
            let Ok(written) = message.encode() else { return };
            assert_eq!(Message::parse(&written).as_ref(), Ok(&message), "read back differently");
            // A datagram's limit cuts, and never breaks.
            for limit in [60, 200, 1400] {
                if let Ok(short) = message.encode_datagram(limit) {
                    assert!(Message::parse(&short).is_ok(), "cut to {limit} bytes it is no message");
                }
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn stream(input: &mut Input<'_>) {
    let step = usize::from(input.byte()) + 1;
    let bytes = input.rest();
    let drain = |framer: &mut Framer| {
        std::iter::from_fn(|| framer.next_message().transpose()).take_while(Result::is_ok).collect::<Vec<_>>()
    };
    let mut whole = Framer::new(2000);
    whole.push(bytes);
    let expected = drain(&mut whole);
    let mut cut = Framer::new(2000);
    let mut seen = Vec::new();
    for piece in bytes.chunks(step) {
        cut.push(piece);
        seen.extend(drain(&mut cut));
    }
    assert_eq!(seen, expected, "the cuts matter");
}

fn strings(mut input: Input<'_>) {
    let length = usize::from(input.byte());
    let first = String::from_utf8_lossy(input.bytes(length)).into_owned();
    let second = String::from_utf8_lossy(input.rest()).into_owned();
    let attributes = AttributeList::parse(&second);
    if let Ok(attributes) = &attributes {
        let text = attributes.to_string();
        assert_eq!(AttributeList::parse(&text).as_ref(), Ok(attributes), "{text:?} means something else");
    }
    if let (Ok(predicate), Ok(attributes)) = (Predicate::parse(&first), &attributes) {
        let satisfied = predicate.is_satisfied_by(attributes);
        let negated = Predicate::parse(&format!("(!{first})"));
        // One level deeper may be one too deep.
        if let Ok(negated) = negated.as_ref().map(|negated| negated.is_satisfied_by(attributes))
            && !predicate.is_empty()
        {
            // Both may hold where an attribute has several values (RFC 2608 section 8.1).
            assert!(satisfied || negated, "{first:?} is neither true nor false of {second:?}");
        }
    }
    if let (Ok(ours), Ok(theirs)) = (ScopeList::parse(&first), ScopeList::parse(&second)) {
        assert_eq!(ours.intersects(&theirs), theirs.intersects(&ours));
        assert!(
            ours.intersection(&theirs).iter().all(|scope| ours.contains(scope) && theirs.contains(scope))
        );
    }
    if let Ok(url) = ServiceUrl::parse(&first) {
        assert_eq!(ServiceUrl::parse(&url.to_string()).as_ref(), Ok(&url));
    }
}
