//! System calls without a safe wrapper in `nix`: packet sockets, their filter, their batches and groups.
#![allow(unsafe_code)]

mod rx_ring;

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io::{Error, ErrorKind, Result};
use std::mem::{MaybeUninit, size_of};
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::time::Duration;

use libc::{c_int, c_void, sock_filter, sock_fprog, sockaddr_ll, socklen_t};

pub(super) use self::rx_ring::RxRing;
use crate::interface::MacAddr;
use crate::wire::ndp::Checksum;

/// A packet socket on one interface. It receives the frames that [`FILTER`] accepts, and none that this host sends.
pub(super) fn packet_socket(interface: u32) -> Result<OwnedFd> {
    let socket = unbound_packet_socket()?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1_i32)?;
    bind_to_interface(&socket, interface)?;
    Ok(socket)
}

/// Like [`packet_socket`], with a shared receive ring.
pub(super) fn packet_socket_with_ring(interface: u32) -> Result<(OwnedFd, RxRing)> {
    let socket = unbound_packet_socket()?;
    let ring = RxRing::attach(&socket)?;
    bind_to_interface(&socket, interface)?;
    Ok((socket, ring))
}

/// A packet socket with its filter, not bound to an interface.
fn unbound_packet_socket() -> Result<OwnedFd> {
    // Protocol 0 receives nothing, so no frame is queued before the filter is attached.
    let socket = new_socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    let program = sock_fprog { len: FILTER.len() as u16, filter: FILTER.as_ptr().cast_mut() };
    set_option(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
    // The kernel caps the sizes. A smaller send buffer only means that a burst is sent in more turns.
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &SOCKET_BUFFER)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, &SOCKET_BUFFER)?;
    Ok(socket)
}

fn bind_to_interface(socket: &OwnedFd, interface: u32) -> Result<()> {
    // SAFETY: sockaddr_ll is plain data for which all zeros is a value.
    let mut address: sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    // A socket for one EtherType receives frames of other VLANs with their tag removed. ETH_P_ALL keeps the tag
    // visible to the filter.
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = interface as c_int;
    bind(socket, &address)
}

/// Buffers for one call of `recvmmsg`. The message headers that point to them are written once.
pub(super) struct ReceiveBuffers {
    /// Owned. A raw pointer and not a `Box`, because the headers inside point to the other fields.
    buffers: NonNull<Buffers>,
    received: [(usize, Checksum); BATCH],
    len: usize,
}

struct Buffers {
    frames: [FrameBuffer; BATCH],
    control: [Control; BATCH],
    pieces: [libc::iovec; BATCH],
    messages: [libc::mmsghdr; BATCH],
}

/// The buffer of one frame. The unused cache line at its end keeps the starts of the frames from falling into the same
/// few cache sets.
#[repr(C, align(64))]
struct FrameBuffer([u8; FRAME_MAX + 64]);

/// The buffer of one `tpacket_auxdata` and its header, with the alignment of `cmsghdr`.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

// SAFETY: the buffers are owned, and nothing in them is tied to a thread.
unsafe impl Send for ReceiveBuffers {}

impl ReceiveBuffers {
    pub(super) fn new() -> Self {
        let layout = Layout::new::<Buffers>();
        // SAFETY: the layout is not of size 0.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(buffers) = NonNull::new(memory.cast::<Buffers>()) else { handle_alloc_error(layout) };
        let at = buffers.as_ptr();
        for index in 0..BATCH {
            // SAFETY: the memory is valid for `Buffers`, which is plain data for which all zeros is a value, and not
            // shared. `index` is inside each array. No reference is created, so the stored pointers stay valid until
            // the memory is freed.
            unsafe {
                let piece = &raw mut (*at).pieces[index];
                (*piece).iov_base = (&raw mut (*at).frames[index]).cast();
                (*piece).iov_len = FRAME_MAX;
                let message = &raw mut (*at).messages[index].msg_hdr;
                (*message).msg_iov = piece;
                (*message).msg_iovlen = 1;
                (*message).msg_control = (&raw mut (*at).control[index]).cast();
                (*message).msg_controllen = CONTROL as _; // the type differs between C libraries
            }
        }
        Self { buffers, received: [(0, Checksum::Present); BATCH], len: 0 }
    }

    /// The frames of the last [`receive_batch`].
    pub(super) fn frames(&self) -> impl Iterator<Item = (&[u8], Checksum)> {
        let at = self.buffers.as_ptr();
        self.received.iter().take(self.len).enumerate().map(move |(index, &(len, checksum))| {
            // SAFETY: the buffers are alive, `index` is less than BATCH, all bytes are initialised, and they are not
            // written while `self` is borrowed.
            let frame = unsafe { &(*at).frames[index].0 };
            (&frame[..len.min(FRAME_MAX)], checksum)
        })
    }
}

impl Drop for ReceiveBuffers {
    fn drop(&mut self) {
        // SAFETY: the memory was allocated with this layout, and no reference to it is left. Its fields need no drop.
        unsafe { dealloc(self.buffers.as_ptr().cast(), Layout::new::<Buffers>()) };
    }
}

