//! Two electors against one server, in every order that chance makes: requests that are lost, late or never answered,
//! watches that lag behind, processes that are stopped.

use proptest::prelude::*;

use super::*;

/// What chance may do next; the number says to which process.
#[derive(Clone, Debug)]
enum Move {
    Pass {
        milliseconds: u64,
    },
    /// The process looks at its elector; a request may start.
    Run(usize),
    /// The server carries out the oldest request of the process that it has not seen yet.
    Arrive(usize),
    /// The answer, if there is one, reaches the process.
    Answer(usize),
    /// The process no longer waits. The request may still arrive.
    GiveUp(usize),
    /// The request under way never arrives.
    Drop(usize),
    /// The watch delivers its next event.
    Deliver(usize),
    /// The process is suspended for a while, at any point.
    Stop {
        process: usize,
        milliseconds: u64,
    },
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let process = 0..2_usize;
    let one = prop_oneof![
        4 => (1..900_u64).prop_map(|milliseconds| Move::Pass { milliseconds }),
        1 => (2900..5200_u64).prop_map(|milliseconds| Move::Pass { milliseconds }),
        8 => process.clone().prop_map(Move::Run),
        8 => process.clone().prop_map(Move::Arrive),
        8 => process.clone().prop_map(Move::Answer),
        1 => process.clone().prop_map(Move::GiveUp),
        1 => process.clone().prop_map(Move::Drop),
        6 => process.clone().prop_map(Move::Deliver),
        1 => (process, 1..20_000_u64).prop_map(|(process, milliseconds)| Move::Stop { process, milliseconds }),
    ];
    proptest::collection::vec(one, 1..400)
}

struct Process {
    elector: Elector,
    told: usize,
    stopped_until: u64,
    /// Sent and not yet carried out, oldest first; the last one is waited for if `waits`.
    sent: Vec<Request>,
    answer: Option<End>,
    waits: bool,
}

struct World {
    server: Server,
    start: Instant,
    milliseconds: u64,
    processes: [Process; 2],
    led: usize,
}

impl World {
    fn new() -> Self {
        let process = |pod| {
            let mut elector = Elector::new(settings(pod, None));
            elector.follow(true);
            Process { elector, told: 0, stopped_until: 0, sent: Vec::new(), answer: None, waits: false }
        };
        Self {
            server: Server::default(),
            start: Instant::now(),
            milliseconds: 0,
            processes: [process("one"), process("two")],
            led: 0,
        }
    }

    fn make(&mut self, one: &Move) {
        match *one {
            Move::Pass { milliseconds } => self.milliseconds += milliseconds,
            Move::Stop { process, milliseconds } => {
                self.processes[process].stopped_until = self.milliseconds + milliseconds;
            }
            Move::Arrive(process) => self.arrive(process),
            Move::Drop(process) => {
                if self.processes[process].waits && self.processes[process].answer.is_none() {
                    self.processes[process].sent.pop();
                }
            }
            Move::Run(process) | Move::Answer(process) | Move::GiveUp(process) | Move::Deliver(process) => {
                if self.milliseconds >= self.processes[process].stopped_until {
                    self.act(process, one);
                }
            }
        }
    }

    fn arrive(&mut self, process: usize) {
        let process = &mut self.processes[process];
        if process.sent.is_empty() {
            return;
        }
        let request = process.sent.remove(0);
        let end = self.server.answer(&request);
        if process.waits && process.sent.is_empty() {
            process.answer = Some(end);
        }
    }

    fn act(&mut self, process: usize, one: &Move) {
        let now = self.start + Duration::from_millis(self.milliseconds);
        let process = &mut self.processes[process];
        match one {
            Move::Run(_) => {
                if let Some(request) = process.elector.poll(now, Scene::wall()).request {
                    process.sent.push(request);
                    process.waits = true;
                }
            }
            Move::Answer(_) => {
                if let Some(end) = process.answer.take() {
                    process.waits = false;
                    process.elector.ended(now, end);
                }
            }
            Move::GiveUp(_) if process.waits => {
                process.waits = false;
                process.answer = None;
                process.elector.ended(now, End::Unknown);
            }
            Move::Deliver(_) => {
                if let Some(event) = self.server.events.get(process.told) {
                    process.told += 1;
                    match event {
                        Event::Seen(lease) => process.elector.observe(now, lease.clone()),
                        Event::Gone(revision) => {
                            process.elector.observe_absence(now, Version::parse(&revision.to_string()));
                        }
                    }
                }
            }
            _ => {}
        }
    }

    /// The processes that may write now, running or suspended.
    fn writers(&mut self) -> usize {
        let now = self.start + Duration::from_millis(self.milliseconds);
        let writers = self
            .processes
            .iter()
            .filter(|process| process.elector.grant().is_some_and(|(_, until)| now < until))
            .count();
        self.led = self.led.max(writers);
        writers
    }

    /// Everything works again: somebody leads soon.
    fn heal(&mut self) -> bool {
        for process in &mut self.processes {
            process.stopped_until = 0;
        }
        (0..200).any(|_| {
            self.milliseconds += 50;
            for process in 0..2 {
                for _ in 0..4 {
                    self.make(&Move::Deliver(process));
                    self.make(&Move::Run(process));
                    self.make(&Move::Arrive(process));
                    self.make(&Move::Answer(process));
                }
                if self.processes[process].sent.is_empty() && self.processes[process].answer.is_none() {
                    self.make(&Move::GiveUp(process));
                }
            }
            self.writers() == 1
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn two_electors_never_may_write_at_one_time_and_one_leads_in_the_end(moves in moves()) {
        let mut world = World::new();
        for one in &moves {
            world.make(one);
            prop_assert!(world.writers() <= 1, "after {one:?}");
        }
        prop_assert!(world.heal(), "nobody leads 10 s after all faults have ended");
        prop_assert_eq!(world.led, 1);
        let restores = |process: &Process| process.elector.standing(Claim::default()).restores;
        let counted: u64 = world.processes.iter().map(restores).sum();
        prop_assert_eq!(counted, 0);
    }
}
