//! Requests under way: when they are sent, sent again and given up.

mod convergence;
mod unicast;

pub(crate) use convergence::Convergence;
pub(crate) use unicast::Unicast;

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Send it, perhaps again.
    Send,
    /// Nothing.
    Wait,
    /// Nothing more will come.
    End,
}
