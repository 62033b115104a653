//! The sans-IO engine: which frames to answer, which to send unasked.

mod schedule;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;

use self::schedule::Schedule;
use crate::interface::{Interface, MacAddr, Scope};
use crate::wire::arp::{Arp, Operation};
use crate::wire::ndp::{self, Message, NdpError};
use crate::wire::{ETHERTYPE_ARP, ETHERTYPE_IPV6, ETHERTYPE_VLAN, Ethernet, Frame};

/// Answers for a set of addresses on a set of interfaces.
///
/// `set_interfaces`, `set_addresses`, `handle_frame` and `handle_timeout` put facts in; `poll_transmit`, `poll_group` and
/// `poll_event` take results out, to be drained after every input; `poll_timeout` says when to call again. The same seed and
/// inputs give the same bytes.
#[derive(Debug)]
pub struct Engine {
    interfaces: BTreeMap<u32, Interface>,
    addresses: FxHashMap<IpAddr, Scope>,
    schedule: Schedule,
    groups: BTreeSet<(u32, Ipv6Addr)>,
    transmits: VecDeque<Transmit>,
    group_changes: VecDeque<GroupChange>,
    events: VecDeque<Event>,
    conflicts_seen: BTreeMap<(IpAddr, MacAddr), Instant>,
    counters: Counters,
}

/// A frame to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transmit {
    /// On which interface.
    pub interface: u32,
    /// What.
    pub frame: Frame,
}

/// A solicited-node group to join or leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GroupChange {
    /// On which interface.
    pub interface: u32,
    /// The group.
    pub group: Ipv6Addr,
    /// Join, or leave.
    pub join: bool,
}

/// Something worth telling.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Another host uses an address that we answer for (RFC 5227 §2.4).
    Conflict {
        /// The address.
        ip: IpAddr,
        /// The other host.
        mac: MacAddr,
        /// Where it was seen.
        interface: Arc<str>,
    },
}

/// Why a frame gets no answer.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum DropReason {
    /// Shorter than its headers, or lengths that contradict each other.
    Malformed,
    /// A VLAN tag: it belongs to another interface.
    Vlan,
    /// Neither ARP nor a neighbour solicitation.
    OtherMessage,
    /// An ARP reply or another opcode.
    ArpReply,
    /// An announcement of the sender's own address, not a question.
    Gratuitous,
    /// Sent to another host.
    EthernetDestination,
    /// Sent by ourselves.
    OwnFrame,
    /// A neighbour advertisement.
    Advertisement,
    /// It came through a router.
    HopLimit,
    /// The checksum is wrong.
    Checksum,
    /// Not valid by RFC 4861 §7.1.1 for another reason.
    InvalidSolicitation,
    /// The sender's hardware address is a group.
    BadSender,
    /// We do not answer for the address.
    AnnounceIp,
    /// We answer for the address, but not on this interface.
    NotMatchInterface,
    /// The interface is unknown, or does not do this family.
    Interface,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What happened so far.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Requests for addresses of ours.
    pub requests: BTreeMap<IpAddr, u64>,
    /// Answers.
    pub responses: BTreeMap<IpAddr, u64>,
    /// Gratuitous frames.
    pub gratuitous: BTreeMap<IpAddr, u64>,
    /// Frames without an answer.
    pub dropped: BTreeMap<DropReason, u64>,
    /// Conflicts seen.
    pub conflicts: BTreeMap<IpAddr, u64>,
}

