//! The codec from outside: vectors both ways, every error, properties, framing.

mod capture;
mod errors;
mod forms;
mod framer;
mod hex;
mod properties;
mod refusals;
mod vectors;
