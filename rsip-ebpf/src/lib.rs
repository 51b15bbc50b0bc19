//! eBPF programs of the host agent and of the gateway.
//!
//! Two objects come out of this crate: `rsip-host` (hooks on bind, connect and release, and the tunnel) and `rsip-gateway`
//! (encapsulation, decapsulation, choice of the host by port). The library holds what is arithmetic and nothing else: it
//! calls no helper and touches no map, so that its tests run on the machine that builds it.
#![cfg_attr(not(test), no_std)]

pub mod arp;
pub mod gre;
pub mod icmp;
pub mod ipv4;
pub mod peer;
pub mod port;
pub mod remote;
