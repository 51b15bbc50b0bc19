//! Where the kernel keeps "this socket takes IPv6 only", so that the hook can tell `[::]:80` for IPv6 alone, which needs
//! no lease, from the dual-stack one, which does. Read from the running kernel's own type information.

use btf_rs::{Btf, Type};
use rsip_ebpf_common::host::SOCK_PREFIX;

/// Byte offset in `struct sock`, and the bit in that byte. `None`: this kernel does not tell.
pub(super) fn locate() -> Option<(u32, u32)> {
    let btf = Btf::from_file("/sys/kernel/btf/vmlinux").ok()?;
    let types = btf.resolve_types_by_name("sock_common").ok()?;
    types.iter().find_map(|candidate| {
        // `struct sock` begins with `struct sock_common`.
        let Type::Struct(common) = candidate else { return None };
        common.members.iter().find_map(|member| {
            let name = btf.resolve_name(member).ok()?;
            (name == "skc_ipv6only").then(|| bit(member.bit_offset()))?
        })
    })
}

fn bit(offset: u32) -> Option<(u32, u32)> {
    let byte = offset / 8;
    // Bit fields are counted from the low end on little-endian machines, which are all that the programs are built for.
    (byte < SOCK_PREFIX).then_some((byte, 1 << (offset % 8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_bit_in_this_kernel() {
        let (offset, mask) = locate().expect("this kernel has type information");
        assert!(offset < SOCK_PREFIX && mask.is_power_of_two() && mask < 256);
    }

    #[test]
    fn refuses_what_the_programs_cannot_reach() {
        assert_eq!(bit(8 * SOCK_PREFIX), None);
        assert_eq!(bit(8 * 19 + 5), Some((19, 32)));
    }
}
