//! Measures ARP replies end to end over a veth pair: the kernel, an echo program, a plain responder with one frame per
//! system call, a responder in Go (if `L2_BENCH_GO` names it), and the driver of `metallb-l2`, in one run.
//! `scripts/l2-bench.sh` builds and runs it. It needs root, `ip` and two cores, and makes its own network namespaces.

#![allow(clippy::disallowed_methods, reason = "measures time")]

mod client;
mod responder;

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metallb_l2::engine::Limits;
use metallb_l2::engine::{Config, Engine, Received};
use metallb_l2::interface::{Interface, MacAddr, Scope};
use metallb_l2::io::{Driver, Handle, InterfaceFilter, Notification, RawSocket, ReceiveBatch, RxQueue};
use metallb_l2::wire::arp::{Arp, Operation};

use self::client::Client;
use self::responder::{Echo, Go, Idle, Plain, Worker, pin};

type Error = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Error> {
    let out = &mut std::io::stdout();
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    let is_chosen = |name: &str| chosen.is_empty() || chosen.iter().any(|other| other == name);
    writeln!(
        out,
        "| responder | p50 / p99, µs, 50 µs gaps | 1 ms gaps | replies/s, 1 in flight | 64 | 512 \
         | CPU per reply, µs (sleeps per 1,000) at 1 / 64 / 512 |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    for (name, run, end) in RUNS {
        if is_chosen(name) {
            // One thread per run, because a network namespace belongs to a thread.
            let line = std::thread::spawn(run).join().map_err(|_| "a run failed")??;
            write!(out, "{line}{end}")?;
        }
    }
    Ok(())
}

type Run = fn() -> Result<String, Error>;

/// The parts by their names on the command line. Without arguments all of them run.
const RUNS: [(&str, Run, &str); 10] = [
    ("kernel", kernel, "\n"),
    ("awake", || echo("echo that never sleeps", Idle::Ask), "\n"),
    ("echo", || echo("echo: returns each frame unparsed", Idle::Sleep), "\n"),
    ("go", go, ""),
    ("plain", plain, "\n"),
    ("driver", driver, "\n\n"),
    ("work", work, "\n\n"),
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
    // The kernel answers within the system call that sends the request, on the core of the client.
    measure("kernel, on the client's core", &mut client, None)
}

fn plain() -> Result<String, Error> {
    let mut client = namespace()?;
    let plain = Plain::start(vips(ASKED).collect())?;
    let worker = Worker::find("plain")?;
    let row = measure("plain: one frame per system call", &mut client, Some(&worker));
    drop(plain);
    row
}

fn echo(name: &str, idle: Idle) -> Result<String, Error> {
    let mut client = namespace()?;
    let echo = Echo::start(idle)?;
    let worker = Worker::find("echo")?;
    let row = measure(name, &mut client, Some(&worker));
    drop(echo);
    row
}

fn go() -> Result<String, Error> {
    let Ok(program) = std::env::var("L2_BENCH_GO") else { return Ok(String::new()) };
    let mut client = namespace()?;
    // The library needs an IPv4 address on the interface.
    ip("addr add 172.16.0.1/24 dev vip0")?;
    let go = Go::start(&program, ASKED)?;
    client.wait_for_answer()?;
    let worker = go.worker();
    let row = measure("Go: the library of upstream's speaker", &mut client, Some(&worker))?;
    drop(go);
    Ok(row + "\n")
}

fn driver() -> Result<String, Error> {
    let mut client = namespace()?;
    let mut config = Config::default();
    config.limits = Limits::NONE;
    let (driver, worker) = start(config)?;
    announce(&driver.handle(), vips(ASKED), 0)?;
    client.drain(QUIET)?;
    measure("metallb-l2", &mut client, Some(&worker))
}

