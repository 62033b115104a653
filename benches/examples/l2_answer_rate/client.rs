//! The client: sends requests and polls for replies without sleeping.

use std::fmt;
use std::time::{Duration, Instant};

use metallb_l2::interface::MacAddr;
use metallb_l2::io::{RawSocket, ReceiveBatch};
use metallb_l2::wire::Frame;
use metallb_l2::wire::arp::{Arp, Operation};
use metallb_l2::wire::ndp;

use crate::{ASKED, Error, vips};

/// The other end of the link.
pub(crate) struct Client {
    socket: RawSocket,
    batch: ReceiveBatch,
    requests: Vec<Frame>,
}

/// Sorted reply times.
#[derive(Default)]
pub(crate) struct Latency(Vec<Duration>);

/// The result of a flood.
pub(crate) struct Flood {
    pub(crate) junk: usize,
    pub(crate) asked: usize,
    pub(crate) answered: usize,
    pub(crate) time: Duration,
    pub(crate) latency: Latency,
}

impl Client {
    pub(crate) fn open() -> Result<Self, Error> {
        let socket = RawSocket::open(nix::net::if_::if_nametoindex("cli0")?)?;
        let requests = vips(ASKED).map(|ip| request(ip).encode(MacAddr::BROADCAST)).collect();
        Ok(Self { socket, batch: ReceiveBatch::new(), requests })
    }

    /// Sends requests until the responder replies.
    pub(crate) fn wait_for_answer(&mut self) -> Result<(), Error> {
        for _ in 0..25 {
            if self.ask(0..1)? == 1 {
                return Ok(());
            }
        }
        Err("no reply".into())
    }

    /// Sends single requests with a gap before each.
    pub(crate) fn latency(&mut self, gap: Duration, times: usize) -> Result<Latency, Error> {
        let mut latency = Latency::default();
        for number in 0..times {
            let pause = Instant::now();
            while pause.elapsed() < gap {
                std::hint::spin_loop();
            }
            let start = Instant::now();
            let at = number % 16;
            if self.ask(at..at + 1)? == 1 {
                latency.0.push(start.elapsed());
            }
        }
        latency.0.sort_unstable();
        Ok(latency)
    }

    /// Sends requests for `time` with `window` of them in flight: after half a window of replies the next half is sent.
    /// Returns the replies, the lost requests and the elapsed time.
    pub(crate) fn throughput(&mut self, window: usize, time: Duration) -> Result<(usize, usize, Duration), Error> {
        let turn = (window / 2).clamp(1, RawSocket::BATCH);
        let (mut asked, mut answered, mut lost, start) = (0, 0, 0, Instant::now());
        let mut last = start;
        while last.duration_since(start) < time {
            while asked + turn <= window + answered + lost {
                let from = asked % (self.requests.len() - turn + 1);
                let mut rest = &self.requests[from..from + turn];
                while !rest.is_empty() {
                    rest = &rest[self.socket.send(rest)?..];
                }
                asked += turn;
            }
            let received = self.socket.receive(&mut self.batch)?;
            if received > 0 {
                (answered, last) = (answered + received, Instant::now());
            } else if last.elapsed() > PATIENCE {
                (lost, last) = (asked.saturating_sub(answered), Instant::now());
            }
        }
        // Replies that were counted as lost may still arrive.
        answered += self.receive(asked.saturating_sub(answered + lost), PATIENCE)?;
        Ok((answered, asked.saturating_sub(answered), last.duration_since(start)))
    }

