//! A receive ring shared with the kernel (`PACKET_RX_RING`): no system call and no copy per frame.

use std::io::{Error, ErrorKind, Result};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{c_int, tpacket_req, tpacket2_hdr};

use super::set_option;
use crate::wire::ndp::Checksum;

/// A ring of frame slots, which the kernel fills in order. The status of a slot says whether the kernel or this process
/// owns it.
#[derive(Debug)]
pub(in crate::io) struct RxRing {
    /// [`RING_BYTES`] of mapped memory.
    memory: NonNull<u8>,
    /// The index of the next slot, less than [`SLOTS`].
    next: usize,
}

/// A slot that this process owns. Dropping it returns it to the kernel.
pub(in crate::io) struct Slot<'a> {
    ring: &'a mut RxRing,
    status: u32,
}

// SAFETY: the memory is owned, and nothing in it is tied to a thread.
unsafe impl Send for RxRing {}

impl RxRing {
    /// Attaches a ring to a socket that does not receive yet.
    pub(super) fn attach(socket: &OwnedFd) -> Result<Self> {
        set_option(socket, libc::SOL_PACKET, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V2 as c_int))?;
        // A frame that is too long for a slot is queued in the socket buffer as well.
        set_option(socket, libc::SOL_PACKET, libc::PACKET_COPY_THRESH, &1_i32)?;
        let size = tpacket_req {
            tp_block_size: RING_BYTES as u32,
            tp_block_nr: 1,
            tp_frame_size: SLOT_BYTES as u32,
            tp_frame_nr: SLOTS as u32,
        };
        set_option(socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &size)?;
        // SAFETY: a new mapping at an address of the kernel's choice does not overlap existing memory, and the kernel
        // allocated RING_BYTES for this socket.
        let memory = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), RING_BYTES, access, libc::MAP_SHARED, socket.as_raw_fd(), 0)
        };
        if memory == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).ok_or(ErrorKind::OutOfMemory)?;
        Ok(Self { memory, next: 0 })
    }

    /// Whether a frame waits. Makes no system call.
    pub(in crate::io) fn has_frame(&self) -> bool {
        self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// The slot of the next frame, if one waits.
    pub(in crate::io) fn next(&mut self) -> Option<Slot<'_>> {
        let status = self.status().load(Ordering::Acquire);
        // A `Slot` must not exist before this process owns it, because dropping it returns it to the kernel.
        (status & libc::TP_STATUS_USER != 0).then(|| Slot { ring: self, status })
    }

    fn status(&self) -> &AtomicU32 {
        // SAFETY: the header is aligned and inside the mapping, which lives as long as `self`. The kernel is the only
        // other writer of the status and writes it atomically.
        unsafe { AtomicU32::from_ptr(&raw mut (*self.header()).tp_status) }
    }

    /// The header at the beginning of the next slot.
    fn header(&self) -> *mut tpacket2_hdr {
        // SAFETY: `next` is less than SLOTS, so the slot is inside the mapping. SLOT_BYTES is a multiple of the
        // alignment of a header, and the mapping begins at a page boundary.
        unsafe { self.memory.as_ptr().add(self.next * SLOT_BYTES).cast() }
    }
}

impl Drop for RxRing {
    fn drop(&mut self) {
        // SAFETY: the memory was mapped with this length, and no reference to it is left.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), RING_BYTES) };
    }
}

impl Slot<'_> {
    /// The frame, or the part of it that fits.
    pub(in crate::io) fn bytes(&self) -> &[u8] {
        let header = self.ring.header();
        // SAFETY: this process owns the slot, so the kernel does not write to it, and the header is initialised. The
        // bounds are clamped to the end of the slot.
        unsafe {
            let from = usize::from((*header).tp_mac).min(SLOT_BYTES);
            let len = ((*header).tp_snaplen as usize).min(SLOT_BYTES - from);
            std::slice::from_raw_parts(header.cast::<u8>().add(from), len)
        }
    }

    /// Whether the frame is too long for the slot and therefore also in the socket buffer.
    pub(in crate::io) fn is_queued(&self) -> bool {
        self.status & libc::TP_STATUS_COPY != 0
    }

    /// Whether the checksum of the frame can be verified.
    pub(in crate::io) fn checksum(&self) -> Checksum {
        if self.status & libc::TP_STATUS_CSUMNOTREADY != 0 { Checksum::Offloaded } else { Checksum::Present }
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        // Release orders all reads of the slot before this store, after which the kernel may write to it.
        self.ring.status().store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.ring.next = (self.ring.next + 1) % SLOTS;
    }
}

/// Bytes per slot. The kernel's header takes 66, and the rest holds an ARP message or a neighbour solicitation with its
/// usual option.
const SLOT_BYTES: usize = 160;
/// Bytes of the ring, a multiple of the page size on all machines.
const RING_BYTES: usize = 128 << 10;
/// Slots of the ring: 1.5 times the frames that fit in a socket buffer of the usual limit (`rmem_max`, 208 KiB).
const SLOTS: usize = RING_BYTES / SLOT_BYTES;

const _: () = assert!(SLOT_BYTES.is_multiple_of(libc::TPACKET_ALIGNMENT));
