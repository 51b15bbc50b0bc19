//! What outlives a crash of the agent.

use std::time::Duration;

use crate::host::HostBinding;
use crate::ids::ClientId;

/// One binding, as saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedBinding {
    /// What was granted.
    pub binding: HostBinding,
    /// The lease as granted or extended last: no binding lives longer than this after a restart without the gateway's
    /// word.
    pub lease_time: Duration,
    /// It was being given back: nobody uses it.
    pub releasing: bool,
}

/// What the shell keeps in a file, so that a restarted agent goes on where the last one ended. Plain values; writing
/// and reading is the shell's work. Save it whenever it differs from what was saved last, before carrying out the
/// commands that came with the change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedState {
    /// The host's name at the gateway; `None`: not registered.
    pub client_id: Option<ClientId>,
    /// A request that may create a binding has no answer yet: after a crash the gateway may hold a binding whose name
    /// was never heard, and only registering anew gives it back.
    pub in_doubt: bool,
    /// Bindings held.
    pub bindings: Vec<SavedBinding>,
}
