//! Socket operations without a safe wrapper.
#![allow(unsafe_code)]

use std::io::{Error, Result};
use std::mem::size_of;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// `struct tcp_md5sig` of `linux/tcp.h`.
#[repr(C)]
struct TcpMd5Sig {
    address: libc::sockaddr_storage,
    flags: u8,
    prefix_length: u8,
    key_length: u16,
    interface: i32,
    key: [u8; 80],
}

/// Sets the key for segments to and from `peer` (TCP MD5, RFC 2385). Must be called before the connection is opened.
pub(super) fn set_md5(socket: BorrowedFd<'_>, peer: IpAddr, password: &[u8]) -> Result<()> {
    // SAFETY: it is plain data, and all zeros are a valid value.
    let mut signature: TcpMd5Sig = unsafe { std::mem::zeroed() };
    let address = socket2::SockAddr::from(std::net::SocketAddr::new(peer, 0));
    let length = usize::try_from(address.len()).unwrap_or(0).min(size_of::<libc::sockaddr_storage>());
    // SAFETY: both point to live socket address storage of at least `length` bytes, and do not overlap.
    unsafe {
        std::ptr::copy_nonoverlapping(
            address.as_ptr().cast::<u8>(),
            std::ptr::from_mut(&mut signature.address).cast::<u8>(),
            length,
        );
    }
    let key = signature.key.get_mut(..password.len()).ok_or_else(|| Error::from_raw_os_error(libc::EINVAL))?;
    key.copy_from_slice(password);
    signature.key_length = password.len() as u16;
    // SAFETY: the pointer and length describe a live tcp_md5sig, which is what the option reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_MD5SIG,
            std::ptr::from_ref(&signature).cast(),
            size_of::<TcpMd5Sig>() as libc::socklen_t,
        )
    };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Registers a socket for readiness to read. Must be called inside a tokio runtime.
pub(super) fn readable(socket: Socket) -> Result<AsyncFd<Socket>> {
    // SAFETY: `Socket` owns its descriptor and neither closes nor replaces it before it is dropped, and `AsyncFd`
    // deregisters first.
    Ok(unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?)
}
