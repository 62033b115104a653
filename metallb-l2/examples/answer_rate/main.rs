//! How fast are ARP requests answered, end to end, over a pair of virtual cards: by the kernel, by a plain responder with one frame per
//! system call, and by the driver? All in one run, as `scripts/l2-bench.sh` makes it. Needs root, `ip` and two cores; works in network
//! namespaces of its own.

#![allow(clippy::disallowed_methods, reason = "measures time")]

mod client;
mod responder;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metallb_l2::engine::Config;
use metallb_l2::interface::Scope;
use metallb_l2::io::{Driver, Handle, InterfaceFilter, News};
use metallb_l2::limit::Limits;

use self::client::Client;
use self::responder::{Plain, Worker, pin};

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let out = &mut std::io::stdout();
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let is_chosen = |name: &str| chosen.is_empty() || chosen.iter().any(|other| other == name);
    writeln!(
        out,
        "| responder | p50 / p99, µs, 50 µs gaps | 1 ms gaps | replies/s, 1 in flight | 64 | 512 | CPU per reply, µs |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for (name, run, end) in RUNS {
        if is_chosen(name) {
            // A thread for each, as a namespace belongs to a thread.
            let line = std::thread::spawn(run).join().map_err(|_| "a run failed")??;
            write!(out, "{line}{end}")?;
        }
    }
    Ok(())
}

type Run = fn() -> Result<String, Error>;

/// By the names that choose them on the command line; all of them without any.
const RUNS: [(&str, Run, &str); 6] = [
    ("kernel", kernel, "\n"),
    ("plain", plain, "\n"),
    ("driver", driver, "\n\n"),
    ("burst", burst, "\n\n"),
    ("flood", flood, "\n\n"),
    ("idle", idle, "\n"),
];

fn kernel() -> Result<String, Error> {
    let mut client = namespace()?;
    ip("addr add 172.16.0.1/24 dev vip0")?;
    let lines: String = vips(ASKED).map(|ip| format!("addr add {ip}/32 dev vip0\n")).collect();
    let mut batch = Command::new("ip").args(["-batch", "-"]).stdin(std::process::Stdio::piped()).spawn()?;
    batch.stdin.take().ok_or("no input")?.write_all(lines.as_bytes())?;
    if !batch.wait()?.success() {
        return Err("addresses can't be added".into());
    }
    // The kernel answers while the question is sent, on the sender's own core.
    measure("kernel, on the asker's core", &mut client, None)
}

fn plain() -> Result<String, Error> {
    let mut client = namespace()?;
    let plain = Plain::start(vips(ASKED).collect())?;
    let worker = Worker::find("plain")?;
    let row = measure("plain: one frame per system call", &mut client, Some(&worker));
    drop(plain);
    row
}

fn driver() -> Result<String, Error> {
    let mut client = namespace()?;
    let mut config = Config::default();
    config.limits = Limits::NONE;
    let (driver, worker) = start(config)?;
    announce(&driver.handle(), vips(ASKED))?;
    client.drain(QUIET)?;
    measure("metallb-l2", &mut client, Some(&worker))
}

fn measure(name: &str, client: &mut Client, worker: Option<&Worker>) -> Result<String, Error> {
    let near = client.latency(Duration::from_micros(50), 20_000)?;
    let far = client.latency(Duration::from_millis(1), 2000)?;
    let (mut rates, mut cpu) = (Vec::new(), None);
    for window in [1, 64, 512] {
        let before = worker.map(Worker::cpu).transpose()?;
        let (replies, lost, time) = client.throughput(window, Duration::from_secs(3))?;
        let rate = replies as f64 / time.as_secs_f64();
        rates.push(if lost == 0 { format!("{rate:.0}") } else { format!("{rate:.0} ({lost} lost)") });
        if let (Some(worker), Some(before)) = (worker, before) {
            cpu = Some((worker.cpu()? - before).as_secs_f64() * 1e6 / replies as f64);
        }
    }
    let cpu = cpu.map_or("–".to_owned(), |cpu| format!("{cpu:.2} at 512"));
    Ok(format!("| {name} | {near} | {far} | {} | {cpu} |", rates.join(" | ")))
}

