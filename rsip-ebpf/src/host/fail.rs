//! How a hook has its system call fail.

#[cfg(target_arch = "bpf")]
use core::arch::asm;

use aya_ebpf::helpers::generated::bpf_set_retval;

/// The system call ends with this errno (positive, at most 4095).
///
/// The verifier of newer kernels (seen on 7.3, not on 6.18) wants to see that it is one. The compiler, which knows that of its
/// own, would leave out whatever looks again: the assembler does.
#[inline(always)]
pub(crate) fn with(errno: i32) {
    #[allow(unused_mut, reason = "only the assembler changes it")]
    let mut answer = i64::from(errno);
    #[cfg(target_arch = "bpf")]
    // SAFETY: one register, as declared.
    unsafe {
        asm!("r1 &= 4095", "r1 = -r1", inout("r1") answer, options(pure, nomem, nostack));
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        answer = -answer;
    }
    // SAFETY: takes no pointer.
    unsafe { bpf_set_retval(answer as i32) };
}
