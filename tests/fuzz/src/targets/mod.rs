//! The targets, one file each.

pub(crate) mod codec;
pub(crate) mod framer;