/// Receives up to `most` waiting frames, at most [`BATCH`]; returns 0 if none waits.
pub(super) fn receive_batch(socket: &OwnedFd, buffers: &mut ReceiveBuffers, most: usize) -> Result<usize> {
    let at = buffers.buffers.as_ptr();
    buffers.len = 0;
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: the buffers are alive and not borrowed elsewhere. Each message points to its own frame buffer and control
    // buffer with their lengths.
    let count = unsafe {
        let messages = (&raw mut (*at).messages).cast();
        libc::recvmmsg(socket.as_raw_fd(), messages, most.min(BATCH) as u32, flags as _, std::ptr::null_mut())
    };
    let Ok(count) = usize::try_from(count) else {
        return match Error::last_os_error() {
            error if is_transient(&error) => Ok(0),
            error => Err(error),
        };
    };
    for (index, received) in buffers.received.iter_mut().take(count).enumerate() {
        // SAFETY: as above, and the system call has returned.
        let message = unsafe { &mut (*at).messages[index] };
        *received = (message.msg_len as usize, checksum_of(&message.msg_hdr));
        // The kernel replaced the length by the number of bytes that it used.
        message.msg_hdr.msg_controllen = CONTROL as _;
    }
    buffers.len = count;
    Ok(count)
}

/// Whether the checksum of a received frame can be verified.
fn checksum_of(message: &libc::msghdr) -> Checksum {
    // SAFETY: the kernel filled the control buffer that `message` points to and set its length, and the macros stay
    // inside it. The payload of PACKET_AUXDATA is a tpacket_auxdata, which is read unaligned.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while let Some(control) = header.as_ref() {
            if control.cmsg_level == libc::SOL_PACKET && control.cmsg_type == libc::PACKET_AUXDATA {
                let data: libc::tpacket_auxdata =
                    libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>().read_unaligned();
                if data.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0 {
                    return Checksum::Offloaded;
                }
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    Checksum::Present
}

/// Sends at most [`BATCH`] frames; returns how many the kernel accepted, at least one. An error is about the first one.
pub(super) fn send_batch<F: AsRef<[u8]>>(socket: &OwnedFd, frames: &[F]) -> Result<usize> {
    let mut pieces = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
    let count = frames.len().min(BATCH);
    // Only the needed headers are written, because a single reply should not wait for 64 of them.
    for ((frame, piece), message) in frames.iter().zip(&mut pieces).zip(&mut messages) {
        let frame = frame.as_ref();
        let piece = piece.write(libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() });
        // SAFETY: mmsghdr is plain data for which all zeros is a value.
        let message = message.write(unsafe { std::mem::zeroed() });
        message.msg_hdr.msg_iov = piece;
        message.msg_hdr.msg_iovlen = 1;
    }
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: the first `count` messages are initialised, and each points to a frame and its length. The kernel only
    // reads the frames, and all of them outlive the call.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr().cast(), count as u32, flags as _) };
    usize::try_from(sent).map_err(|_| Error::last_os_error())
}

/// Makes a routing netlink socket drop messages about routes other than default routes. Some hosts have a million
/// routes that change all the time.
pub(super) fn attach_default_route_filter(socket: &impl AsRawFd) -> Result<()> {
    let program = sock_fprog { len: DEFAULT_ROUTES.len() as u16, filter: DEFAULT_ROUTES.as_ptr().cast_mut() };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// The descriptors to wait for. Only their numbers are stored; `poll` reports one that was closed meanwhile.
#[derive(Default)]
pub(super) struct Poller(Vec<libc::pollfd>);

impl Poller {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a descriptor and waits until it is readable or, if `write` is set, writable.
    pub(super) fn push(&mut self, fd: BorrowedFd<'_>, write: bool) {
        let events = libc::POLLIN | if write { libc::POLLOUT } else { 0 };
        self.0.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
    }

    /// Waits until a descriptor is ready or the timeout ends; `None` waits without limit. Returns the number of ready
    /// descriptors.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> Result<usize> {
        let timeout = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs().min(u64::from(u32::MAX >> 1)) as _,
            tv_nsec: timeout.subsec_nanos() as _,
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the pointer and length describe the live vector. The timeout is null or outlives the call.
        let result =
            unsafe { libc::ppoll(self.0.as_mut_ptr(), self.0.len() as libc::nfds_t, timeout, std::ptr::null()) };
        usize::try_from(result).map_err(|_| Error::last_os_error())
    }

    /// Whether the descriptor that was added at `index` is ready or has an error.
    pub(super) fn is_ready(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(|fd| fd.revents != 0)
    }
}

/// Joins or leaves a link-layer group on a packet socket.
pub(super) fn set_group(socket: &OwnedFd, interface: u32, group: MacAddr, join: bool) -> Result<()> {
    // SAFETY: packet_mreq is plain data for which all zeros is a value.
    let mut request: libc::packet_mreq = unsafe { std::mem::zeroed() };
    request.mr_ifindex = interface as c_int;
    request.mr_type = libc::PACKET_MR_MULTICAST as u16;
    request.mr_alen = 6;
    request.mr_address[..6].copy_from_slice(&group.0);
    let option = if join { libc::PACKET_ADD_MEMBERSHIP } else { libc::PACKET_DROP_MEMBERSHIP };
    set_option(socket, libc::SOL_PACKET, option, &request)
}

