//! The few system calls that have no safe wrapper: packet sockets, their filter and groups.
#![allow(unsafe_code)]

mod rx_ring;

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

/// A packet socket on one interface that receives what [`FILTER`] lets through, and nothing that this host sends.
pub(super) fn packet_socket(interface: u32) -> Result<OwnedFd> {
    let socket = unbound_packet_socket()?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1_i32)?;
    listen(&socket, interface)?;
    Ok(socket)
}

/// The same, which receives in memory that is shared with the kernel.
pub(super) fn packet_socket_with_ring(interface: u32) -> Result<(OwnedFd, RxRing)> {
    let socket = unbound_packet_socket()?;
    let ring = RxRing::attach(&socket)?;
    listen(&socket, interface)?;
    Ok((socket, ring))
}

/// A packet socket with its filter, on no interface yet.
fn unbound_packet_socket() -> Result<OwnedFd> {
    // Protocol 0 receives nothing: frames must not come in before the filter is there.
    let socket = new_socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    let program = sock_fprog { len: FILTER.len() as u16, filter: FILTER.as_ptr().cast_mut() };
    set_option(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
    // The kernel gives what it allows; less only means that a larger burst is sent in more turns.
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUF, &SOCKET_BUFFER)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUF, &SOCKET_BUFFER)?;
    Ok(socket)
}

fn listen(socket: &OwnedFd, interface: u32) -> Result<()> {
    // SAFETY: sockaddr_ll is plain data for which all zeros is a value.
    let mut address: sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    // Sockets for one EtherType see frames of foreign VLANs without their tag; this one sees that there was a tag.
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = interface as c_int;
    bind(socket, &address)
}

/// Room for frames that are received together. The headers that tell the kernel where it is are written once.
pub(super) struct ReceiveBuffers {
    /// Owned, and reached through this pointer alone, since the headers inside point to their neighbours.
    room: NonNull<Room>,
    received: [(usize, Checksum); BATCH],
    len: usize,
}

struct Room {
    frames: [Kept; BATCH],
    control: [Control; BATCH],
    pieces: [libc::iovec; BATCH],
    messages: [libc::mmsghdr; BATCH],
}

/// Room for one frame. The cache line at its end is not used: without it all frames would begin in the same few places of the cache.
#[repr(C, align(64))]
struct Kept([u8; FRAME_KEPT + 64]);

/// Room for one `tpacket_auxdata` and its header; aligned as `cmsghdr` must be.
#[repr(C, align(8))]
struct Control([u8; CONTROL]);

// SAFETY: the room is owned, and nothing in it is tied to a thread.
unsafe impl Send for ReceiveBuffers {}

impl ReceiveBuffers {
    pub(super) fn new() -> Self {
        // SAFETY: a room is plain data for which all zeros is a value.
        let room = NonNull::from(Box::leak(unsafe { Box::<Room>::new_zeroed().assume_init() }));
        let at = room.as_ptr();
        for place in 0..BATCH {
            // SAFETY: the room is alive and nobody else knows it; `place` is inside each of its arrays. No reference is made, so
            // the pointers that are stored stay good until the room is freed.
            unsafe {
                let piece = &raw mut (*at).pieces[place];
                (*piece).iov_base = (&raw mut (*at).frames[place]).cast();
                (*piece).iov_len = FRAME_KEPT;
                let message = &raw mut (*at).messages[place].msg_hdr;
                (*message).msg_iov = piece;
                (*message).msg_iovlen = 1;
                (*message).msg_control = (&raw mut (*at).control[place]).cast();
                (*message).msg_controllen = CONTROL as _; // another type with each C library
            }
        }
        Self { room, received: [(0, Checksum::Present); BATCH], len: 0 }
    }

    /// What the last [`receive_batch`] brought.
    pub(super) fn frames(&self) -> impl Iterator<Item = (&[u8], Checksum)> {
        let at = self.room.as_ptr();
        self.received.iter().take(self.len).enumerate().map(move |(place, &(len, checksum))| {
            // SAFETY: the room is alive, `place` is less than BATCH, all bytes were initialised, and nobody writes them while
            // `self` is borrowed.
            let frame = unsafe { &(*at).frames[place].0 };
            (&frame[..len.min(FRAME_KEPT)], checksum)
        })
    }
}

impl Drop for ReceiveBuffers {
    fn drop(&mut self) {
        // SAFETY: the room came from a box, and nobody uses it any more.
        drop(unsafe { Box::from_raw(self.room.as_ptr()) });
    }
}

/// Receives as many frames as there are, up to `most` and [`BATCH`]; 0 when there are none.
pub(super) fn receive_batch(socket: &OwnedFd, buffers: &mut ReceiveBuffers, most: usize) -> Result<usize> {
    let at = buffers.room.as_ptr();
    buffers.len = 0;
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: the room is alive and not borrowed by anybody else; each message points to its own frame buffer and control buffer
    // with their lengths.
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
    for (place, received) in buffers.received.iter_mut().take(count).enumerate() {
        // SAFETY: as above, and the kernel is done with the messages.
        let message = unsafe { &mut (*at).messages[place] };
        *received = (message.msg_len as usize, checksum_of(&message.msg_hdr));
        // The kernel left how much it used.
        message.msg_hdr.msg_controllen = CONTROL as _;
    }
    buffers.len = count;
    Ok(count)
}

