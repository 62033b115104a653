//! What goes between those who hold a driver and its thread.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc;

use thiserror::Error;

use crate::counters::Counters;
use crate::engine::Event;
use crate::foreign::ForeignAddress;
use crate::interface::{Announcement, Interface, MacAddr};

/// Why the driver does not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// The interfaces cannot be listed.
    #[error("network interfaces can't be listed")]
    List(#[source] io::Error),
    /// A socket that is needed cannot be opened; packet sockets need `CAP_NET_RAW`.
    #[error("{what} can't be opened")]
    Socket {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What a listener is told.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Notification {
    /// The interfaces in use are these now; there may be none.
    Interfaces(Vec<Interface>),
    /// The kernel took the whole first round of announcements for these addresses: after they became ours, after their interfaces
    /// changed, or after they were to be announced again.
    Announced(Vec<IpAddr>),
}

/// Whom to tell.
pub(super) type Listener = Box<dyn FnMut(&Notification) + Send>;

/// What the thread is to do.
pub(super) enum Command {
    Announce(Vec<Announcement>),
    AnnounceAgain(Vec<IpAddr>),
    ProbeFor(Vec<IpAddr>),
    SetSpeakerMacs(Vec<MacAddr>),
    SetNodeAddresses(Vec<IpAddr>),
    Solicit(IpAddr, Vec<IpAddr>),
    Listen(Listener),
    Count(mpsc::SyncSender<Counters>),
    FindAnsweredByKernel(Vec<IpAddr>, mpsc::SyncSender<Answered>),
    Stop,
}

/// What the thread leaves for those who ask.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) counted: Counters,
    pub(super) interfaces: Vec<Interface>,
    pub(super) events: Vec<Event>,
    pub(super) refused: BTreeMap<IpAddr, ForeignAddress>,
}

/// Addresses that the kernel answers for, and the interfaces on which it does.
pub(super) type Answered = BTreeMap<IpAddr, Vec<Arc<str>>>;
