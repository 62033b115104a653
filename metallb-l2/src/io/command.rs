//! The messages between [`Handle`](super::Handle) and the thread of a driver, and their bounded queue.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};

use thiserror::Error;

use crate::engine::{Counters, Event};
use crate::interface::{AddressChange, Announcement, ForeignAddress, Interface, MacAddr};

/// Why a driver cannot start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The network interfaces cannot be listed.
    #[error("cannot list network interfaces")]
    List(#[source] io::Error),
    /// A socket cannot be opened. Packet sockets need `CAP_NET_RAW`.
    #[error("cannot open {what}{}", remedy(source))]
    Socket {
        /// The kind of socket.
        what: &'static str,
        /// The error of the kernel.
        #[source]
        source: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ": it needs CAP_NET_RAW, run as root or add the capability",
        _ => "",
    }
}

/// What a listener is notified of.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Notification {
    /// The interfaces in use changed. There may be none.
    Interfaces(Vec<Interface>),
    /// The kernel accepted the whole first round of announcements for these addresses.
    Announced(Vec<IpAddr>),
}

/// A callback for notifications.
pub(super) type Listener = Box<dyn FnMut(&Notification) + Send>;

/// A command to the thread.
pub(super) enum Command {
    Announce(Vec<Announcement>),
    Change(Vec<AddressChange>),
    AnnounceAgain(Vec<IpAddr>),
    ProbeFirst(Vec<IpAddr>),
    SetSpeakerMacs(Vec<MacAddr>),
    SetNodeAddresses(Vec<IpAddr>),
    Solicit(IpAddr, Vec<IpAddr>),
    Listen(Listener),
    ReadCounters(mpsc::SyncSender<Counters>),
    FindAnsweredByKernel(Vec<IpAddr>, mpsc::SyncSender<AnsweredByKernel>),
    Stop,
}

/// State that the thread publishes for handles.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) counters: Counters,
    pub(super) interfaces: Vec<Interface>,
    pub(super) events: Vec<Event>,
    pub(super) refused: BTreeMap<IpAddr, ForeignAddress>,
}

/// Addresses that the kernel answers for, with the interfaces on which it does.
pub(super) type AnsweredByKernel = BTreeMap<IpAddr, Vec<Arc<str>>>;

/// The queue from handles to the thread. Pushing never blocks.
///
/// It holds [`CAPACITY`] commands. When it is full, what later commands make superfluous is removed: of commands that
/// replace a whole state only the last stays, changes of addresses are merged by address, lists of addresses are
/// joined, and queries and solicitations are dropped, whose callers get no answer and try again.
#[derive(Default)]
pub(super) struct CommandQueue(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    commands: VecDeque<Command>,
    closed: bool,
}

impl CommandQueue {
    pub(super) fn push(&self, command: Command) {
        let mut queue = self.lock();
        if queue.closed {
            return;
        }
        queue.commands.push_back(command);
        if queue.commands.len() > CAPACITY {
            tracing::warn!(event = "commandQueueFull", "the command queue is full, superseded commands are dropped");
            compact(&mut queue.commands);
        }
    }

    pub(super) fn pop(&self) -> Option<Command> {
        self.lock().commands.pop_front()
    }

    /// Drops all commands, now and later: the thread has ended.
    pub(super) fn close(&self) {
        let mut queue = self.lock();
        queue.closed = true;
        queue.commands.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CommandQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommandQueue").field("len", &self.lock().commands.len()).finish_non_exhaustive()
    }
}

/// Removes what later commands make superfluous; what stays keeps its order. At most one command of each kind is left,
/// and [`CAPACITY`] listeners.
fn compact(commands: &mut VecDeque<Command>) {
    let (mut announce, mut speakers, mut nodes) = (false, false, false);
    let (mut again, mut probe) = (Vec::new(), Vec::new());
    // Those after the last whole list, by address.
    let mut changes: BTreeMap<IpAddr, AddressChange> = BTreeMap::new();
    let mut kept = VecDeque::new();
    for command in commands.drain(..).rev() {
        let superseded = match &command {
            Command::Announce(_) => std::mem::replace(&mut announce, true),
            Command::Change(_) if announce => true,
            Command::Change(earlier) => {
                let carried = !changes.is_empty();
                for change in earlier.iter().rev() {
                    changes.entry(change.ip()).or_insert_with(|| change.clone());
                }
                // An empty list changes nothing.
                carried || earlier.is_empty()
            }
            Command::SetSpeakerMacs(_) => std::mem::replace(&mut speakers, true),
            Command::SetNodeAddresses(_) => std::mem::replace(&mut nodes, true),
            Command::AnnounceAgain(ips) => collect(&mut again, ips),
            Command::ProbeFirst(ips) => {
                probe.extend(ips);
                true
            }
            Command::Solicit(..) | Command::ReadCounters(_) | Command::FindAnsweredByKernel(..) => true,
            Command::Listen(_) => kept.len() >= CAPACITY,
            Command::Stop => false,
        };
        if !superseded {
            kept.push_front(command);
        }
    }
    for command in &mut kept {
        match command {
            Command::AnnounceAgain(ips) => *ips = deduplicated(std::mem::take(&mut again)),
            Command::Change(merged) => *merged = std::mem::take(&mut changes).into_values().collect(),
            _ => {}
        }
    }
    if !probe.is_empty() {
        // A probe comes before the announcement that waits for it.
        kept.push_front(Command::ProbeFirst(deduplicated(probe)));
    }
    *commands = kept;
}

