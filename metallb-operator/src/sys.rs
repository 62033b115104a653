//! Memory, randomness and time from the operating system. Contains the calls that have no safe wrapper.
#![allow(unsafe_code)]

/// Makes all threads that start later share one memory arena. By default glibc gives each thread an arena, whose free
/// memory no other thread uses: after reading a thousand Services that was a third of the memory. Other C libraries
/// have one arena anyway.
pub(crate) fn share_memory() {
    // SAFETY: it sets a number inside the allocator, under the allocator's lock.
    #[cfg(target_env = "gnu")]
    let accepted = unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
    #[cfg(target_env = "gnu")]
    if accepted == 0 {
        tracing::debug!(event = "arenaLimitFailed", "mallopt(M_ARENA_MAX) failed");
    }
}

/// Returns free memory to the kernel. glibc does not return free memory that lies between used blocks by itself. Blocks
/// all allocations while it runs, so call it rarely.
pub(crate) fn give_back_memory() {
    // SAFETY: it works on free memory inside the allocator, under the allocator's lock.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// A random number that distinguishes processes and jitters timers. No secret depends on it.
pub(crate) fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()))
}

/// Sleeps until `deadline`; without one, for ever.
pub(crate) async fn sleep_until(deadline: Option<std::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
