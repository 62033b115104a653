//! Responders for comparison, and the CPU time of the responding threads.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use metallb_l2::io::RawSocket;
use metallb_l2::wire::Ethernet;
use metallb_l2::wire::arp::{Arp, Operation};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::Pid;

use crate::{Error, FIRST_VIP, RESPONDER_CORE, US};

/// A plain responder: waits, receives one frame, sends one reply, as a program on Go's network poller does.
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

/// The lower bound: returns each frame to its sender without parsing it.
pub(crate) struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How an echo waits for frames.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Idle {
    /// It sleeps in `recv`.
    Sleep,
    /// It polls, which avoids wake-ups and takes a whole core.
    Ask,
}

impl Echo {
    pub(crate) fn start(idle: Idle) -> Result<Self, Error> {
        let socket = RawSocket::open(nix::net::if_::if_nametoindex("vip0")?)?;
        // `UdpSocket` gives safe blocking calls on the descriptor.
        let line = UdpSocket::from(socket.as_fd().try_clone_to_owned()?);
        line.set_nonblocking(idle == Idle::Ask)?;
        // The loop must check the stop flag.
        line.set_read_timeout(Some(Duration::from_millis(100)))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("echo".to_owned()).spawn(move || {
            if pin(Pid::from_raw(0), RESPONDER_CORE).is_ok() {
                let _ = turn_around(&line, &stopped);
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn turn_around(line: &UdpSocket, stop: &AtomicBool) -> std::io::Result<()> {
    let mut buffer = [0; 128];
    while !stop.load(Ordering::Relaxed) {
        match line.recv(&mut buffer) {
            Ok(length) => {
                buffer.copy_within(6..12, 0);
                line.send(&buffer[..length])?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The Go program in `scripts/l2-bench-go`, which uses the ARP library of upstream's speaker.
pub(crate) struct Go(Child);

impl Go {
    pub(crate) fn start(program: &str, vips: u32) -> Result<Self, Error> {
        let core = RESPONDER_CORE.to_string();
        let arguments = ["-c", &core, program, "vip0", &Ipv4Addr::from_bits(FIRST_VIP).to_string(), &vips.to_string()];
        Ok(Self(Command::new("taskset").args(arguments).stdin(Stdio::null()).spawn()?))
    }

    pub(crate) fn worker(&self) -> Worker {
        Worker::Process(self.0.id())
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The responding thread of this process, or all threads of another process.
pub(crate) enum Worker {
    Thread(i32),
    Process(u32),
}

impl Worker {
    /// The newest thread with this name.
    pub(crate) fn find(name: &str) -> Result<Self, Error> {
        let mut found = None;
        while found.is_none() {
            for task in std::fs::read_dir("/proc/self/task")? {
                let task = task?;
                // The thread may end meanwhile.
                if std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name) {
                    found = found.max(task.file_name().to_string_lossy().parse().ok());
                }
            }
        }
        Ok(Self::Thread(found.ok_or("no such thread")?))
    }

    /// Pins a thread of this process to a core.
    pub(crate) fn pin(&self, core: usize) -> Result<(), Error> {
        match self {
            Self::Thread(thread) => pin(Pid::from_raw(*thread), core),
            Self::Process(_) => Err("a process pins itself".into()),
        }
    }

    /// The CPU time used so far.
    pub(crate) fn cpu(&self) -> Result<Duration, Error> {
        let mut all = 0;
        for directory in self.directories()? {
            let text = std::fs::read_to_string(directory.join("schedstat"))?;
            all += text.split(' ').next().ok_or("no time")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(all))
    }

    /// The CPU time and the number of voluntary context switches so far.
    pub(crate) fn usage(&self) -> Result<(Duration, u64), Error> {
        Ok((self.cpu()?, self.wakes()?))
    }

    /// The number of voluntary context switches so far.
    pub(crate) fn wakes(&self) -> Result<u64, Error> {
        let mut all = 0;
        for directory in self.directories()? {
            let text = std::fs::read_to_string(directory.join("status"))?;
            let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            all += line.ok_or("no count")?.trim().parse::<u64>()?;
        }
        Ok(all)
    }

    /// The `/proc` directory of each thread.
    fn directories(&self) -> Result<Vec<PathBuf>, Error> {
        Ok(match self {
            Self::Thread(thread) => vec![format!("/proc/self/task/{thread}").into()],
            Self::Process(process) => std::fs::read_dir(format!("/proc/{process}/task"))?
                .map(|task| task.map(|task| task.path()))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Pins a thread to a core.
pub(crate) fn pin(thread: Pid, core: usize) -> Result<(), Error> {
    let mut set = CpuSet::new();
    set.set(core)?;
    Ok(sched_setaffinity(thread, &set)?)
}
