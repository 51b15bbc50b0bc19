//! Programs of the gateway: they give each packet from outside to the host that holds its destination port, and let each packet
//! of a host out if the host holds its source port. The contract with the daemon is in `rsip_ebpf_common::gateway`.
//!
//! There is no state per flow: the table of holders decides, in both directions. What has no port follows something
//! that had one: later fragments their first fragment, ICMP errors the datagram they quote, echo replies their request. An
//! address that one host holds whole needs none of this.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

mod inward;
mod maps;
mod mtu;
mod outward;
mod parse;
mod report;
#[path = "../tc.rs"]
mod tc;
mod whole;

/// The programs use helpers that the kernel reserves for GPL-compatible ones.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("rsip-gateway: eBPF only: build it with `cargo xtask build-ebpf`");
    std::process::exit(1);
}
