//! The targets, one file each.

pub(crate) mod codec;
pub(crate) mod framer;
pub(crate) mod gateway;
pub(crate) mod host;
pub(crate) mod slp;