fn measure(name: &str, client: &mut Client, worker: Option<&Worker>) -> Result<String, Error> {
    let near = client.latency(Duration::from_micros(50), 20_000)?;
    let far = client.latency(Duration::from_millis(1), 2000)?;
    let (mut rates, mut costs) = (Vec::new(), Vec::new());
    for window in [1, 64, 512] {
        let before = worker.map(Worker::usage).transpose()?;
        let (replies, lost, time) = client.throughput(window, Duration::from_secs(3))?;
        let rate = replies as f64 / time.as_secs_f64();
        rates.push(if lost == 0 { format!("{rate:.0}") } else { format!("{rate:.0} ({lost} lost)") });
        if let (Some(worker), Some((cpu_before, wakes_before))) = (worker, before) {
            let (cpu, wakes) = worker.usage()?;
            let each = |count: f64| count / replies as f64;
            costs.push(format!(
                "{:.2} ({:.0})",
                each((cpu - cpu_before).as_secs_f64() * 1e6),
                each((wakes - wakes_before) as f64 * 1e3)
            ));
        }
    }
    let costs = if costs.is_empty() { "–".to_owned() } else { costs.join(" / ") };
    Ok(format!("| {name} | {near} | {far} | {} | {costs} |", rates.join(" | ")))
}

/// Measures the work of a reply without waiting: one thread sends requests, answers them and receives the replies, 64
/// at a time. Other load on the machine affects this measurement least.
fn work() -> Result<String, Error> {
    let mut client = namespace()?;
    let index = nix::net::if_::if_nametoindex("vip0")?;
    let shared = work_on(&mut client, index, RxQueue::with_ring(index)?)?;
    let queued = work_on(&mut client, index, RxQueue::without_ring(index)?)?;
    Ok(format!(
        "Work per frame in one thread, 64 frames at a time, p50, received from a shared ring: {shared}.\n\
         The same, received from the socket buffer: {queued}."
    ))
}

fn work_on(client: &mut Client, index: u32, (socket, mut rx_queue): (RawSocket, RxQueue)) -> Result<String, Error> {
    let mut config = Config::default();
    config.limits = Limits::NONE;
    let now = Instant::now();
    let mut engine = Engine::new(config, 1, now);
    engine.set_interfaces(now, [Interface::new(index, "vip0", US, None)]);
    engine.set_addresses(now, vips(ASKED).map(|ip| (ip.into(), Scope::All)));
    while engine.poll_transmit().is_some() {}
    let (mut batch, mut answers) = (ReceiveBatch::new(), Vec::with_capacity(RawSocket::BATCH));
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..5000 {
        let start = Instant::now();
        client.send(RawSocket::BATCH)?;
        let asked = Instant::now();
        let count = rx_queue.receive(&socket, &mut batch, |_, _| {})?;
        let received = Instant::now();
        if count < RawSocket::BATCH {
            return Err("a request was lost".into());
        }
        client.send(RawSocket::BATCH)?;
        let again = Instant::now();
        rx_queue.receive(&socket, &mut batch, |bytes, checksum| {
            answers.extend(engine.handle_frame(again, &Received { interface: index, bytes, checksum }));
        })?;
        let decided = Instant::now();
        if answers.len() < RawSocket::BATCH || socket.send(&answers)? < answers.len() {
            return Err("a request or a reply was lost".into());
        }
        answers.clear();
        let sent = decided.elapsed();
        let (receiving, both) = (received - asked, decided - again);
        for (all, time) in times.iter_mut().zip([asked - start, receiving, both.saturating_sub(receiving), sent]) {
            all.push(time);
        }
        client.drain(Duration::ZERO)?;
    }
    let [asking, receiving, deciding, sending] = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e6 / RawSocket::BATCH as f64
    });
    Ok(format!(
        "{receiving:.2} µs to receive, {deciding:.2} µs to decide, {sending:.2} µs to send, together {:.2} µs \
         (and {asking:.2} µs to send the request, arrival included)",
        receiving + deciding + sending
    ))
}

/// Measures the time from the command until the other end of the link has a frame for each address, and until the last
/// frame of the first round.
fn burst() -> Result<String, Error> {
    // No client socket: the work of the neighbour is not measured.
    drop(namespace()?);
    let (driver, worker) = start(Config::default())?;
    let handle = driver.handle();
    let mut times = Vec::new();
    for _ in 0..20 {
        let (before, arrived) = (worker.cpu()?, arrived()?);
        times.push((announce(&handle, vips(BURST), arrived + u64::from(BURST))?, worker.cpu()? - before));
        announce(&handle, std::iter::empty(), 0)?;
    }
    let ready: Vec<_> = vips(BURST).map(|ip| Arp::gratuitous(Operation::Request, US, ip)).collect();
    let socket = RawSocket::open(nix::net::if_::if_nametoindex("vip0")?)?;
    let mut bare = Vec::new();
    pin(nix::unistd::Pid::from_raw(0), RESPONDER_CORE)?;
    for _ in 0..20 {
        let (start, before, mut sent) = (Instant::now(), arrived()?, 0);
        while sent < ready.len() {
            sent += socket.send(&ready[sent..])?;
        }
        while arrived()? < before + u64::from(BURST) {}
        bare.push(start.elapsed());
    }
    bare.sort_unstable();
    let bare = bare[bare.len() / 2];
    times.sort_unstable();
    let ((said, whole), cpu) = times[times.len() / 2];
    let ((worst, _), _) = times[times.len() - 1];
    Ok(format!(
        "Burst for {BURST} addresses, 20 times: each announced once in {said:.2?} (p50; max {worst:.2?}), all {} \
         frames in {whole:.2?}, {cpu:.2?} of CPU. Sending {BURST} encoded frames takes {bare:.2?}.",
        2 * BURST
    ))
}