/// A UDP socket for memberships in IPv6 groups, which the kernel reports to snooping switches (RFC 3810).
pub(super) fn membership_socket() -> Result<OwnedFd> {
    new_socket(libc::AF_INET6, libc::SOCK_DGRAM, 0)
}

/// Joins or leaves an IPv6 group.
pub(super) fn set_membership(socket: &OwnedFd, interface: u32, group: Ipv6Addr, join: bool) -> Result<()> {
    let address = libc::in6_addr { s6_addr: group.octets() };
    let request = libc::ipv6_mreq { ipv6mr_multiaddr: address, ipv6mr_interface: interface };
    let option = if join { libc::IPV6_ADD_MEMBERSHIP } else { libc::IPV6_DROP_MEMBERSHIP };
    set_option(socket, libc::IPPROTO_IPV6, option, &request)
}

/// Whether an error means that the call can simply be repeated later.
pub(super) fn is_transient(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn new_socket(family: c_int, kind: c_int, protocol: c_int) -> Result<OwnedFd> {
    // SAFETY: no memory is passed. A non-negative result is a new descriptor without another owner.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol);
        if fd < 0 { Err(Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn set_option<T>(socket: &impl AsRawFd, level: c_int, option: c_int, value: &T) -> Result<()> {
    let value = std::ptr::from_ref(value).cast::<c_void>();
    // SAFETY: the pointer and length describe a live T. Each caller passes the type that the option reads.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, size_of::<T>() as socklen_t) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn bind<T>(socket: &OwnedFd, address: &T) -> Result<()> {
    let pointer = std::ptr::from_ref(address).cast::<libc::sockaddr>();
    // SAFETY: the pointer and length describe a live address of the socket's family.
    let result = unsafe { libc::bind(socket.as_raw_fd(), pointer, size_of::<T>() as socklen_t) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

const fn load(mode: u32, at: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_LD | libc::BPF_ABS | mode) as u16, jt: 0, jf: 0, k: at }
}

const fn jump_if_equal(value: u32, yes: u8, no: u8) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: yes, jf: no, k: value }
}

const fn accept(bytes: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: bytes }
}

const fn and(mask: u32) -> sock_filter {
    sock_filter { code: (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16, jt: 0, jf: 0, k: mask }
}

/// Offsets of frame metadata for the filter: `SKF_AD_OFF` plus the offset of each, see `linux/filter.h`.
const PACKET_TYPE: u32 = (-0x1000_i32 + 4) as u32;
const VLAN_TAG: u32 = (-0x1000_i32 + 44) as u32;
const VLAN_TAG_PRESENT: u32 = (-0x1000_i32 + 48) as u32;

/// Accepts ARP, and ICMPv6 neighbour solicitations and advertisements without extension headers. Drops frames for other
/// hosts and frames of a VLAN other than VLAN 0, the priority tag.
const FILTER: [sock_filter; 17] = [
    load(libc::BPF_B, PACKET_TYPE),
    jump_if_equal(libc::PACKET_OTHERHOST as u32, 14, 0),
    load(libc::BPF_H, VLAN_TAG_PRESENT),
    jump_if_equal(0, 3, 0),
    load(libc::BPF_H, VLAN_TAG),
    and(0x0fff),
    jump_if_equal(0, 0, 9),
    load(libc::BPF_H, 12),
    jump_if_equal(0x0806, 6, 0),
    jump_if_equal(0x86dd, 0, 6),
    load(libc::BPF_B, 14 + 6),
    jump_if_equal(58, 0, 4),
    load(libc::BPF_B, 14 + 40),
    jump_if_equal(135, 1, 0),
    jump_if_equal(136, 0, 1),
    accept(FRAME_MAX as u32),
    accept(0),
];

/// Accepts all messages except those about routes with a destination. The message type is at offset 4 in host byte
/// order, and the prefix length of the destination at offset 17.
const DEFAULT_ROUTES: [sock_filter; 7] = [
    load(libc::BPF_H, 4),
    jump_if_equal(libc::RTM_NEWROUTE.to_be() as u32, 1, 0),
    jump_if_equal(libc::RTM_DELROUTE.to_be() as u32, 0, 2),
    load(libc::BPF_B, 17),
    jump_if_equal(0, 0, 1),
    accept(u32::MAX),
    accept(0),
];

/// The largest number of frames per system call.
pub(super) const BATCH: usize = 64;
/// Bytes of a frame that are kept, enough for the headers and 255 options of 8 bytes. No valid neighbour discovery
/// message is longer.
const FRAME_MAX: usize = 2176;
/// Bytes of control data per frame.
const CONTROL: usize = 64;
/// The requested size of a socket buffer in bytes.
const SOCKET_BUFFER: c_int = 4 << 20;