/// Adds `ips` to a joined list; returns whether a later command carries that list already.
fn collect(joined: &mut Vec<IpAddr>, ips: &[IpAddr]) -> bool {
    let carried = !joined.is_empty();
    joined.extend(ips);
    // An empty list asks for nothing.
    carried || ips.is_empty()
}

fn deduplicated(mut ips: Vec<IpAddr>) -> Vec<IpAddr> {
    ips.sort_unstable();
    ips.dedup();
    ips
}

/// Commands that may wait. The thread takes all of them between two batches of frames, so that more than a few wait
/// only while it cannot run.
const CAPACITY: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interface::Scope;

    fn ip(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    fn drain(queue: &CommandQueue) -> Vec<Command> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn commands_below_the_capacity_are_all_kept_in_order() {
        let queue = CommandQueue::default();
        for number in 0..CAPACITY as u32 {
            queue.push(Command::AnnounceAgain(vec![ip(number)]));
        }
        let taken = drain(&queue);
        let expected = |(number, command): (usize, &Command)| match command {
            Command::AnnounceAgain(ips) => ips[..] == [ip(number as u32)],
            _ => false,
        };
        assert_eq!(taken.len(), CAPACITY);
        assert!(taken.iter().enumerate().all(expected));
    }

    #[test]
    fn full_queue_keeps_the_last_state_joins_lists_and_drops_queries() {
        let queue = CommandQueue::default();
        let (reply, answer) = mpsc::sync_channel(1);
        queue.push(Command::ReadCounters(reply));
        queue.push(Command::Listen(Box::new(|_| {})));
        for number in 0..10 * CAPACITY as u32 {
            queue.push(match number % 4 {
                0 => Command::ProbeFirst(vec![ip(number % 8)]),
                1 => Command::Announce(vec![(ip(number), Scope::All).into()]),
                2 => Command::AnnounceAgain(vec![ip(number % 8)]),
                _ => Command::Solicit(ip(1), vec![ip(2)]),
            });
        }
        assert!(answer.recv().is_err(), "the caller learns at once that there is no answer");
        let taken = drain(&queue);
        assert!(taken.len() <= CAPACITY);
        assert_eq!(taken.iter().filter(|command| matches!(command, Command::Listen(_))).count(), 1);
        let last = taken.iter().rev().find_map(|command| match command {
            Command::Announce(addresses) => Some(addresses[0].ip),
            _ => None,
        });
        assert_eq!(last, Some(ip(10 * CAPACITY as u32 - 3)));
        let listed = |probe: bool| {
            let ips = taken.iter().flat_map(|command| match command {
                Command::ProbeFirst(ips) if probe => ips.clone(),
                Command::AnnounceAgain(ips) if !probe => ips.clone(),
                _ => Vec::new(),
            });
            deduplicated(ips.collect())
        };
        assert_eq!((listed(true), listed(false)), (vec![ip(0), ip(4)], vec![ip(2), ip(6)]));
    }

    #[test]
    fn full_queue_merges_changes_after_the_last_whole_list_by_address() {
        let queue = CommandQueue::default();
        let announced = |number| AddressChange::Announce((ip(number), Scope::All).into());
        queue.push(Command::Change(vec![announced(1)]));
        queue.push(Command::Announce(vec![(ip(2), Scope::All).into()]));
        for number in 3..3 + CAPACITY as u32 {
            queue.push(Command::Change(vec![announced(number % 8 + 8), AddressChange::Withdraw(ip(number % 8 + 8))]));
            queue.push(Command::Change(vec![announced(8)]));
        }
        queue.push(Command::ProbeFirst(vec![ip(9)]));
        let taken = drain(&queue);
        assert!(taken.len() <= CAPACITY, "{}", taken.len());
        let whole = taken.iter().position(|command| matches!(command, Command::Announce(_))).unwrap();
        let mut last = BTreeMap::new();
        for (place, command) in taken.iter().enumerate() {
            let Command::Change(changes) = command else { continue };
            assert!(place > whole, "a change before the whole list is superseded");
            last.extend(changes.iter().map(|change| (change.ip(), change.clone())));
        }
        let expected = (9..16).map(|number| (ip(number), AddressChange::Withdraw(ip(number))));
        assert_eq!(last, expected.chain([(ip(8), announced(8))]).collect());
    }

    #[test]
    fn closed_queue_drops_commands() {
        let queue = CommandQueue::default();
        let (reply, answer) = mpsc::sync_channel(1);
        queue.push(Command::ReadCounters(reply.clone()));
        queue.close();
        queue.push(Command::ReadCounters(reply));
        assert!(answer.recv().is_err() && drain(&queue).is_empty());
    }
}
