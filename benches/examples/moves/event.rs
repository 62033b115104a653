//! The processor time of one event, from the facts to the frames: decision, takeover and handover, responder, ranking.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use metallb_benches::cpu_time;
use metallb_core::announcement::{NodeView, Options, Touched};
use metallb_l2::engine::Engine;
use metallb_l2::interface::{Interface, MacAddr};
use metallb_membership::engine::{Config, Timing};
use metallb_membership::member::{Member, Output};
use metallb_membership::takeover::Plan;
use metallb_membership::wire::identity::Identity;
use metallb_membership::wire::seal::Keyring;

use crate::spread;
use crate::world::{START, World, key, node};

/// The speaker of the first node.
struct Speaker {
    view: NodeView,
    member: Member,
    l2: Engine,
    now: Instant,
    frames: usize,
}

type Change = fn(&mut World, u32, bool) -> Reach;

/// The facts that an event touches.
enum Reach {
    Service(u32),
    Configuration,
}

/// The events, each with its opposite.
const EVENTS: [(&str, Change); 4] = [
    ("Service created or deleted", |world, services, there| {
        if there {
            world.add(services + 1);
        } else {
            world.cluster.services.remove(&key(services + 1));
        }
        Reach::Service(services + 1)
    }),
    ("EndpointSlice, no other owner", |world, _, there| {
        world.serve(11, if there { &[0, 1] } else { &[0] });
        Reach::Service(11)
    }),
    ("L2 move away or back", |world, _, there| {
        world.serve(20, if there { &[1] } else { &[0] });
        Reach::Service(20)
    }),
    ("Node label that nothing selects by", |world, _, there| {
        if let Some(node) = world.cluster.nodes.get_mut(&node(1)) {
            node.labels.insert("rack".to_owned(), u8::from(there).to_string());
        }
        Reach::Configuration
    }),
];

/// Prints the cost of each event beside these numbers of Services.
pub(crate) fn measure(sizes: &[u32]) -> Result<(), Box<dyn Error>> {
    println!("| event, 5 nodes | Services | p50 | max |\n|---|---|---|---|");
    for (what, change) in EVENTS {
        for &services in sizes {
            let mut world = World::new(services, MEMBERS);
            let mut speaker = Speaker::new();
            speaker.step(&world, START);
            let mut times = Vec::new();
            for round in 0..ROUNDS {
                let reach = change(&mut world, services, round % 2 == 0);
                let touched = match reach {
                    Reach::Service(number) => BTreeSet::from([key(number)]),
                    Reach::Configuration => BTreeSet::new(),
                };
                let begun = cpu_time::now();
                speaker.step(
                    &world,
                    match reach {
                        Reach::Service(_) => Touched::Services(&touched),
                        Reach::Configuration => Touched::Configuration(&touched),
                    },
                );
                times.push(cpu_time::now().saturating_sub(begun));
                speaker.wait();
            }
            let (middle, longest) = spread(times);
            println!("| {what} | {services} | {middle:.1?} | {longest:.1?} |");
        }
    }
    Ok(())
}

impl Speaker {
    fn new() -> Self {
        let now = now();
        let mut members: Vec<Member> = (0..MEMBERS).map(|index| member(index, now)).collect();
        // Without delay, until all know all.
        for _ in 0..2 * MEMBERS {
            for from in 0..MEMBERS {
                while let Some(output) = members[from].poll_output() {
                    if let Output::Transmit(transmit) = output
                        && let Some(to) = (0..MEMBERS).find(|&index| address(index) == transmit.to)
                    {
                        members[to].handle_datagram(now, address(from), &transmit.datagram);
                    }
                }
            }
        }
        let mut l2 = Engine::new(metallb_l2::engine::Config::default(), 1, now);
        l2.set_interfaces(now, [Interface::new(1, "eth0", MacAddr([2, 0, 0, 0, 0, 1]), None)]);
        let view = NodeView::new(node(0), Options::default());
        Self { view, member: members.swap_remove(0), l2, now, frames: 0 }
    }

    /// The parts of a step as the announcer makes them, on one thread.
    fn step(&mut self, world: &World, touched: Touched<'_>) {
        let generation = self.member.generation();
        let addresses = self.view.apply(world.facts(), touched).addresses;
        self.member.plan(self.now, Plan { addresses, generation, ..Plan::default() });
        self.drain();
        let ranked = self.view.monitor();
        let (addresses, monitor) = (ranked.addresses, ranked.monitor);
        self.member.plan(self.now, Plan { addresses, generation, monitor, ranked: Some(generation) });
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.member.poll_output() {
            match output {
                Output::Announce(changes) => self.l2.change_addresses(self.now, changes),
                Output::AnnounceAgain(ips) => self.l2.announce_again(self.now, ips),
                _ => {}
            }
        }
        while self.l2.poll_transmit().is_some() {
            self.frames += 1;
        }
        let announced: Vec<_> = std::iter::from_fn(|| self.l2.poll_announced()).collect();
        if !announced.is_empty() {
            self.member.handle_announced(self.now, &announced);
        }
    }

    /// Lets time pass, so that bursts end. Members are not asked, as none of them is there any longer.
    fn wait(&mut self) {
        self.now += Duration::from_secs(10);
        self.l2.handle_timeout(self.now);
        while self.l2.poll_transmit().is_some() {
            self.frames += 1;
        }
    }
}

fn member(index: usize, now: Instant) -> Member {
    let me = Identity::new(node(index), address(index), 1_000);
    let config =
        Config { me, session: index as u64 + 1, keys: Keyring::default(), timing: Timing::default(), wan: false };
    let mut member = Member::new(config, index as u64, now);
    member.join(now, (0..MEMBERS).map(address));
    member.set_usable(now, [MacAddr([2, 0, 0, 0, 0, index as u8 + 1])]);
    member
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, index as u8 + 1], 7946))
}

#[allow(clippy::disallowed_methods, reason = "a measurement begins now")]
fn now() -> Instant {
    Instant::now()
}

const MEMBERS: usize = 5;
const ROUNDS: u32 = 1_000;
