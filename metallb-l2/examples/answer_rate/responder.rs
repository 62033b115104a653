//! A responder to compare with, and what the scheduler says of a thread that answers.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use metallb_l2::interface::MacAddr;
use metallb_l2::io::RawSocket;
use metallb_l2::wire::Ethernet;
use metallb_l2::wire::arp::{Arp, Operation};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::Pid;

use crate::{Error, RESPONDER_CORE};

/// Waits, receives one frame, sends one answer: what a program on Go's network poller does.
pub(crate) struct Plain {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Plain {
    pub(crate) fn start(vips: HashSet<Ipv4Addr>) -> Result<Self, Error> {
        let socket = RawSocket::open(nix::net::if_::if_nametoindex("vip0")?)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("plain".to_owned()).spawn(move || {
            if pin(Pid::from_raw(0), RESPONDER_CORE).is_ok() {
                let _ = answer(&socket, &vips, &stopped);
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(socket: &RawSocket, vips: &HashSet<Ipv4Addr>, stop: &AtomicBool) -> Result<(), Errno> {
    let (fd, mut buffer) = (socket.as_fd(), [0; 128]);
    while !stop.load(Ordering::Relaxed) {
        let length = match recv(fd.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => length,
            Err(Errno::EAGAIN) => {
                let mut waiting = [PollFd::new(fd, PollFlags::POLLIN)];
                poll(&mut waiting, PollTimeout::from(100_u8))?;
                continue;
            }
            Err(error) => return Err(error),
        };
        let asked = Ethernet::decode(&buffer[..length]).and_then(|frame| Arp::decode(frame.payload));
        let ours = |asked: &Arp| asked.operation == Operation::Request && vips.contains(&asked.target_protocol);
        if let Some(asked) = asked.filter(ours) {
            send(fd.as_raw_fd(), asked.reply(US).as_bytes(), MsgFlags::empty())?;
        }
    }
    Ok(())
}

/// A thread of this process.
pub(crate) struct Worker(i32);

impl Worker {
    /// The newest one of this name.
    pub(crate) fn find(name: &str) -> Result<Self, Error> {
        let mut found = None;
        while found.is_none() {
            for task in std::fs::read_dir("/proc/self/task")? {
                let task = task?;
                // It may end in between.
                if std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name) {
                    found = found.max(task.file_name().to_string_lossy().parse().ok());
                }
            }
        }
        Ok(Self(found.ok_or("no such thread")?))
    }

    pub(crate) fn pin(&self, core: usize) -> Result<(), Error> {
        pin(Pid::from_raw(self.0), core)
    }

    /// The processor time it took so far.
    pub(crate) fn cpu(&self) -> Result<Duration, Error> {
        let text = std::fs::read_to_string(format!("/proc/self/task/{}/schedstat", self.0))?;
        Ok(Duration::from_nanos(text.split(' ').next().ok_or("no time")?.parse()?))
    }

    /// The processor time it took, and how often it waited, so far.
    pub(crate) fn usage(&self) -> Result<(Duration, u64), Error> {
        Ok((self.cpu()?, self.wakes()?))
    }

    /// How often it waited and was woken so far.
    pub(crate) fn wakes(&self) -> Result<u64, Error> {
        let text = std::fs::read_to_string(format!("/proc/self/task/{}/status", self.0))?;
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        Ok(line.ok_or("no count")?.trim().parse()?)
    }
}

/// Ties a thread to a core.
pub(crate) fn pin(thread: Pid, core: usize) -> Result<(), Error> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(thread, &set)?)
}

const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
