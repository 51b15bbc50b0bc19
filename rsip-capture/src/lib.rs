//! Captures of what gateway and host say, and their judgement by a decoder that is not ours.
//!
//! Every test that makes a gateway or a host speak hands the bytes to [`record`], wherever they come from: a state
//! machine with virtual time, a daemon on loopback, the lab's cable. Where `RSIP_CAPTURE_DIR` names a folder, they are
//! written there as packets of a capture file, as they would stand on the wire; else nothing happens. `rsip-judge` then
//! reads the whole folder, gives each message once to tshark's RSIP dissector, and compares every field that it sees
//! with our own reading of the same bytes.
//!
//! | module | what |
//! |---|---|
//! | [`packet`] | a message in an IPv4 packet, and back |
//! | [`recorder`] | the capture files of a process |
//! | [`traffic`] | messages out of what tcpdump recorded on a cable: TCP streams put together and cut |
//! | [`forms`] | which forms of parameters a message has |
//! | [`judge`] | tshark, our own reading, and the comparison |
#![forbid(unsafe_code)]

pub mod forms;
pub mod judge;
pub mod packet;
pub mod recorder;
pub mod traffic;

pub use packet::{CaptureError, RSIP_PORT, Spoken, Transport};
pub use recorder::{CAPTURE_DIR, Collection, Recorder, record};
