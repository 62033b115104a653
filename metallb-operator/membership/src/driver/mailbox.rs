//! The commands that wait for the thread.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc;
use std::sync::{Mutex, MutexGuard, PoisonError};

use metallb_core::model::NodeName;
use metallb_l2::interface::MacAddr;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::takeover::Plan;

/// A command to the thread. Each one replaces what an earlier one of its kind said, except for `Plan` and `Announced`,
/// which add to it.
#[derive(Debug)]
pub(super) enum Command {
    Join(Vec<SocketAddr>),
    Plan(Plan),
    Leave(BTreeMap<IpAddr, NodeName>, mpsc::SyncSender<()>),
    Announced(BTreeSet<IpAddr>),
    Usable(Vec<MacAddr>),
    Stop,
}

/// A queue of commands with a descriptor that becomes readable when one arrives. Senders never wait.
///
/// Bounded: it holds at most one command of each kind. A newer command replaces an older one of its kind. A newer
/// `Plan` and the addresses of a newer `Announced` are merged into the older one instead, which keeps its place: of an
/// address the newer assignment counts, and announced addresses belong to plans that the thread has applied. When the
/// thread has ended, commands are dropped.
#[derive(Debug)]
pub(super) struct Mailbox {
    pending: Mutex<Pending>,
    wake: EventFd,
}

#[derive(Debug, Default)]
struct Pending {
    commands: VecDeque<Command>,
    closed: bool,
}

impl Mailbox {
    pub(super) fn new() -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { pending: Mutex::default(), wake })
    }

    /// Queues a command and wakes the thread.
    pub(super) fn send(&self, command: Command) {
        let mut pending = self.lock();
        if pending.closed {
            return;
        }
        let kind = std::mem::discriminant(&command);
        let older = pending.commands.iter().position(|queued| std::mem::discriminant(queued) == kind);
        match (older.and_then(|place| pending.commands.get_mut(place)), command) {
            (Some(Command::Announced(earlier)), Command::Announced(ips)) => earlier.extend(ips),
            (Some(Command::Plan(earlier)), Command::Plan(plan)) => earlier.merge(plan),
            (_, command) => {
                if let Some(place) = older {
                    pending.commands.remove(place);
                }
                pending.commands.push_back(command);
            }
        }
        drop(pending);
        // It fails only when the counter is full; then the thread is being woken already.
        let _ = self.wake.write(1);
    }

    /// The next command.
    pub(super) fn take(&self) -> Option<Command> {
        self.lock().commands.pop_front()
    }

    /// Makes the descriptor unreadable until the next command.
    pub(super) fn clear_wake(&self) {
        // It fails only if the descriptor was not readable.
        let _ = self.wake.read();
    }

    /// Drops all commands, now and from now on.
    pub(super) fn close(&self) {
        let mut pending = self.lock();
        pending.closed = true;
        pending.commands.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use metallb_core::announcement::{Assignment, Scope};

    use super::*;

    fn announced(last: u8) -> Command {
        Command::Announced(BTreeSet::from([IpAddr::from([10, 0, 0, last])]))
    }

    fn drain(mailbox: &Mailbox) -> Vec<Command> {
        std::iter::from_fn(|| mailbox.take()).collect()
    }

    #[test]
    fn commands_of_different_kinds_keep_their_order() {
        let mailbox = Mailbox::new().unwrap();
        mailbox.send(Command::Join(Vec::new()));
        mailbox.send(announced(1));
        mailbox.send(Command::Stop);
        let commands = drain(&mailbox);
        assert!(
            matches!(commands.as_slice(), [Command::Join(_), Command::Announced(_), Command::Stop]),
            "{commands:?}"
        );
    }

    #[test]
    fn plans_and_announced_addresses_are_merged_by_address() {
        let mailbox = Mailbox::new().unwrap();
        let assign = |last: u8, assignment: Assignment| {
            let addresses = [(IpAddr::from([10, 0, 0, last]), assignment)].into();
            Command::Plan(Plan { addresses, ..Plan::default() })
        };
        for round in 1..=100 {
            mailbox.send(assign(round, Assignment::Owner(Scope::All)));
            mailbox.send(announced(round));
            mailbox.send(assign(round, Assignment::None));
        }
        let commands = drain(&mailbox);
        let [Command::Plan(plan), Command::Announced(ips)] = commands.as_slice() else { panic!("{commands:?}") };
        assert_eq!((ips.len(), plan.addresses.len()), (100, 100));
        assert!(plan.addresses.values().all(|assignment| *assignment == Assignment::None), "{plan:?}");
    }

    #[test]
    fn closed_mailbox_drops_commands_and_their_reply_channels() {
        let mailbox = Mailbox::new().unwrap();
        let (done, left) = mpsc::sync_channel(1);
        mailbox.send(Command::Leave(BTreeMap::new(), done.clone()));
        mailbox.close();
        mailbox.send(Command::Leave(BTreeMap::new(), done));
        assert_eq!(left.recv(), Err(mpsc::RecvError), "no sender is left");
        assert!(mailbox.take().is_none());
    }
}