/// What the kernel says about the checksum of a received frame.
fn checksum_of(message: &libc::msghdr) -> Checksum {
    // SAFETY: the kernel filled the control buffer that `message` points to and set its length; the macros stay inside it. The
    // payload of PACKET_AUXDATA is a tpacket_auxdata, read without a claim to its alignment.
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

/// Sends frames, at most [`BATCH`]; returns how many the kernel took, at least one. An error is about the first frame.
pub(super) fn send_batch<F: AsRef<[u8]>>(socket: &OwnedFd, frames: &[F]) -> Result<usize> {
    let mut pieces = [const { MaybeUninit::<libc::iovec>::uninit() }; BATCH];
    let mut messages = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; BATCH];
    let count = frames.len().min(BATCH);
    // Only as many as there are frames: a single answer should not wait until 64 headers are written.
    for ((frame, piece), message) in frames.iter().zip(&mut pieces).zip(&mut messages) {
        let frame = frame.as_ref();
        let piece = piece.write(libc::iovec { iov_base: frame.as_ptr().cast_mut().cast(), iov_len: frame.len() });
        // SAFETY: mmsghdr is plain data for which all zeros is a value.
        let message = message.write(unsafe { std::mem::zeroed() });
        message.msg_hdr.msg_iov = piece;
        message.msg_hdr.msg_iovlen = 1;
    }
    let flags = libc::MSG_DONTWAIT;
    // SAFETY: the first `count` messages are initialised, each points to a frame and its length; the kernel only reads frames, and
    // all outlive the call.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr().cast(), count as u32, flags as _) };
    usize::try_from(sent).map_err(|_| Error::last_os_error())
}

/// Keeps news of other routes than default routes from a routing netlink socket: some hosts have a million of them, always in motion.
pub(super) fn attach_default_route_filter(socket: &impl AsRawFd) -> Result<()> {
    let program = sock_fprog { len: DEFAULT_ROUTES.len() as u16, filter: DEFAULT_ROUTES.as_ptr().cast_mut() };
    set_option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Descriptors to wait for. They are only numbers here: one that is closed in between is reported, not touched.
#[derive(Default)]
pub(super) struct Poller(Vec<libc::pollfd>);

impl Poller {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Adds a descriptor to be read, and to be written if `write`.
    pub(super) fn push(&mut self, fd: BorrowedFd<'_>, write: bool) {
        let events = libc::POLLIN | if write { libc::POLLOUT } else { 0 };
        self.0.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
    }

    /// Waits until something can be done, or the time is over; without a time, for ever. Returns for how many descriptors there is
    /// something.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> Result<usize> {
        let timeout = timeout.map(|timeout| libc::timespec {
            tv_sec: timeout.as_secs().min(u64::from(u32::MAX >> 1)) as _,
            tv_nsec: timeout.subsec_nanos() as _,
        });
        let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: the pointer and length describe the live vector; the timeout is null or lives until the end of the function.
        let result =
            unsafe { libc::ppoll(self.0.as_mut_ptr(), self.0.len() as libc::nfds_t, timeout, std::ptr::null()) };
        usize::try_from(result).map_err(|_| Error::last_os_error())
    }

    /// Whether the descriptor that was added at `place` has something, be it an error.
    pub(super) fn is_ready(&self, place: usize) -> bool {
        self.0.get(place).is_some_and(|fd| fd.revents != 0)
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

/// A UDP socket that is a member of IPv6 groups, so that the kernel reports them to switches that snoop (RFC 3810).
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

/// Whether an error only says that there is nothing to do now.
pub(super) fn is_transient(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn new_socket(family: c_int, kind: c_int, protocol: c_int) -> Result<OwnedFd> {
    // SAFETY: no memory is passed; a non-negative result is a descriptor that nobody else owns.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol);
        if fd < 0 { Err(Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn set_option<T>(socket: &impl AsRawFd, level: c_int, option: c_int, value: &T) -> Result<()> {
    let value = std::ptr::from_ref(value).cast::<c_void>();
    // SAFETY: the pointer and length describe a live T, which each caller chose to be what the option reads.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, size_of::<T>() as socklen_t) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn bind<T>(socket: &OwnedFd, address: &T) -> Result<()> {
    let pointer = std::ptr::from_ref(address).cast::<libc::sockaddr>();
    // SAFETY: the pointer and length describe a live socket address of the socket's family.
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

/// Facts about a frame that are not in its bytes: `SKF_AD_OFF` and the offset of each, see `linux/filter.h`.
const PACKET_TYPE: u32 = (-0x1000_i32 + 4) as u32;
const VLAN_TAG: u32 = (-0x1000_i32 + 44) as u32;
const VLAN_TAG_PRESENT: u32 = (-0x1000_i32 + 48) as u32;

/// Nothing that is for another host, nothing of a VLAN other than the priority tag's VLAN 0; of the rest ARP, and ICMPv6 neighbour
/// solicitations and advertisements without extension headers.
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
    accept(FRAME_KEPT as u32),
    accept(0),
];

/// Everything but messages about routes with a destination: the type of a message is at 4, in the host's order, and the length of the
/// destination at 17.
const DEFAULT_ROUTES: [sock_filter; 7] = [
    load(libc::BPF_H, 4),
    jump_if_equal(libc::RTM_NEWROUTE.to_be() as u32, 1, 0),
    jump_if_equal(libc::RTM_DELROUTE.to_be() as u32, 0, 2),
    load(libc::BPF_B, 17),
    jump_if_equal(0, 0, 1),
    accept(u32::MAX),
    accept(0),
];

/// Frames that are received or sent together.
pub(super) const BATCH: usize = 64;
/// Bytes of a frame that are kept; a neighbour message with more options than fit here has no honest sender.
const FRAME_KEPT: usize = 2176; // 255 options and the headers before them
/// Bytes for what the kernel says about a frame.
const CONTROL: usize = 64;
/// Bytes that the kernel may hold for a socket.
const SOCKET_BUFFER: c_int = 4 << 20;
