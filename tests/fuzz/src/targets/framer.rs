//! A byte stream, and where it is cut: the cuts must not matter.

use rsip_proto::wire::{FrameError, Framer, HEADER_LEN};

use crate::input::Input;

type Framed = Vec<Result<Vec<u8>, FrameError>>;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    // A small limit now and then, as a gateway has for strangers.
    let limit = match input.byte() {
        0 => None,
        small => Some(usize::from(small) + HEADER_LEN),
    };
    let mut cuts = Input::new(input.bytes(usize::from(data.first().copied().unwrap_or_default() % 16)));
    let stream = input.rest();
    let framer = || limit.map_or_else(Framer::new, Framer::with_max_message_len);

    let mut whole = framer();
    whole.push(stream);
    let expected = drain(&mut whole);

    let mut cut = framer();
    let mut seen = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let step = if cuts.is_empty() { 7 } else { usize::from(cuts.byte()) + 1 };
        let (now, later) = rest.split_at(step.min(rest.len()));
        cut.push(now);
        seen.extend(drain(&mut cut));
        assert!(
            cut.pending() < limit.unwrap_or(usize::from(u16::MAX)).max(HEADER_LEN),
            "holds more than a message"
        );
        rest = later;
    }
    assert_eq!(seen, expected, "the cuts matter");
    assert_eq!(cut.pending(), whole.pending());

    let taken: usize = expected.iter().flatten().map(Vec::len).sum();
    assert!(stream.starts_with(&expected.iter().flatten().flatten().copied().collect::<Vec<_>>()));
    if expected.iter().all(Result::is_ok) {
        assert_eq!(taken + whole.pending(), stream.len(), "bytes were lost");
    }
}

fn drain(framer: &mut Framer) -> Framed {
    std::iter::from_fn(|| framer.next_message()).collect()
}
