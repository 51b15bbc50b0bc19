//! Recorded conversations: inputs and the exact bytes and steps that come of them, file by file.
//!
//! A file is played and written anew; the result must be the file. So each byte of each output counts, and each wake-up at
//! its time. `cargo run -p rsip-proto --example conversations` shows what differs, and with `--write` writes the files
//! anew, for a person to review: tests never do.

#![allow(clippy::panic, reason = "a file that makes no sense ends its test")]

mod gateway;
mod host;
mod script;

use std::collections::BTreeSet;
use std::path::Path;

use rsip_capture::{Collection, Spoken};
use rsip_proto::wire::{Message, MessageType};
use script::{Played, files, play};

/// Plays the file of this name.
fn holds(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance").join(format!("{name}.conv"));
    let text = std::fs::read_to_string(&path).expect("a conversation");
    let Played { text: now, said } = play(&text);
    let pairs = text.lines().zip(now.lines()).enumerate();
    for (number, (recorded, played)) in pairs {
        assert_eq!(recorded, played, "{name}.conv, line {}", number + 1);
    }
    assert_eq!(text.lines().count(), now.lines().count(), "{name}.conv: more or less than recorded");
    said.iter().for_each(record);
}

/// What the machines said goes into the capture of this run.
fn record(spoken: &Spoken) {
    rsip_capture::record(Collection::Spoken, spoken).expect("the capture can be written");
}

macro_rules! conversations {
    ($($name:ident)+) => {
        $(#[test]
        fn $name() {
            holds(stringify!($name));
        })+

        /// What has a test.
        const NAMES: &[&str] = &[$(stringify!($name)),+];
    };
}

conversations! {
    appendix_c_rsa_ip
    appendix_c_rsap_ip_micro
    appendix_c_rsap_ip_remote
    counters_wrap_around
    data_misuse
    duplicates_are_answered_again
    errors_in_their_order
    errors_of_the_codec
    gateway_after_its_restart
    gateway_takes_back
    host_after_a_gateway_restart
    host_after_its_own_restart
    host_at_work
    host_from_whom_things_are_taken
    host_over_tcp
    host_retransmits_and_gives_up
    host_under_a_remote_policy
    host_with_a_whole_address
    leases_end
    listen_with_wildcards
    queries
    remote_micro
    streams_without_counters
    worked_example
}

#[test]
fn every_file_has_its_test() {
    let files: BTreeSet<String> = files().into_keys().collect();
    assert_eq!(files, NAMES.iter().map(|name| (*name).to_owned()).collect());
}

#[test]
fn every_message_type_is_said() {
    let said: BTreeSet<MessageType> = files()
        .into_values()
        .flat_map(|text| play(&text).said)
        .map(|spoken| Message::parse(&spoken.message).expect("what is said is a message").message_type())
        .collect();
    assert_eq!(said, MessageType::ALL.iter().copied().collect());
}