/// From the command to the last frame of the first round.
fn burst() -> Result<String, Error> {
    let _client = namespace()?;
    let (driver, worker) = start(Config::default())?;
    let handle = driver.handle();
    let mut times = Vec::new();
    for _ in 0..20 {
        let before = worker.cpu()?;
        let whole = announce(&handle, vips(BURST))?;
        times.push((whole, worker.cpu()? - before));
        announce(&handle, std::iter::empty())?;
    }
    times.sort_unstable();
    let (median, cpu) = times[times.len() / 2];
    let (worst, _) = times[times.len() - 1];
    Ok(format!(
        "Burst for {BURST} addresses, 20 times: {} frames in {median:.2?} (p50, {cpu:.2?} of CPU), {worst:.2?} (max).",
        2 * BURST
    ))
}

/// Junk beside good questions, with the limits that are in force by default.
fn flood() -> Result<String, Error> {
    let mut client = namespace()?;
    let (driver, worker) = start(Config::default())?;
    announce(&driver.handle(), vips(ASKED))?;
    client.drain(QUIET)?;
    let before = worker.cpu()?;
    let flood = client.flood(200_000, Duration::from_secs(5), Duration::from_millis(10))?;
    let cpu = (worker.cpu()? - before).as_secs_f64() / flood.time.as_secs_f64() * 100.0;
    Ok(format!(
        "Flood of {:.0} junk frames/s for {:.1?} beside a question every 10 ms: {} of {} answered, {}; the thread took {cpu:.0} % of a core.",
        flood.junk as f64 / flood.time.as_secs_f64(),
        flood.time,
        flood.answered,
        flood.asked,
        flood.latency,
    ))
}

/// What a driver does when there is nothing to do.
fn idle() -> Result<String, Error> {
    let _client = namespace()?;
    let (driver, worker) = start(Config::default())?;
    announce(&driver.handle(), vips(1000))?;
    std::thread::sleep(QUIET);
    let (cpu, wakes) = (worker.cpu()?, worker.wakes()?);
    let time = Duration::from_secs(10);
    std::thread::sleep(time);
    Ok(format!(
        "Idle with 1000 addresses for {time:.0?}: {} wake-ups, {:.1?} of CPU.",
        worker.wakes()? - wakes,
        worker.cpu()? - cpu
    ))
}

fn start(config: Config) -> Result<(Driver, Worker), Error> {
    let only: InterfaceFilter = Arc::new(|name| name == "vip0");
    let driver = Driver::start_with(only, config, 1)?;
    let worker = Worker::find("l2")?;
    worker.pin(RESPONDER_CORE)?;
    while driver.handle().interfaces().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok((driver, worker))
}

/// Announces, and waits until the first round left; says how long that took.
fn announce(handle: &Handle, ips: impl Iterator<Item = Ipv4Addr>) -> Result<Duration, Error> {
    let addresses: Vec<(IpAddr, Scope)> = ips.map(|ip| (ip.into(), Scope::All)).collect();
    let (told, news) = std::sync::mpsc::channel();
    handle.listen(move |item| {
        if let News::Announced(ips) = item {
            let _ = told.send(ips.len());
        }
    });
    let wanted = addresses.len();
    let start = Instant::now();
    handle.announce(addresses);
    let mut left = 0;
    while left < wanted {
        left += news.recv_timeout(Duration::from_secs(5))?;
    }
    Ok(start.elapsed())
}

/// A namespace of this thread's own with a card `vip0`, and the client at its other end.
fn namespace() -> Result<Client, Error> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    ip("link add vip0 type veth peer name cli0 address 02:00:00:00:00:09")?;
    ip("link set vip0 addrgenmode none up")?;
    // The neighbour is a program. Its kernel's part in ARP would be done on the core of the responder, whose part it is not.
    ip("link set cli0 addrgenmode none arp off up")?;
    pin(nix::unistd::Pid::from_raw(0), CLIENT_CORE)?;
    Client::open()
}

fn ip(arguments: &str) -> Result<(), Error> {
    let status = Command::new("ip").args(arguments.split(' ')).status()?;
    if status.success() { Ok(()) } else { Err(format!("ip {arguments}: {status}").into()) }
}

/// The first of all addresses.
fn vips(count: u32) -> impl Iterator<Item = Ipv4Addr> {
    (0..count).map(|number| Ipv4Addr::from_bits(FIRST_VIP + number))
}

const FIRST_VIP: u32 = 0x0a00_0000;
/// Addresses that are asked for.
const ASKED: u32 = 512;
const BURST: u32 = 10_000;
/// The announcements are repeated for less than this.
const QUIET: Duration = Duration::from_secs(6);
const CLIENT_CORE: usize = 0;
const RESPONDER_CORE: usize = 1;
