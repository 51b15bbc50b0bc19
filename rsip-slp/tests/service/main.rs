//! Dialogues of the service agent, in virtual time.

mod answers;
mod daemon;
mod directories;
mod properties;
mod rig;
mod updates;
