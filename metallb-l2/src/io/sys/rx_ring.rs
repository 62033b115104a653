//! Frames received in memory that is shared with the kernel (`PACKET_RX_RING`): neither a system call nor a copy for each.

use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{c_int, tpacket_req, tpacket2_hdr};

use super::set_option;
use crate::wire::ndp::Checksum;

/// Places for frames, which the kernel fills in turn. Each belongs to the kernel or to us, as its status says.
#[derive(Debug)]
pub(in crate::io) struct RxRing {
    /// [`BYTES`] of memory, mapped until the end.
    memory: NonNull<u8>,
    /// Whose place comes next, less than [`PLACES`].
    next: usize,
}

/// A place that is ours: the kernel gets it back at its end.
pub(in crate::io) struct Place<'a> {
    ring: &'a mut RxRing,
    status: u32,
}

// SAFETY: the memory is owned, and nothing in it is tied to a thread.
unsafe impl Send for RxRing {}

impl RxRing {
    /// Gives places to a socket that receives nothing yet.
    pub(super) fn attach(socket: &OwnedFd) -> Result<Self> {
        set_option(socket, libc::SOL_PACKET, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V2 as c_int))?;
        // What is too long for a place comes through the socket's queue, too.
        set_option(socket, libc::SOL_PACKET, libc::PACKET_COPY_THRESH, &1_i32)?;
        let size = tpacket_req {
            tp_block_size: BYTES as u32,
            tp_block_nr: 1,
            tp_frame_size: PLACE as u32,
            tp_frame_nr: PLACES as u32,
        };
        set_option(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &size)?;
        // SAFETY: a new mapping takes nobody's memory; the kernel has as many bytes for this socket.
        let memory = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), BYTES, access, libc::MAP_SHARED, socket.as_raw_fd(), 0)
        };
        if memory == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or(ErrorKind::OutOfMemory)?;
        Ok(Self { memory, next: 0 })
    }

    /// Whether a frame waits. It takes no system call.
    pub(in crate::io) fn has_frame(&self) -> bool {
        self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// The place of the next frame, if one waits.
    pub(in crate::io) fn next(&mut self) -> Option<Place<'_>> {
        let status = self.status().load(Ordering::Acquire);
        // No place is made before it is ours: its end would give it back.
        (status & libc::TP_STATUS_USER != 0).then(|| Place { ring: self, status })
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY: the header is inside the mapping, which lives as long as `self`, and aligned; whoever else touches the status, the
        // kernel, does so atomically.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.header()).tp_status) }
    }

    /// At the beginning of the next place.
    fn header(&self) -> *mut tpacket2_hdr {
        // SAFETY: `next` is less than PLACES, so that the place is inside the mapping. PLACE is a multiple of what a header is
        // aligned to, and a mapping begins at a page.
        unsafe { self.memory.as_ptr().add(self.next * PLACE).cast() }
    }
}

impl Drop for RxRing {
    fn drop(&mut self) {
        // SAFETY: the memory was mapped with this length, and nobody uses it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), BYTES) };
    }
}

impl Place<'_> {
    /// The frame, or as much of it as fits.
    pub(in crate::io) fn bytes(&self) -> &[u8] {
        let header = self.ring.header();
        // SAFETY: the place is ours, so the kernel writes nothing there, and it has filled the header. Wherever the frame is said to
        // be, the slice ends with the place.
        unsafe {
            let from = usize::from((*header).tp_mac).min(PLACE);
            let len = ((*header).tp_snaplen as usize).min(PLACE - from);
            std::slice::from_raw_parts(header.cast::<u8>().add(from), len)
        }
    }

    /// Whether the whole frame waits in the socket's queue, being too long for the place.
    pub(in crate::io) fn is_queued(&self) -> bool {
        self.status & libc::TP_STATUS_COPY != 0
    }

    /// What the kernel says about the checksum.
    pub(in crate::io) fn checksum(&self) -> Checksum {
        if self.status & libc::TP_STATUS_CSUMNOTREADY != 0 { Checksum::Offloaded } else { Checksum::Present }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        // All reads come before: the kernel may write again from here on.
        self.ring.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.ring.next = (self.ring.next + 1) % PLACES;
    }
}

/// Bytes of a place. 66 of them are the kernel's header, and what is left is enough for an ARP message and for a neighbour
/// solicitation with its usual option.
const PLACE: usize = 160;
/// Bytes in all, a multiple of the size of a page on all machines.
const BYTES: usize = 128 << 10;
/// As many frames as a socket's queue has room for where its limit is the one of most kernels (`rmem_max`, 208 KiB), and half more.
const PLACES: usize = BYTES / PLACE;

const _: () = assert!(PLACE.is_multiple_of(libc::TPACKET_ALIGNMENT));
