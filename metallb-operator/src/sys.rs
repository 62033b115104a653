//! What only the operating system gives: memory and randomness. The only room with calls that have no safe wrapper.
#![allow(unsafe_code)]

/// Has all threads that start later take their memory from one place. The allocator of glibc gives each a place of its own, and what one
/// of them frees there no other uses: after reading a thousand Services a third of the memory was like that. Other C libraries have
/// one place anyway.
pub(crate) fn share_memory() {
    // SAFETY: it sets a number inside the allocator, under its lock.
    #[cfg(target_env = "gnu")]
    let accepted = unsafe { nix::libc::mallopt(nix::libc::M_ARENA_MAX, 1) };
    #[cfg(target_env = "gnu")]
    if accepted == 0 {
        tracing::debug!("each thread has memory of its own");
    }
}

/// Gives the memory that is free back to the kernel. What is read and thrown away lies between what is kept, where the allocator of
/// glibc never gives it back by itself. No other thread gets memory meanwhile, so it is for rare occasions.
pub(crate) fn give_back_memory() {
    // SAFETY: it works inside the allocator, under its lock, on memory that nobody has.
    #[cfg(target_env = "gnu")]
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

/// A number that no other process on this network is likely to have: it jitters timers and tells processes apart. Nothing secret
/// depends on it.
pub(crate) fn seed() -> u64 {
    getrandom::u64().unwrap_or_else(|_| u64::from(std::process::id()))
}
