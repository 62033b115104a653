//! The time from the last datagram of an owner to the announcement of its addresses by its successor, with an idle
//! speaker and with one that loads all Services. Members have real sockets on loopback and a thread each.

use std::error::Error;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use metallb_core::announcement::{AddressChanges, NodeView, Options};
use metallb_l2::engine::Engine;
use metallb_l2::interface::{AddressChange, Interface, MacAddr};
use metallb_membership::engine::{Config, Timing};
use metallb_membership::member::{Member, Output};
use metallb_membership::takeover::Plan;
use metallb_membership::wire::identity::Identity;
use metallb_membership::wire::seal::Keyring;

use crate::spread;
use crate::world::{START, World, node};

/// A member with its thread. It dies without a word when `stop` is set.
struct Running {
    stop: Arc<AtomicBool>,
    /// Returns when an address of the other member was first announced.
    thread: JoinHandle<Option<Instant>>,
}

/// Prints the takeover times beside an idle and a busy speaker.
pub(crate) fn measure(services: u32) -> Result<(), Box<dyn Error>> {
    let world = Arc::new(World::new(services, 2));
    let mut view = NodeView::new(node(1), Options::default());
    let mut assignments = view.apply(world.facts(), START).addresses;
    let ranked = view.monitor();
    assignments.extend(ranked.addresses);
    let monitor = ranked.monitor.unwrap_or_default();
    println!("\n| takeover, {services} Services on 2 nodes | p50 | max |\n|---|---|---|");
    for busy in [false, true] {
        let loading = Arc::new(AtomicBool::new(busy));
        let speaker = std::thread::spawn({
            let (loading, world) = (Arc::clone(&loading), Arc::clone(&world));
            move || {
                let mut loads = 0;
                while loading.load(Ordering::Relaxed) {
                    let mut view = NodeView::new(node(1), Options::default());
                    view.apply(world.facts(), START);
                    view.monitor();
                    loads += 1;
                }
                loads
            }
        });
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            times.push(takeover(&assignments, &monitor)?);
        }
        loading.store(false, Ordering::Relaxed);
        let loads = speaker.join().unwrap_or_default();
        let (middle, longest) = spread(times);
        let what = if busy { format!("speaker loads all of them, {loads} times") } else { "idle speaker".to_owned() };
        println!("| {what} | {middle:.1?} | {longest:.1?} |");
    }
    Ok(())
}

/// Lets the first of two members die; the time until the second one announces.
fn takeover(
    assignments: &AddressChanges,
    monitor: &std::collections::BTreeSet<metallb_core::model::NodeName>,
) -> Result<Duration, Box<dyn Error>> {
    let sockets = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
    let plan = Plan { addresses: assignments.clone(), monitor: Some(monitor.clone()), ..Plan::default() };
    let [owner, heir] = sockets.each_ref().map(UdpSocket::try_clone);
    let contacts = [sockets[0].local_addr()?, sockets[1].local_addr()?];
    let heir = start(1, heir?, contacts, Some(plan));
    let owner = start(0, owner?, contacts, None);
    std::thread::sleep(SETTLED);
    owner.stop.store(true, Ordering::Relaxed);
    let died = now();
    drop(owner.thread.join());
    std::thread::sleep(TAKEN_OVER);
    heir.stop.store(true, Ordering::Relaxed);
    let announced = heir.thread.join().map_err(|_| "the thread of the successor panicked")?;
    Ok(announced.ok_or("nothing was taken over")?.saturating_duration_since(died))
}

fn start(index: usize, socket: UdpSocket, contacts: [std::net::SocketAddr; 2], plan: Option<Plan>) -> Running {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let thread = std::thread::spawn(move || run(index, &socket, contacts, plan, &stopped));
    Running { stop, thread }
}

/// The loop of a member: its plan follows when the other member is live.
fn run(
    index: usize,
    socket: &UdpSocket,
    contacts: [std::net::SocketAddr; 2],
    mut plan: Option<Plan>,
    stop: &AtomicBool,
) -> Option<Instant> {
    let me = Identity::new(node(index), contacts[index], 1_000);
    let config =
        Config { me, session: index as u64 + 1, keys: Keyring::default(), timing: Timing::default(), wan: false };
    let mut member = Member::new(config, index as u64, now());
    member.join(now(), contacts);
    member.set_usable(now(), [MacAddr([2, 0, 0, 0, 0, index as u8 + 1])]);
    let mut l2 = Engine::new(metallb_l2::engine::Config::default(), 1, now());
    l2.set_interfaces(now(), [Interface::new(1, "eth0", MacAddr([2, 0, 0, 0, 0, index as u8 + 1]), None)]);
    let (mut own, mut taken_over) = (None, None);
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        while let Some(output) = member.poll_output() {
            match output {
                Output::Transmit(transmit) => drop(socket.send_to(&transmit.datagram, transmit.to)),
                Output::Announce(changes) => {
                    let held = changes.iter().filter(|change| matches!(change, AddressChange::Announce(_))).count();
                    l2.change_addresses(now(), changes);
                    let frames = std::iter::from_fn(|| l2.poll_transmit()).count();
                    // The first announcement is that of its own addresses.
                    if held > 0 && frames > 0 && own.replace(held).is_some() {
                        taken_over = taken_over.or(Some(now()));
                    }
                }
                _ => {}
            }
        }
        if member.live().len() == 2
            && let Some(mut plan) = plan.take()
        {
            plan.generation = member.generation();
            plan.ranked = Some(plan.generation);
            member.plan(now(), plan);
            continue;
        }
        let due = member.poll_timeout().map(|at| at.saturating_duration_since(now()));
        let wait = due.unwrap_or(LONGEST_WAIT).clamp(Duration::from_micros(50), LONGEST_WAIT);
        if socket.set_read_timeout(Some(wait)).is_ok()
            && let Ok((length, from)) = socket.recv_from(&mut buffer)
        {
            member.handle_datagram(now(), from, &buffer[..length]);
        }
        member.handle_timeout(now());
    }
    taken_over
}

#[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
fn now() -> Instant {
    Instant::now()
}

const ROUNDS: u32 = 15;

/// How long two members need to know each other and to announce what they own.
const SETTLED: Duration = Duration::from_millis(1_500);

/// Longer than a takeover takes.
const TAKEN_OVER: Duration = Duration::from_millis(1_500);

const LONGEST_WAIT: Duration = Duration::from_millis(5);
