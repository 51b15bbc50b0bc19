//! Programs of the host agent: what bind, connect, send and close of every program on this host run through, and the
//! tunnel to the gateway. The contract with the agent is in `rsip_ebpf_common::host`.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

mod arp;
mod atomic;
mod bind;
mod connect;
mod event;
mod fail;
mod kernel;
mod maps;
mod park;
mod peer;
mod privilege;
mod release;
mod room;
mod rules;
mod scope;
mod task;
#[path = "../tc.rs"]
mod tc;
mod tunnel;

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
    eprintln!("rsip-host: eBPF only: build it with `cargo xtask build-ebpf`");
    std::process::exit(1);
}
