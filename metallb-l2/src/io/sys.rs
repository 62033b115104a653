//! The few system calls that have no safe wrapper: packet sockets, their filter and groups, and routing news.
#![allow(unsafe_code)]

use std::io::{Error, Result};
use std::mem::size_of;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use libc::{c_int, c_void, sock_filter, sock_fprog, sockaddr_ll, sockaddr_nl, socklen_t};

use crate::interface::MacAddr;

/// A packet socket on one interface that receives ARP and neighbour discovery, and nothing that this host sends.
pub(super) fn packet_socket(interface: u32) -> Result<OwnedFd> {
    // Protocol 0 receives nothing: frames must not come in before the filter is there.
    let socket = new_socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
    let program = sock_fprog { len: FILTER.len() as u16, filter: FILTER.as_ptr().cast_mut() };
    set_option(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
    set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
    // SAFETY: sockaddr_ll is plain data for which all zeros is a value.
    let mut address: sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = interface as c_int;
    bind(&socket, &address)?;
    Ok(socket)
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

/// A socket that becomes readable whenever a link or an address changes.
pub(super) fn routing_news() -> Result<OwnedFd> {
    let socket = new_socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
    // SAFETY: sockaddr_nl is plain data for which all zeros is a value.
    let mut address: sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as u16;
    address.nl_groups = (libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR) as u32;
    bind(&socket, &address)?;
    Ok(socket)
}

/// Receives one message; `None` when there is none.
pub(super) fn receive<'a>(socket: &OwnedFd, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>> {
    // SAFETY: the pointer and length describe the caller's buffer, which outlives the call.
    let length = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT) };
    match usize::try_from(length) {
        Ok(length) => Ok(buffer.get(..length)),
        Err(_) => match Error::last_os_error() {
            error if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted) => Ok(None),
            error => Err(error),
        },
    }
}

/// Sends one frame; a full queue is an error, waiting would hold up the others.
pub(super) fn send(socket: &OwnedFd, frame: &[u8]) -> Result<()> {
    // SAFETY: the pointer and length describe the caller's frame, which outlives the call.
    let sent = unsafe { libc::send(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), libc::MSG_DONTWAIT) };
    if sent < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

fn new_socket(family: c_int, kind: c_int, protocol: c_int) -> Result<OwnedFd> {
    // SAFETY: no memory is passed; a non-negative result is a descriptor that nobody else owns.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, protocol);
        if fd < 0 { Err(Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn set_option<T>(socket: &OwnedFd, level: c_int, option: c_int, value: &T) -> Result<()> {
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

/// `SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT`: whether the network card took a VLAN tag off.
const VLAN_TAG_PRESENT: u32 = (-0x1000_i32 + 48) as u32;

/// Untagged ARP; untagged ICMPv6 neighbour solicitations and advertisements without extension headers.
const FILTER: [sock_filter; 12] = [
    load(libc::BPF_B, VLAN_TAG_PRESENT),
    jump_if_equal(0, 0, 9),
    load(libc::BPF_H, 12),
    jump_if_equal(0x0806, 6, 0),
    jump_if_equal(0x86dd, 0, 6),
    load(libc::BPF_B, 14 + 6),
    jump_if_equal(58, 0, 4),
    load(libc::BPF_B, 14 + 40),
    jump_if_equal(135, 1, 0),
    jump_if_equal(136, 0, 1),
    accept(2048),
    accept(0),
];
