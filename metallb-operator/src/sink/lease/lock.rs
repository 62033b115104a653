//! A lock that ends with the process: it proves that the process before this one in the same Pod has ended.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use super::identity::PodUid;

/// An abstract unix socket in the network namespace of the Pod. The kernel removes it when the process ends, however it
/// ends.
#[derive(Debug)]
pub(super) struct PodLock {
    _socket: UnixListener,
}

impl PodLock {
    /// Takes the lock of a Pod for one Lease, for as long as the value lives.
    ///
    /// # Errors
    /// `AddrInUse` when another process of the Pod holds it.
    pub(super) fn take(lease: &str, uid: &PodUid) -> io::Result<Self> {
        let name = format!("metallb/{lease}/{}", uid.as_str());
        let address = SocketAddr::from_abstract_name(name)?;
        Ok(Self { _socket: UnixListener::bind_addr(&address)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_lock_is_exclusive_until_it_is_dropped() {
        let uid = PodUid::parse(&format!("test-{}", std::process::id())).unwrap();
        let other = PodUid::parse(&format!("test-{}-other", std::process::id())).unwrap();
        let held = PodLock::take("lease", &uid).unwrap();
        assert_eq!(PodLock::take("lease", &uid).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let _beside = PodLock::take("lease", &other).unwrap();
        drop(held);
        PodLock::take("lease", &uid).unwrap();
    }
}
