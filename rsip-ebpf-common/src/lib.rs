//! Types that cross the boundary between the eBPF programs and user space: map keys and values, map and program names,
//! verdicts and drop reasons. One definition, used by both sides; the asserts pin the layout.
//!
//! Addresses are in network byte order as they stand in the packet (`u32::from_ne_bytes(address.octets())`); ports and
//! all other integers are in host byte order.
#![cfg_attr(not(test), no_std)]

pub mod gateway;
pub mod host;
pub mod layout;
pub mod rules;

/// Changes with every change of a map's layout or meaning.
pub const ABI_VERSION: u32 = 1;
