//! Messages as bytes: vectors, refusals, properties, streams.

mod framer;
mod hex;
mod properties;
mod refusals;
mod vectors;
