//! What no input may bring about, as functions of bytes that panic when it happens: fuzz targets.
//!
//! `cargo xtask fuzz` feeds them with libFuzzer; `tests/replay.rs` runs each over its committed corpus, so that what was
//! once found is looked for in every test run.
//!
//! | target | input | must hold |
//! |---|---|---|
//! | `codec` | one message | parse never panics; what it accepts is written and read back as the same message |
//! | `framer` | a stream and how it is cut | the same messages whatever the cuts |
//! | `host` | what a gateway says, what programs want, what the shell answers, how time goes | no port without a lease; everybody is answered; one question at a time; an end |
//! | `gateway` | what hosts send, what the data path answers, how time goes | one holder per address and port; answers that fit their requests; nothing is lost, nothing grows |
//! | `slp` | an SLP message, a stream, or strings | as for `codec` and `framer`; a predicate is true or false |
#![forbid(unsafe_code)]

mod input;
mod targets;

/// Names the target to run, for the fuzzer's process.
pub const TARGET_VARIABLE: &str = "RSIP_FUZZ_TARGET";

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its corpus folder.
    pub name: &'static str,
    /// Takes any bytes; panics if something happens that must not.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 5] = [
    Target { name: "codec", run: targets::codec::run },
    Target { name: "framer", run: targets::framer::run },
    Target { name: "gateway", run: targets::gateway::run },
    Target { name: "host", run: targets::host::run },
    Target { name: "slp", run: targets::slp::run },
];

/// The target of this name.
#[must_use]
pub fn find(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
