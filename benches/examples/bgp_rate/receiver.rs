//! The receiver: enough of BGP to accept routes and to record their arrival times.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use ipnet::Ipv4Net;
use metallb_bgp::types::{Asn, Family, RouterId};
use metallb_bgp::wire::open::{Capabilities, Open};
use metallb_bgp::wire::{self, DecodeContext, Message};

use super::announcers::Announcer;
use super::stage::{ANNOUNCER, ASN, Error, ONE, RECEIVER, RECEIVER_ASN, now, patiently};

/// A session of the receiver.
pub(crate) struct Receiver {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    pub(crate) heard: Heard,
    /// When the messages that establish the session were sent to the announcer.
    pub(crate) established: Duration,
    kept_alive: Duration,
}

/// The received routes and their totals.
pub(crate) struct Heard {
    /// One bit for each address from 10.0.0.0 on.
    known: Vec<u64>,
    count: u32,
    /// Whether the single route is present.
    pub(crate) one: bool,
    /// UPDATE messages with prefixes, and their bytes.
    pub(crate) messages: u64,
    pub(crate) bytes: usize,
    opened: bool,
    kept_alive: bool,
}

impl Receiver {
    /// Opens the session from either end. An announcer that has just lost a session may need a while.
    pub(crate) fn open(announcer: &dyn Announcer) -> Result<Self, Error> {
        let listener = match announcer.connects() {
            true => Some(TcpListener::bind(SocketAddr::from((RECEIVER, 179)))?),
            false => None,
        };
        patiently("no session", || {
            let stream = match &listener {
                Some(listener) => listener.accept()?.0,
                None => TcpStream::connect_timeout(&SocketAddr::from((ANNOUNCER, 179)), Duration::from_secs(1))?,
            };
            Self::establish(stream)
        })
    }

    fn establish(mut stream: TcpStream) -> Result<Self, Error> {
        stream.set_nodelay(true)?;
        let mut hello = Vec::new();
        let mut capabilities = Capabilities::default();
        capabilities.families = vec![Family::Ipv4];
        capabilities.four_octet_asn = true;
        capabilities.route_refresh = true;
        let router_id = RouterId(RECEIVER.into());
        Open::new(Asn(RECEIVER_ASN), 90, router_id, capabilities).encode(&mut hello);
        stream.write_all(&hello)?;
        let heard = Heard {
            known: vec![0; 1 << 11],
            count: 0,
            one: false,
            messages: 0,
            bytes: 0,
            opened: false,
            kept_alive: false,
        };
        let mut receiver =
            Self { stream, buffer: vec![0; 1 << 20], filled: 0, heard, established: now(), kept_alive: now() };
        receiver.until(|heard| heard.opened)?;
        receiver.keep_alive()?;
        receiver.established = now();
        receiver.until(|heard| heard.kept_alive)?;
        Ok(receiver)
    }

    /// Reads until the condition is true. Returns the arrival time of the bytes that made it true.
    pub(crate) fn until(&mut self, condition: impl Fn(&Heard) -> bool) -> Result<Duration, Error> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        self.read(&condition, PATIENCE)?.ok_or_else(|| "the announcer does not say it".into())
    }

    /// As `until`, but without sleeping, so that the time has no wake-up in it.
    pub(crate) fn spin_until(&mut self, condition: impl Fn(&Heard) -> bool) -> Result<Duration, Error> {
        self.stream.set_nonblocking(true)?;
        self.read(&condition, PATIENCE)?.ok_or_else(|| "the announcer does not say it".into())
    }

    /// Reads for a while.
    pub(crate) fn rest(&mut self, time: Duration) -> Result<(), Error> {
        self.stream.set_nonblocking(false)?;
        self.stream.set_read_timeout(Some(time))?;
        self.read(&|_| false, time).map(drop)
    }

    fn read(&mut self, condition: &dyn Fn(&Heard) -> bool, patience: Duration) -> Result<Option<Duration>, Error> {
        let begun = now();
        let mut came = begun;
        loop {
            if condition(&self.heard) {
                return Ok(Some(came));
            }
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err("closed by the announcer".into()),
                Ok(length) => {
                    came = now();
                    self.filled += length;
                    let taken = self.heard.take(&self.buffer[..self.filled])?;
                    self.buffer.copy_within(taken..self.filled, 0);
                    self.filled -= taken;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    let at = now();
                    if at - self.kept_alive > Duration::from_secs(20) {
                        self.keep_alive()?;
                    }
                    if at - begun >= patience {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn keep_alive(&mut self) -> Result<(), Error> {
        let mut message = Vec::new();
        wire::keepalive(&mut message);
        self.stream.write_all(&message)?;
        self.kept_alive = now();
        Ok(())
    }
}

impl Heard {
    /// The number of routes that are present, without the single route.
    pub(crate) const fn routes(&self) -> u32 {
        self.count
    }

    /// Processes all complete messages and returns their length in octets.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let mut context = DecodeContext::new(Asn(RECEIVER_ASN), Asn(ASN));
        context.ipv6 = false;
        let mut taken = 0;
        while let Some((message, size)) = wire::decode(&bytes[taken..], &context)? {
            taken += size;
            match message {
                Message::Open(_) => self.opened = true,
                Message::Keepalive => self.kept_alive = true,
                Message::Notification(notification) => return Err(notification.into()),
                Message::RouteRefresh(_) => {}
                Message::Update(update) => {
                    if update.end_of_rib().is_none() {
                        self.messages += 1;
                        self.bytes += size;
                    }
                    update.withdrawn_v4().for_each(|prefix| self.mark(prefix, false));
                    update.announced_v4().for_each(|prefix| self.mark(prefix, true));
                }
            }
        }
        Ok(taken)
    }

    fn mark(&mut self, prefix: Ipv4Net, there: bool) {
        if prefix.addr().octets() == ONE {
            self.one = there;
        }
        let number = u32::from(prefix.addr()) - u32::from_be_bytes([10, 0, 0, 0]);
        let Some(word) = self.known.get_mut(number as usize / 64) else { return };
        let bit = 1 << (number % 64);
        match (there, *word & bit != 0) {
            (true, false) => self.count += 1,
            (false, true) => self.count -= 1,
            _ => {}
        }
        *word = if there { *word | bit } else { *word & !bit };
    }
}

/// Timeout for every wait.
const PATIENCE: Duration = Duration::from_secs(60);
