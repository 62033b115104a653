//! Measures the cost of BFD sessions: `bfd_load LOCAL REMOTE COUNT INTERVAL_MS SECONDS`.
//!
//! Session n is between LOCAL + n and REMOTE + n. At the end it prints the processor time of the BFD thread in the
//! measured seconds. `scripts/bfd-bench.sh` runs two of these.
//!
//! `bfd_load watch LOCAL REMOTE INTERVAL_MS SECONDS` polls one session at a high rate and prints every failure with the
//! time since the epoch. The polling disturbs the caches of the BFD thread, so its processor time is not valid.
//!
//! `bfd_load floor LOCAL REMOTE INTERVAL_MS SECONDS` is the lower bound for any implementation that sleeps between
//! packets: a thread that only waits, sends packets of the same size at the same rate, and reads received packets
//! without decoding them.

#![expect(clippy::print_stdout, reason = "a measurement prints times")]

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant, SystemTime};

use metallb_bgp::bfd::{Hops, Interval, Profile, State};
use metallb_bgp::io::bfd_udp::{BfdPath, Driver};
use nix::poll::{PollFd, PollFlags, ppoll};
use rand::RngExt as _;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, local, remote, interval, seconds] = arguments.as_slice()
        && mode == "floor"
    {
        return floor(local.parse()?, remote.parse()?, interval.parse()?, seconds.parse()?);
    }
    let (local, remote, count, interval, seconds, poll_interval) = match arguments.as_slice() {
        [mode, local, remote, interval, seconds] if mode == "watch" => {
            (local, remote, "1", interval, seconds, FAST_POLL)
        }
        [local, remote, count, interval, seconds] => (local, remote, count.as_str(), interval, seconds, SLOW_POLL),
        _ => return Err("usage: bfd_load [floor | watch] LOCAL REMOTE [COUNT] INTERVAL_MS SECONDS".into()),
    };
    let (local, remote): (Ipv4Addr, Ipv4Addr) = (local.parse()?, remote.parse()?);
    let count: u32 = count.parse()?;
    let interval = Interval::from(Duration::from_millis(interval.parse()?));
    let seconds: u64 = seconds.parse()?;
    let profile = Profile::default().with_interval(interval);

    let driver = Driver::start(std::process::id().into())?;
    let handle = driver.handle();
    let mut statuses = Vec::new();
    for number in 0..count {
        let at = |base: Ipv4Addr| IpAddr::from((u32::from(base) + number).to_be_bytes());
        let mut path = BfdPath::new(at(remote), Hops::Single);
        path.local = Some(at(local));
        statuses.push(handle.add_session(path, profile)?);
    }
    while statuses.iter().any(|status| status.borrow().state != State::Up) {
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(3));
    println!("up {count}");

    let (start, used) = (Instant::now(), processor_time()?);
    let mut failures = 0;
    while start.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(poll_interval);
        let status = statuses.first().map(|status| status.borrow().clone()).unwrap_or_default();
        if status.failures > failures {
            failures = status.failures;
            println!("down {}", SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_micros());
        }
    }
    let cost = processor_time()?.saturating_sub(used);
    let (mut late, mut late_by_5_ms, mut down, mut sent) = (0, 0, 0, 0);
    for session in handle.report()?.sessions.iter().filter_map(|session| session.session) {
        late += session.counters.transmissions_late;
        late_by_5_ms += session.counters.transmissions_late_by_5_ms;
        down += session.counters.down_events;
        sent += session.counters.control_packets_out;
    }
    let share = 100.0 * cost.as_secs_f64() / start.elapsed().as_secs_f64();
    println!(
        "bfd thread {share:.2} % of a core, {sent} packets sent, {late} late by a quarter of the interval, \
         {late_by_5_ms} by 5 ms, {down} down"
    );
    Ok(())
}

/// Intervals at which the state is polled.
const FAST_POLL: Duration = Duration::from_micros(200);
const SLOW_POLL: Duration = Duration::from_millis(500);

fn floor(local: Ipv4Addr, remote: Ipv4Addr, interval: u64, seconds: u64) -> Result<(), Box<dyn Error>> {
    let socket = UdpSocket::bind((local, FLOOR_PORT))?;
    socket.connect((remote, FLOOR_PORT))?;
    socket.set_nonblocking(true)?;
    let interval = Duration::from_millis(interval);
    std::thread::Builder::new().name("bfd".into()).spawn(move || {
        let mut random = SmallRng::seed_from_u64(1);
        let mut due = Instant::now();
        loop {
            let now = Instant::now();
            if now >= due {
                // It fails if the other end is not running.
                let _ = socket.send(&[0; 24]);
                due = now + interval * 3 / 4 + interval / 4 * random.random_range(0..256) / 256;
            }
            let mut wanted = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
            if matches!(ppoll(&mut wanted, Some((due - now).into()), None), Ok(1..)) {
                let _ = socket.recv(&mut [0; 64]);
            }
        }
    })?;
    std::thread::sleep(Duration::from_secs(6));
    let (start, used) = (Instant::now(), processor_time()?);
    std::thread::sleep(Duration::from_secs(seconds));
    let cost = processor_time()?.saturating_sub(used);
    println!("bare loop {:.2} % of a core", 100.0 * cost.as_secs_f64() / start.elapsed().as_secs_f64());
    Ok(())
}

/// Processor time of the BFD thread, from the scheduler.
fn processor_time() -> Result<Duration, Box<dyn Error>> {
    for task in std::fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == "bfd" {
            let statistics = std::fs::read_to_string(task.join("schedstat"))?;
            let nanoseconds = statistics.split_whitespace().next().ok_or("no schedstat")?;
            return Ok(Duration::from_nanos(nanoseconds.parse()?));
        }
    }
    Err("no BFD thread".into())
}

/// A port without another use.
const FLOOR_PORT: u16 = 49_151;
