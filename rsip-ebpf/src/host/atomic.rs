//! Read-modify-write operations on map entries that programs on several CPUs share.
//!
//! The instructions exist since kernel 5.12, but rustc's bpf target still says that it has none, and so `core::sync::atomic`
//! offers only loads and stores there: the assembler has to do.

#[cfg(target_arch = "bpf")]
use core::arch::asm;
#[cfg(not(target_arch = "bpf"))]
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

/// Add, wrapping, and return what was there before.
///
/// # Safety
///
/// `entry` must point to a map entry that nothing but atomic operations changes while programs run.
#[inline(always)]
pub(crate) unsafe fn fetch_add(entry: *mut u32, value: u32) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let mut register = u64::from(value);
        // SAFETY: the caller's promise; the registers are as declared.
        unsafe {
            asm!(
                "w1 = atomic_fetch_add((u32 *)(r2 + 0), w1)",
                inout("r1") register,
                in("r2") entry,
                options(nostack),
            );
        }
        register as u32
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe {
        AtomicU32::from_ptr(entry).fetch_add(value, SeqCst)
    }
}

/// Subtract, wrapping, and return what was there before.
///
/// # Safety
///
/// As for [`fetch_add`].
#[inline(always)]
pub(crate) unsafe fn fetch_sub(entry: *mut u32, value: u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { fetch_add(entry, value.wrapping_neg()) }
}

/// Replace `expected` by `new`; `false` if something else was there.
///
/// # Safety
///
/// As for [`fetch_add`].
#[inline(always)]
pub(crate) unsafe fn replace(entry: *mut u64, expected: u64, new: u64) -> bool {
    #[cfg(target_arch = "bpf")]
    {
        let mut found = expected;
        // SAFETY: the caller's promise; the registers are as declared.
        unsafe {
            asm!(
                "r0 = cmpxchg_64(r1 + 0, r0, r2)",
                inout("r0") found,
                in("r1") entry,
                in("r2") new,
                options(nostack),
            );
        }
        found == expected
    }
    #[cfg(not(target_arch = "bpf"))]
    // SAFETY: the caller's promise.
    unsafe {
        AtomicU64::from_ptr(entry).compare_exchange(expected, new, SeqCst, SeqCst).is_ok()
    }
}
