//! Resident memory on macOS.

/// Returns the largest resident memory that this process ever had, in bytes; 0 when it cannot be
/// read. The present one needs Mach calls; the peak is what a leak shows in.
#[allow(unsafe_code)]
pub(super) fn resident_bytes() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is a valid place for one `rusage`, and zeroed bytes are a valid one.
    let usage = unsafe {
        if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
            return 0;
        }
        usage.assume_init()
    };
    // In bytes here, unlike on Linux.
    u64::try_from(usage.ru_maxrss).unwrap_or(0)
}