/// The number of frames that the client's end of the link has received.
fn arrived() -> Result<u64, Error> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("cli0:")).ok_or("no client")?;
    Ok(line.split_whitespace().nth(1).ok_or("no count")?.parse()?)
}

/// Measures a flood of useless frames beside valid requests, with the default rate limits.
fn flood() -> Result<String, Error> {
    let mut client = namespace()?;
    let (driver, worker) = start(Config::default())?;
    announce(&driver.handle(), vips(ASKED), 0)?;
    client.drain(QUIET)?;
    let before = worker.cpu()?;
    let flood = client.flood(200_000, Duration::from_secs(5), Duration::from_millis(10))?;
    let cpu = (worker.cpu()? - before).as_secs_f64() / flood.time.as_secs_f64() * 100.0;
    Ok(format!(
        "Flood of {:.0} useless frames/s for {:.1?} beside a request every 10 ms: {} of {} answered, {}; the thread \
         used {cpu:.0} % of a core.",
        flood.junk as f64 / flood.time.as_secs_f64(),
        flood.time,
        flood.answered,
        flood.asked,
        flood.latency,
    ))
}

/// Measures wake-ups and CPU time of an idle driver.
fn idle() -> Result<String, Error> {
    let _client = namespace()?;
    let (driver, worker) = start(Config::default())?;
    announce(&driver.handle(), vips(1000), 0)?;
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

/// Announces addresses; returns the time until `frames` frames have arrived, and until the first round has left.
fn announce(handle: &Handle, ips: impl Iterator<Item = Ipv4Addr>, frames: u64) -> Result<(Duration, Duration), Error> {
    let addresses: Vec<(IpAddr, Scope)> = ips.map(|ip| (ip.into(), Scope::All)).collect();
    let (told, news) = std::sync::mpsc::channel();
    handle.listen(move |item| {
        if let Notification::Announced(ips) = item {
            let _ = told.send(ips.len());
        }
    });
    let wanted = addresses.len();
    let start = Instant::now();
    handle.announce(addresses);
    while arrived()? < frames {}
    let said = start.elapsed();
    let mut left = 0;
    while left < wanted {
        left += news.recv_timeout(Duration::from_secs(5))?;
    }
    Ok((said, start.elapsed()))
}

/// Creates a network namespace for this thread with an interface `vip0`, and a client at the other end of the link.
fn namespace() -> Result<Client, Error> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    ip("link add vip0 type veth peer name cli0 address 02:00:00:00:00:09")?;
    ip("link set vip0 addrgenmode none up")?;
    // The client is a program. Without `arp off` its kernel would process ARP on the core of the responder.
    ip("link set cli0 addrgenmode none arp off up")?;
    pin(nix::unistd::Pid::from_raw(0), CLIENT_CORE)?;
    Client::open()
}

fn ip(arguments: &str) -> Result<(), Error> {
    let status = Command::new("ip").args(arguments.split(' ')).status()?;
    if status.success() { Ok(()) } else { Err(format!("ip {arguments}: {status}").into()) }
}

/// The first `count` addresses.
fn vips(count: u32) -> impl Iterator<Item = Ipv4Addr> {
    (0..count).map(|number| Ipv4Addr::from_bits(FIRST_VIP + number))
}

const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const FIRST_VIP: u32 = 0x0a00_0000;
/// The number of requested addresses.
const ASKED: u32 = 512;
const BURST: u32 = 10_000;
/// Longer than a burst.
const QUIET: Duration = Duration::from_secs(6);
const CLIENT_CORE: usize = 0;
const RESPONDER_CORE: usize = 1;
