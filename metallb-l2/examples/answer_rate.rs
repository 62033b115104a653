//! How fast does the driver answer ARP requests, end to end, over a pair of virtual cards? Prints replies per second for several
//! numbers of requests in flight, and the time one answer takes. Needs root and `ip`; makes its own network namespace.
//!
//! ```text
//! cargo run --profile lab -p metallb-l2 --example answer_rate
//! ```

#![allow(clippy::disallowed_methods, reason = "measures time")]

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metallb_l2::engine::Config;
use metallb_l2::interface::{MacAddr, Scope};
use metallb_l2::io::{Driver, InterfaceFilter, RawSocket, ReceiveBatch};
use metallb_l2::limit::Limits;
use metallb_l2::wire::Frame;
use metallb_l2::wire::arp::{Arp, Operation};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    for arguments in
        ["link add vip0 type veth peer name cli0 address 02:00:00:00:00:09", "link set vip0 up", "link set cli0 up"]
    {
        let status = Command::new("ip").args(arguments.split(' ')).status()?;
        if !status.success() {
            return Err(format!("ip {arguments}: {status}").into());
        }
    }
    let only: InterfaceFilter = Arc::new(|name| name == "vip0");
    let mut config = Config::default();
    config.limits = Limits::NONE;
    let driver = Driver::start_with(only, config, 1)?;
    let handle = driver.handle();
    while handle.interfaces().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut client =
        Client { socket: RawSocket::open(nix::net::if_::if_nametoindex("cli0")?)?, batch: ReceiveBatch::new() };
    let mut out = std::io::stdout();

    let vips: Vec<IpAddr> = (0..VIPS).map(|n| Ipv4Addr::from_bits(FIRST_VIP + n).into()).collect();
    let start = Instant::now();
    handle.announce(vips.iter().map(|&ip| (ip, Scope::All)).collect());
    let heard = client.receive(2 * VIPS as usize, Duration::from_secs(5))?;
    writeln!(out, "burst for {VIPS} addresses: {heard} frames in {:.2?}", start.elapsed())?;
    // The announcements are repeated for five seconds.
    std::thread::sleep(Duration::from_secs(6));
    client.receive(usize::MAX, Duration::from_millis(10))?;

    for window in [1, 64, 512] {
        let (mut asked, mut replies, start) = (0, 0, Instant::now());
        while start.elapsed() < Duration::from_secs(3) {
            asked += window as usize;
            replies += client.ask(window)?;
        }
        let rate = replies as f64 / start.elapsed().as_secs_f64();
        writeln!(out, "{window:>4} in flight: {rate:>9.0} replies/s, {} of {asked} lost", asked - replies)?;
    }
    let mut times = Vec::new();
    for _ in 0..10_000 {
        let pause = Instant::now();
        while pause.elapsed() < Duration::from_micros(50) {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        client.ask(1)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    writeln!(
        out,
        "one answer at 50 µs gaps: p50 {:.1?}, p99 {:.1?}",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    )?;
    Ok(())
}

struct Client {
    socket: RawSocket,
    batch: ReceiveBatch,
}

impl Client {
    /// Asks for `window` addresses at once; returns the answers.
    fn ask(&mut self, window: u32) -> Result<usize, Error> {
        let requests: Vec<Frame> = (0..window).map(request).collect();
        let mut rest = requests.as_slice();
        while !rest.is_empty() {
            rest = &rest[self.socket.send(rest)?..];
        }
        self.receive(requests.len(), Duration::from_millis(200))
    }

    /// Receives until `wanted` frames are there or nothing comes for as long as `patience`.
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

fn request(number: u32) -> Frame {
    let arp = Arp {
        operation: Operation::Request,
        sender_hardware: MacAddr([2, 0, 0, 0, 0, 9]),
        sender_protocol: [172, 16, 0, 9].into(),
        target_hardware: MacAddr([0; 6]),
        target_protocol: Ipv4Addr::from_bits(FIRST_VIP + number),
    };
    arp.encode(MacAddr::BROADCAST)
}

const VIPS: u32 = 10_000;
const FIRST_VIP: u32 = 0x0a00_0000;
