//! Measures the cost of announcing 100,000 routes end to end over a veth pair: metallb-bgp, BIRD, FRR and GoBGP
//! announce to the same receiver in one run, or only those named as arguments. `scripts/bgp-bench.sh` runs it. Needs
//! root, `ip`, the routers and two cores; creates its own network namespaces.

#![allow(clippy::disallowed_methods, reason = "measures time")]

mod announcers;
mod ours;
mod receiver;
mod stage;

use std::io::Write as _;
use std::time::Duration;

use metallb_benches::usage;

use self::announcers::{Announcer, Bird, Frr, Gobgp, Ours};
use self::receiver::Receiver;
use self::stage::{Error, Stage, now};

/// Starts an announcer with a number of routes.
type Start = fn(&Stage, u32) -> Result<Box<dyn Announcer>, Error>;

const ANNOUNCERS: [(&str, Start); 4] = [
    ("metallb-bgp", |stage, routes| Ok(Box::new(Ours::start(stage, routes)?))),
    ("bird", |stage, routes| Ok(Box::new(Bird::start(stage, routes)?))),
    ("frr", |stage, routes| Ok(Box::new(Frr::start(stage, routes)?))),
    ("gobgp", |stage, routes| Ok(Box::new(Gobgp::start(stage, routes)?))),
];

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments == ["announce"] {
        return ours::run();
    }
    let out = &mut std::io::stdout();
    writeln!(
        out,
        "| announcer | dump: CPU, ms | wall, ms | messages | bytes each | withdraw all: CPU, ms | wall, ms \
         | RSS idle, MiB | with all routes |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|---|---|")?;
    let mut latencies = String::new();
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    for (_, start) in ANNOUNCERS.into_iter().filter(|(name, _)| wanted(name)) {
        // Each announcer has its own thread, because a network namespace belongs to a thread.
        let (row, latency) = std::thread::spawn(move || measure(start)).join().map_err(|_| "a run failed")??;
        writeln!(out, "{row}")?;
        latencies += &latency;
    }
    writeln!(
        out,
        "\n| one route | p50 / p99, µs, nothing else in the table | {ROUTES} others | what begins the time |"
    )?;
    writeln!(out, "|---|---|---|---|\n{latencies}")?;
    Ok(())
}

/// Returns a row of the table, and rows of the latency table.
fn measure(start: Start) -> Result<(String, String), Error> {
    let stage = Stage::new()?;
    let mut announcer = start(&stage, 0)?;
    let mut receiver = Receiver::open(&*announcer)?;
    let few = one_route(&mut *announcer, &mut receiver)?;
    receiver.rest(Duration::from_secs(2))?;
    let idle = usage::memory(&announcer.pids(), "VmRSS:")?;
    drop((receiver, announcer));

    let mut announcer = start(&stage, ROUTES)?;
    let pids = announcer.pids();
    let (mut dumps, mut withdrawals) = (Vec::new(), Vec::new());
    let mut full = 0.0;
    for _ in 0..ROUNDS {
        let before = usage::cpu(&pids)?;
        let mut receiver = Receiver::open(&*announcer)?;
        let last = receiver.until(|heard| heard.routes() == ROUTES)?;
        let (messages, bytes) = (receiver.heard.messages, receiver.heard.bytes);
        let wall = last - receiver.established;
        receiver.rest(QUIET)?;
        dumps.push((usage::cpu(&pids)? - before, wall, messages, bytes));
        if full == 0.0 {
            full = usage::memory(&pids, "VmRSS:")?;
        }
    }
    let mut receiver = Receiver::open(&*announcer)?;
    receiver.until(|heard| heard.routes() == ROUTES)?;
    let many = one_route(&mut *announcer, &mut receiver)?;
    for _ in 0..ROUNDS {
        receiver.rest(QUIET)?;
        let (before, begun) = (usage::cpu(&pids)?, now());
        announcer.all(false)?;
        let last = receiver.until(|heard| heard.routes() == 0)?;
        announcer.answer()?;
        receiver.rest(QUIET)?;
        withdrawals.push((usage::cpu(&pids)? - before, last - begun));
        announcer.all(true)?;
        announcer.answer()?;
        receiver.until(|heard| heard.routes() == ROUTES)?;
    }

    let dump_cpu = middle(dumps.iter().map(|dump| dump.0));
    let dump_wall = middle(dumps.iter().map(|dump| dump.1));
    let (_, _, messages, bytes) = dumps[0];
    let row = format!(
        "| {} | {} | {} | {messages} | {:.0} | {} | {} | {idle:.1} | {full:.1} |",
        announcer.name(),
        milliseconds(dump_cpu),
        milliseconds(dump_wall),
        bytes as f64 / messages as f64,
        milliseconds(middle(withdrawals.iter().map(|withdrawal| withdrawal.0))),
        milliseconds(middle(withdrawals.iter().map(|withdrawal| withdrawal.1))),
    );
    let mut latencies =
        format!("| {} | {} | {} | {} |\n", announcer.name(), few.from_command, many.from_command, announcer.command());
    if let (Some(few), Some(many)) = (few.from_decision, many.from_decision) {
        latencies += &format!("| {} | {few} | {many} | the call of `change_routes` |\n", announcer.name());
    }
    Ok((row, latencies))
}

/// The time from the command, or from the decision if the announcer reports it, to the receiver.
struct Latency {
    from_command: String,
    from_decision: Option<String>,
}

fn one_route(announcer: &mut dyn Announcer, receiver: &mut Receiver) -> Result<Latency, Error> {
    let (mut commands, mut decisions) = (Vec::new(), Vec::new());
    for _ in 0..TRIALS {
        receiver.rest(PAUSE)?;
        let begun = now();
        announcer.one(true)?;
        let heard = receiver.spin_until(|heard| heard.one)?;
        commands.push(heard - begun);
        decisions.extend(announcer.answer()?.map(|decided| heard - decided));
        announcer.one(false)?;
        receiver.until(|heard| !heard.one)?;
        announcer.answer()?;
    }
    let from_decision = (!decisions.is_empty()).then(|| quantiles(decisions));
    Ok(Latency { from_command: quantiles(commands), from_decision })
}

fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e6;
    format!("{:.1} / {:.1}", at(50), at(99))
}

fn middle(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

/// Host routes from 10.0.0.0 on.
const ROUTES: u32 = 100_000;
const ROUNDS: usize = 3;
const TRIALS: usize = 120;
const PAUSE: Duration = Duration::from_millis(5);
/// Time for background work after a dump or withdrawal.
const QUIET: Duration = Duration::from_millis(300);
