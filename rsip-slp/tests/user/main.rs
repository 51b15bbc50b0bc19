//! Dialogues of the user agent, in virtual time.

mod directories;
mod limits;
mod rig;
mod services;