    /// Sends `rate` useless frames per second and a request every `gap`.
    pub(crate) fn flood(&mut self, rate: usize, time: Duration, gap: Duration) -> Result<Flood, Error> {
        const TURN: Duration = Duration::from_micros(200);
        let junk = junk();
        let per_turn = rate * TURN.as_micros() as usize / 1_000_000;
        let mut flood = Flood { junk: 0, asked: 0, answered: 0, time, latency: Latency::default() };
        let start = Instant::now();
        let (mut turn, mut next_request, mut waiting) = (start, start, None::<Instant>);
        while start.elapsed() < time {
            let now = Instant::now();
            if now >= turn {
                turn += TURN;
                let from = flood.junk % (junk.len() - per_turn);
                flood.junk += self.socket.send(&junk[from..from + per_turn])?;
            }
            if now >= next_request {
                next_request += gap;
                self.socket.send(&self.requests[..1])?;
                flood.asked += 1;
                waiting = Some(now);
            }
            // Only requests are answered.
            let count = self.socket.receive(&mut self.batch)?;
            flood.answered += count;
            if let (true, Some(since)) = (count > 0, waiting) {
                flood.latency.0.push(since.elapsed());
                waiting = None;
            }
        }
        flood.answered += self.receive(flood.asked - flood.answered, PATIENCE)?;
        flood.time = start.elapsed();
        flood.latency.0.sort_unstable();
        Ok(flood)
    }

    /// Waits for `quiet` and then discards all received frames.
    pub(crate) fn drain(&mut self, quiet: Duration) -> Result<(), Error> {
        std::thread::sleep(quiet);
        while self.socket.receive(&mut self.batch)? > 0 {}
        Ok(())
    }

    /// Sends requests for the first `count` addresses without waiting.
    pub(crate) fn send(&self, count: usize) -> Result<(), Error> {
        let mut rest = &self.requests[..count];
        while !rest.is_empty() {
            rest = &rest[self.socket.send(rest)?..];
        }
        Ok(())
    }

    fn ask(&mut self, which: std::ops::Range<usize>) -> Result<usize, Error> {
        let wanted = which.len();
        let mut rest = &self.requests[which];
        while !rest.is_empty() {
            rest = &rest[self.socket.send(rest)?..];
        }
        self.receive(wanted, PATIENCE)
    }

    /// Receives until `wanted` frames have arrived or none arrives for `patience`.
    fn receive(&mut self, wanted: usize, patience: Duration) -> Result<usize, Error> {
        let (mut count, mut last) = (0, Instant::now());
        while count < wanted && last.elapsed() < patience {
            let received = self.socket.receive(&mut self.batch)?;
            if received > 0 {
                (count, last) = (count + received, Instant::now());
            }
        }
        Ok(count)
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |part: usize| self.0.get(self.0.len().saturating_sub(1) * part / 100).map_or(0.0, micros);
        write!(f, "{:.1} / {:.1}", at(50), at(99))
    }
}

fn micros(time: &Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn request(ip: std::net::Ipv4Addr) -> Arp {
    Arp {
        operation: Operation::Request,
        sender_hardware: CLIENT,
        sender_protocol: [172, 16, 0, 9].into(),
        target_hardware: MacAddr([0; 6]),
        target_protocol: ip,
    }
}

/// Useless frames of all kinds: requests for unknown addresses, replies, damaged messages, other traffic.
fn junk() -> Vec<Vec<u8>> {
    let kind = |number: u32| -> Vec<u8> {
        let nobody = std::net::Ipv4Addr::from_bits(0x0b00_0000 + number);
        let asks = |target| request(target).encode(MacAddr::BROADCAST).as_bytes().to_vec();
        match number % 5 {
            0 => asks(nobody),
            1 => Arp::gratuitous(Operation::Reply, CLIENT, nobody).as_bytes().to_vec(),
            2 => {
                let mut damaged = asks(nobody);
                damaged[18] = 7;
                damaged
            }
            3 => {
                let target = std::net::Ipv6Addr::from_bits(0xfd00 << 112 | u128::from(number));
                let mut damaged = ndp::solicitation(CLIENT, target, target).as_bytes().to_vec();
                damaged[60] ^= 1;
                damaged
            }
            _ => {
                let mut other = asks(nobody);
                other[12..14].copy_from_slice(&[0x08, 0x00]);
                other
            }
        }
    };
    (0..5000).map(kind).collect()
}

/// The reply timeout.
const PATIENCE: Duration = Duration::from_millis(200);
const CLIENT: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);