impl Engine {
    /// Nothing to answer for, nowhere. `seed` jitters the gratuitous schedule.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            interfaces: BTreeMap::new(),
            addresses: FxHashMap::default(),
            schedule: Schedule::new(seed),
            groups: BTreeSet::new(),
            transmits: VecDeque::new(),
            group_changes: VecDeque::new(),
            events: VecDeque::new(),
            conflicts_seen: BTreeMap::new(),
            counters: Counters::default(),
        }
    }

    /// Replaces the interfaces. Addresses are announced anew where one appeared or changed its hardware address.
    pub fn set_interfaces(&mut self, now: Instant, interfaces: impl IntoIterator<Item = Interface>) {
        let new: BTreeMap<u32, Interface> = interfaces.into_iter().map(|interface| (interface.index, interface)).collect();
        let fresh: Vec<u32> = new.values().filter(|interface| self.interfaces.get(&interface.index) != Some(interface)).map(|i| i.index).collect();
        self.interfaces = new;
        if !fresh.is_empty() {
            let touched: Vec<IpAddr> = self
                .addresses
                .iter()
                .filter(|(_, scope)| fresh.iter().filter_map(|index| self.interfaces.get(index)).any(|i| scope.includes(i)))
                .map(|(&ip, _)| ip)
                .collect();
            self.schedule.start(now, touched);
        }
        self.update_groups();
        self.announce_due(now);
    }

    /// Replaces the addresses. Only those that are new, or have a new scope, are announced: repeating what is known changes
    /// nothing on the wire. Those that are gone fall silent at once.
    pub fn set_addresses(&mut self, now: Instant, addresses: impl IntoIterator<Item = (IpAddr, Scope)>) {
        let new: FxHashMap<IpAddr, Scope> = addresses.into_iter().collect();
        let mut fresh: Vec<IpAddr> =
            new.iter().filter(|(ip, scope)| self.addresses.get(ip) != Some(scope)).map(|(&ip, _)| ip).collect();
        fresh.sort_unstable();
        self.schedule.retain(|ip| new.contains_key(ip));
        self.addresses = new;
        self.schedule.start(now, fresh);
        self.update_groups();
        self.announce_due(now);
    }

    /// Whether an address is answered for.
    #[must_use]
    pub fn announces(&self, ip: IpAddr) -> bool {
        self.addresses.contains_key(&ip)
    }

    /// Looks at a received frame. The answer goes back on the same interface.
    ///
    /// # Errors
    /// The reason why there is no answer; it is counted.
    pub fn handle_frame(&mut self, now: Instant, interface: u32, frame: &[u8]) -> Result<Frame, DropReason> {
        let answer = self.answer(now, interface, frame);
        match answer {
            Ok((ip, frame)) => {
                *self.counters.requests.entry(ip).or_default() += 1;
                *self.counters.responses.entry(ip).or_default() += 1;
                Ok(frame)
            }
            Err(reason) => {
                *self.counters.dropped.entry(reason).or_default() += 1;
                Err(reason)
            }
        }
    }

    /// Sends what is due. Early calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.announce_due(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.next()
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next group to join or leave.
    pub fn poll_group(&mut self) -> Option<GroupChange> {
        self.group_changes.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What happened so far.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    fn answer(&mut self, now: Instant, index: u32, frame: &[u8]) -> Result<(IpAddr, Frame), DropReason> {
        let interface = self.interfaces.get(&index).ok_or(DropReason::Interface)?;
        let ethernet = Ethernet::decode(frame).ok_or(DropReason::Malformed)?;
        if self.is_ours(ethernet.source) {
            return Err(DropReason::OwnFrame);
        }
        if ethernet.destination != interface.mac && !ethernet.destination.is_multicast() {
            return Err(DropReason::EthernetDestination);
        }
        match ethernet.ethertype {
            ETHERTYPE_ARP => {
                let arp = Arp::decode(ethernet.payload).ok_or(DropReason::Malformed)?;
                let interface = interface.clone();
                self.answer_arp(now, &interface, &arp, &ethernet)
            }
            ETHERTYPE_IPV6 => {
                let interface = interface.clone();
                self.answer_ndp(now, &interface, &ethernet)
            }
            ETHERTYPE_VLAN => Err(DropReason::Vlan),
            _ => Err(DropReason::OtherMessage),
        }
    }

    fn answer_arp(
        &mut self,
        now: Instant,
        interface: &Interface,
        arp: &Arp,
        ethernet: &Ethernet<'_>,
    ) -> Result<(IpAddr, Frame), DropReason> {
        if !interface.arp {
            return Err(DropReason::Interface);
        }
        if ethernet.destination.is_multicast() && ethernet.destination != MacAddr::BROADCAST {
            return Err(DropReason::EthernetDestination);
        }
        self.watch_for_conflict(now, interface, arp.sender_protocol.into(), arp.sender_hardware);
        if arp.operation != Operation::Request {
            return Err(DropReason::ArpReply);
        }
        // Two speakers must not answer each other's announcements.
        if arp.sender_protocol == arp.target_protocol {
            return Err(DropReason::Gratuitous);
        }
        if arp.sender_hardware.is_multicast() {
            return Err(DropReason::BadSender);
        }
        let ip = IpAddr::V4(arp.target_protocol);
        self.check_scope(interface, ip)?;
        Ok((ip, arp.reply(interface.mac)))
    }

    fn answer_ndp(
        &mut self,
        now: Instant,
        interface: &Interface,
        ethernet: &Ethernet<'_>,
    ) -> Result<(IpAddr, Frame), DropReason> {
        let Some(link_local) = interface.link_local else { return Err(DropReason::Interface) };
        let message = Message::decode(ethernet.payload).map_err(|error| match error {
            NdpError::Malformed => DropReason::Malformed,
            NdpError::OtherMessage => DropReason::OtherMessage,
            NdpError::HopLimit => DropReason::HopLimit,
            NdpError::Checksum => DropReason::Checksum,
            _ => DropReason::InvalidSolicitation,
        })?;
        match message {
            Message::Advertisement(advertisement) => {
                let mac = advertisement.target_link_layer.unwrap_or(ethernet.source);
                self.watch_for_conflict(now, interface, advertisement.target.into(), mac);
                Err(DropReason::Advertisement)
            }
            Message::Solicitation(asked) => {
                if asked.source_link_layer.is_some_and(MacAddr::is_multicast) || ethernet.source.is_multicast() {
                    return Err(DropReason::BadSender);
                }
                let ip = IpAddr::V6(asked.target);
                self.check_scope(interface, ip)?;
                Ok((ip, asked.reply(interface.mac, link_local, ethernet.source)))
            }
        }
    }

    fn check_scope(&self, interface: &Interface, ip: IpAddr) -> Result<(), DropReason> {
        match self.addresses.get(&ip) {
            None => Err(DropReason::AnnounceIp),
            Some(scope) if !scope.includes(interface) => Err(DropReason::NotMatchInterface),
            Some(_) => Ok(()),
        }
    }

    fn is_ours(&self, mac: MacAddr) -> bool {
        self.interfaces.values().any(|interface| interface.mac == mac)
    }

    fn watch_for_conflict(&mut self, now: Instant, interface: &Interface, ip: IpAddr, mac: MacAddr) {
        if !self.addresses.contains_key(&ip) || self.is_ours(mac) {
            return;
        }
        *self.counters.conflicts.entry(ip).or_default() += 1;
        self.conflicts_seen.retain(|_, seen| now.saturating_duration_since(*seen) < CONFLICT_EVERY);
        if self.conflicts_seen.len() < CONFLICTS_REMEMBERED && !self.conflicts_seen.contains_key(&(ip, mac)) {
            self.conflicts_seen.insert((ip, mac), now);
            self.events.push_back(Event::Conflict { ip, mac, interface: Arc::clone(&interface.name) });
        }
    }

    fn announce_due(&mut self, now: Instant) {
        for ip in self.schedule.due(now) {
            let Some(scope) = self.addresses.get(&ip) else { continue };
            let mut sent = 0;
            for interface in self.interfaces.values().filter(|interface| scope.includes(interface)) {
                match ip {
                    IpAddr::V4(v4) if interface.arp => {
                        for frame in Arp::gratuitous(interface.mac, v4) {
                            self.transmits.push_back(Transmit { interface: interface.index, frame });
                            sent += 1;
                        }
                    }
                    IpAddr::V6(v6) => {
                        if let Some(link_local) = interface.link_local {
                            let frame = ndp::unsolicited(interface.mac, link_local, v6);
                            self.transmits.push_back(Transmit { interface: interface.index, frame });
                            sent += 1;
                        }
                    }
                    IpAddr::V4(_) => {}
                }
            }
            *self.counters.gratuitous.entry(ip).or_default() += sent;
        }
    }

    /// Brings the joined groups to what the addresses and interfaces demand. Addresses that share their last 24 bits share a
    /// group, which is left when the last of them goes.
    fn update_groups(&mut self) {
        let mut wanted = BTreeSet::new();
        for (ip, scope) in &self.addresses {
            let IpAddr::V6(v6) = ip else { continue };
            for interface in self.interfaces.values() {
                if interface.link_local.is_some() && scope.includes(interface) {
                    wanted.insert((interface.index, ndp::solicited_node(*v6)));
                }
            }
        }
        let change = |&(interface, group): &(u32, Ipv6Addr), join| GroupChange { interface, group, join };
        self.group_changes.extend(self.groups.difference(&wanted).map(|group| change(group, false)));
        self.group_changes.extend(wanted.difference(&self.groups).map(|group| change(group, true)));
        self.groups = wanted;
    }
}

/// How often one conflict is told.
const CONFLICT_EVERY: Duration = Duration::from_secs(30);

/// How many conflicts are told apart at once: a hostile host must not fill the memory.
const CONFLICTS_REMEMBERED: usize = 1024;

#[cfg(test)]
mod tests;
