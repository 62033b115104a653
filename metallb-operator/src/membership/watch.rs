//! Watching those whose addresses we would inherit, directly and often.
//!
//! ```text
//! heard ──100 ms── ping ──50── ping ──50── ping ──50── suspected: others are asked, pings go on
//!   its answer to us ends it, nothing else: it may talk and be deaf; "it answers me" of another member delays the next question
//!   of two that watch each other one pings and the other one answers, which tells it as much, until the first one hears no answers
//!   "it does not answer me" of one member, contradicted by none ── gone
//! ```
//!
//! Nobody is gone on our word alone, unless there is nobody else: in a cluster of two, or when nobody at all has answered for
//! [`Timing::isolated`]. A stall of this process is no silence of others: what counts is pings that were sent and not answered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use metallb_core::model::NodeName;

/// How patient watching is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timing {
    /// How long after it was heard a node is pinged.
    pub interval: Duration,
    /// How long after a ping without an answer the next one follows.
    pub retry: Duration,
    /// After how many pings without an answer others are asked.
    pub pings: u32,
    /// How long others may take to say whether they hear it.
    pub verdict: Duration,
    /// After what silence our own word is enough, when nobody answered the question either.
    pub isolated: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(100),
            retry: Duration::from_millis(50),
            pings: 3,
            verdict: Duration::from_millis(200),
            isolated: Duration::from_secs(1),
        }
    }
}

/// The watched nodes.
#[derive(Debug)]
pub(super) struct Watch {
    timing: Timing,
    /// The interval for few.
    interval: Duration,
    me: NodeName,
    nodes: BTreeMap<NodeName, Watched>,
    /// What is still wanted; those that are gone stay watched beyond.
    wanted: BTreeSet<NodeName>,
    tokens: u32,
}

#[derive(Debug)]
struct Watched {
    heard: Instant,
    /// Pings since then, and when the next one is due.
    pings: u32,
    next_ping: Instant,
    /// When it pinged us last.
    pinged: Option<Instant>,
    state: State,
}

/// What a datagram of a watched node shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sign {
    /// It watches us, too, and hears us.
    Ping,
    /// It hears us.
    Answer,
    /// It can talk.
    Talk,
}

#[derive(Debug)]
enum State {
    Steady,
    Suspected(Question),
    /// Since when.
    Gone(Instant),
}

/// A question to others and what came of it.
#[derive(Debug)]
struct Question {
    token: u32,
    asked: BTreeSet<NodeName>,
    /// Who did not hear it either.
    deaf: BTreeSet<NodeName>,
    deadline: Instant,
    /// When anybody answered last.
    answered: Option<Instant>,
}

/// What is to be done or told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Action {
    Ping(NodeName),
    /// A ping of one that did not answer for a while.
    Call(NodeName),
    Ask {
        witness: NodeName,
        about: NodeName,
        token: u32,
    },
    Suspected(NodeName),
    /// It lives after all.
    Refuted(NodeName),
    Gone(NodeName, Instant),
    /// It was gone and answers again.
    Back(NodeName),
}

impl Watch {
    pub(super) fn new(me: NodeName, timing: Timing) -> Self {
        Self { interval: timing.interval, timing, me, nodes: BTreeMap::new(), wanted: BTreeSet::new(), tokens: 0 }
    }

    /// Replaces the nodes to watch.
    pub(super) fn set(&mut self, now: Instant, wanted: BTreeSet<NodeName>) {
        self.nodes.retain(|node, watched| wanted.contains(node) || !matches!(watched.state, State::Steady));
        // Watching many must not cost more and more.
        self.timing.interval = self.interval.max(PER_NODE * u32::try_from(wanted.len()).unwrap_or(u32::MAX));
        for node in &wanted {
            self.nodes.entry(node.clone()).or_insert_with(|| Watched {
                heard: now,
                pings: 0,
                next_ping: now + self.timing.interval,
                pinged: None,
                state: State::Steady,
            });
        }
        self.wanted = wanted;
    }

    /// Leaves a node to gossip, which says that it is dead.
    pub(super) fn dismiss(&mut self, node: &NodeName) {
        self.nodes.remove(node);
    }

    /// Whether it is to be watched all the time.
    pub(super) fn wants(&self, node: &NodeName) -> bool {
        self.wanted.contains(node)
    }

    /// Another member, which watches it, holds it for gone. It is tried before that is believed.
    pub(super) fn doubt(&mut self, now: Instant, node: &NodeName, witness: &NodeName, heard: Instant) -> Vec<Action> {
        let due = now + DOUBT;
        let watched = self.nodes.entry(node.clone()).or_insert_with(|| Watched {
            heard,
            pings: 0,
            next_ping: now,
            pinged: None,
            state: State::Steady,
        });
        let mut actions = Vec::new();
        if matches!(watched.state, State::Steady) {
            self.tokens = self.tokens.wrapping_add(1);
            watched.state = State::Suspected(Question::new(self.tokens, due));
            actions.extend([Action::Suspected(node.clone()), Action::Ping(node.clone())]);
            watched.pings = watched.pings.saturating_add(1);
            watched.next_ping = now + self.timing.retry;
        }
        if let State::Suspected(question) = &mut watched.state {
            question.asked.insert(witness.clone());
            question.deaf.insert(witness.clone());
            question.deadline = question.deadline.min(due);
        }
        actions
    }

    pub(super) fn is_gone(&self, node: &NodeName) -> bool {
        self.nodes.get(node).is_some_and(|watched| matches!(watched.state, State::Gone(_)))
    }

    /// A datagram of the node itself. Who only talks is no proof of life, and is pinged at once when it is missing.
    pub(super) fn hear(&mut self, now: Instant, node: &NodeName, sign: Sign) -> Option<Action> {
        let interval = self.timing.interval;
        let watched = self.nodes.get_mut(node)?;
        match (sign, &watched.state) {
            (Sign::Answer, _) => {}
            (Sign::Ping, State::Steady) => watched.pinged = Some(now),
            (Sign::Talk, State::Steady) => return None,
            (_, State::Suspected(_) | State::Gone(_)) => {
                watched.next_ping = now;
                return None;
            }
        }
        watched.heard = now;
        watched.pings = 0;
        // Its pings tell us as much as its answers to ours. So that not both ask at once, the second one in order waits a little.
        let mutual = watched.pinged.is_some_and(|at| now.saturating_duration_since(at) <= interval * 2);
        watched.next_ping = now + if mutual && *node < self.me { interval + interval / LAG } else { interval };
        let news = match std::mem::replace(&mut watched.state, State::Steady) {
            State::Steady => None,
            State::Suspected(_) => Some(Action::Refuted(node.clone())),
            State::Gone(_) => Some(Action::Back(node.clone())),
        };
        if !self.wanted.contains(node) {
            self.nodes.remove(node);
        }
        news
    }

    /// What another member found.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        witness: &NodeName,
        about: &NodeName,
        token: u32,
        heard: bool,
    ) -> Option<Action> {
        let watched = self.nodes.get_mut(about)?;
        let State::Suspected(question) = &mut watched.state else { return None };
        if question.token != token || !question.asked.contains(witness) {
            return None;
        }
        question.answered = Some(now);
        if heard {
            // It lives, though we do not hear it: we ask again, but not at once.
            question.asked.clear();
            question.deaf.clear();
            question.deadline = now + ASK_AGAIN;
            return None;
        }
        question.deaf.insert(witness.clone());
        let all = question.deaf.len() == question.asked.len();
        (all || question.deaf.len() >= ENOUGH).then(|| watched.end(about, now))
    }

    /// What is due. `others(node)` are the members that can be asked about a node, without it and us.
    pub(super) fn run_due(&mut self, now: Instant, others: impl Fn(&NodeName) -> Vec<NodeName>) -> Vec<Action> {
        let mut actions = Vec::new();
        let timing = self.timing;
        let least = PER_NODE * u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        for (node, watched) in &mut self.nodes {
            let due =
                watched.next_ping <= now || watched.pings == 0 && watched.next_ping <= now + timing.interval / ALONG;
            let unanswered = watched.pings >= timing.pings && watched.next_ping <= now;
            match &mut watched.state {
                State::Steady if unanswered => {
                    self.tokens = self.tokens.wrapping_add(1);
                    actions.push(Action::Suspected(node.clone()));
                    watched.state = State::Suspected(Question::new(self.tokens, now));
                }
                _ => {}
            }
            if let State::Suspected(question) = &mut watched.state
                && question.deadline <= now
            {
                let others = others(node);
                let silent = now.saturating_duration_since(watched.heard);
                let deaf = !question.deaf.is_empty();
                let nobody = |at: Instant| now.saturating_duration_since(at) >= timing.isolated;
                let alone = others.is_empty() || silent >= timing.isolated && question.answered.is_none_or(nobody);
                if deaf || alone {
                    actions.push(watched.end(node, now));
                } else {
                    self.tokens = self.tokens.wrapping_add(1);
                    question.token = self.tokens;
                    question.deadline = now + timing.verdict;
                    question.deaf.clear();
                    // Whoever was asked in vain makes room for others.
                    let (old, fresh): (Vec<_>, Vec<_>) =
                        others.into_iter().partition(|other| question.asked.contains(other));
                    question.asked = fresh.into_iter().chain(old).take(WITNESSES).collect();
                    let ask = |witness: &NodeName| Action::Ask {
                        witness: witness.clone(),
                        about: node.clone(),
                        token: question.token,
                    };
                    actions.extend(question.asked.iter().map(ask));
                }
            }
            if due {
                let ping = if watched.pings < timing.pings { Action::Ping } else { Action::Call };
                actions.push(ping(node.clone()));
                watched.pings = watched.pings.saturating_add(1);
                watched.next_ping = match watched.state {
                    State::Gone(since) => now + gone_ping(now, since).max(least),
                    _ => now + timing.retry,
                };
            }
        }
        actions
    }

    /// Whether nodes are watched, and all of them are gone.
    pub(super) fn hears_nobody(&self) -> bool {
        !self.nodes.is_empty() && self.nodes.values().all(|watched| matches!(watched.state, State::Gone(_)))
    }

    pub(super) fn watched(&self) -> impl Iterator<Item = &NodeName> {
        self.nodes.keys()
    }

    pub(super) fn next(&self) -> Option<Instant> {
        let next = |watched: &Watched| match &watched.state {
            State::Suspected(question) => watched.next_ping.min(question.deadline),
            State::Steady | State::Gone(_) => watched.next_ping,
        };
        self.nodes.values().map(next).min()
    }
}

impl Watched {
    fn end(&mut self, node: &NodeName, now: Instant) -> Action {
        self.state = State::Gone(now);
        self.next_ping = now + GONE_PING;
        Action::Gone(node.clone(), self.heard)
    }
}

impl Question {
    fn new(token: u32, now: Instant) -> Self {
        Self { token, asked: BTreeSet::new(), deaf: BTreeSet::new(), deadline: now, answered: None }
    }
}

/// What the interval is at least for each watched node: 200 pings per second are the most.
const PER_NODE: Duration = Duration::from_millis(5);

/// How many others are asked at once.
const WITNESSES: usize = 3;

/// How many that do not hear it either are enough, whatever the others might say.
const ENOUGH: usize = 2;

/// After another member heard it, how long until the next question.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// How long a node is tried that another member found gone.
const DOUBT: Duration = Duration::from_millis(100);

/// Of two that watch each other, the second one in order waits longer by this part of the interval: an answer takes less.
const LAG: u32 = 5;

/// Pings that are due within this part of the interval go along with an earlier one, so that the process wakes up once for all.
const ALONG: u32 = 10;

/// How often those that are gone are pinged, to see them return: at first, when it is most likely, and later.
const GONE_PING: Duration = Duration::from_millis(20);
const GONE_PING_LATER: Duration = Duration::from_millis(100);
const FIRST: Duration = Duration::from_secs(30);

fn gone_ping(now: Instant, since: Instant) -> Duration {
    if now.saturating_duration_since(since) < FIRST { GONE_PING } else { GONE_PING_LATER }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn start() -> Instant {
        Instant::now()
    }

    fn names(names: &[&str]) -> Vec<NodeName> {
        names.iter().map(|&name| name.into()).collect()
    }

    /// Runs every due action until `end`, and returns when each happened.
    fn run(watch: &mut Watch, from: Instant, end: Duration, others: &[&str]) -> Vec<(u128, Action)> {
        let mut log = Vec::new();
        while let Some(next) = watch.next().filter(|next| *next <= from + end) {
            for action in watch.run_due(next, |_| names(others)) {
                log.push(((next - from).as_millis(), action));
            }
        }
        log
    }

    fn gone_at(log: &[(u128, Action)]) -> Option<u128> {
        log.iter().find(|(_, action)| matches!(action, Action::Gone(..))).map(|(at, _)| *at)
    }

    #[test]
    fn in_a_cluster_of_two_silence_is_enough() {
        let now = start();
        let mut watch = Watch::new("me".into(), Timing::default());
        watch.set(now, names(&["x"]).into_iter().collect());
        let log = run(&mut watch, now, 1000 * MS, &[]);
        assert_eq!(gone_at(&log), Some(250), "{log:?}");
    }

    #[test]
    fn one_other_member_must_agree() {
        let now = start();
        let mut watch = Watch::new("me".into(), Timing::default());
        watch.set(now, names(&["x"]).into_iter().collect());
        let log = run(&mut watch, now, 300 * MS, &["w"]);
        let Some(Action::Ask { token, .. }) =
            log.iter().map(|(_, action)| action).find(|action| matches!(action, Action::Ask { .. }))
        else {
            panic!("nobody was asked: {log:?}")
        };
        assert_eq!(gone_at(&log), None);
        let at = now + 370 * MS;
        let judged = watch.judge(at, &"w".into(), &"x".into(), *token, false);
        assert_eq!(judged, Some(Action::Gone("x".into(), now)));
        assert!(watch.is_gone(&"x".into()));
        assert_eq!(watch.hear(at + MS, &"x".into(), Sign::Answer), Some(Action::Back("x".into())));
    }

    #[test]
    fn who_talks_and_answers_nobody_is_gone_until_it_answers() {
        let now = start();
        let x: NodeName = "x".into();
        let mut watch = Watch::new("me".into(), Timing::default());
        watch.set(now, [x.clone()].into());
        let (mut gone, mut called) = (None, false);
        for at in (0..1000).step_by(10).map(|ms| now + ms * MS) {
            assert_eq!(watch.hear(at, &x, Sign::Talk), None);
            for action in watch.run_due(at, |_| Vec::new()) {
                called |= action == Action::Call(x.clone());
                gone = gone.or(matches!(action, Action::Gone(..)).then_some(at));
            }
        }
        assert!(gone.is_some_and(|at| at <= now + 300 * MS), "{:?}", gone.map(|at| at - now));
        assert!(called, "it is told that it is not heard");
        assert_eq!(watch.hear(now + 1000 * MS, &x, Sign::Ping), None, "it may have pinged before it called");
        assert!(watch.next().is_some_and(|at| at <= now + 1000 * MS), "it is asked at once");
        assert_eq!(watch.hear(now + 1001 * MS, &x, Sign::Answer), Some(Action::Back(x)));
    }

    #[test]
    fn who_was_not_asked_has_no_say() {
        let now = start();
        let mut watch = Watch::new("me".into(), Timing::default());
        watch.set(now, names(&["x"]).into_iter().collect());
        run(&mut watch, now, 300 * MS, &["w"]);
        assert_eq!(watch.judge(now + 300 * MS, &"liar".into(), &"x".into(), 2, false), None);
        assert_eq!(watch.judge(now + 300 * MS, &"w".into(), &"x".into(), 77, false), None);
        assert!(!watch.is_gone(&"x".into()));
    }

    #[test]
    fn a_member_that_hears_it_keeps_it_alive() {
        let now = start();
        let mut watch = Watch::new("me".into(), Timing::default());
        watch.set(now, names(&["x"]).into_iter().collect());
        let mut at = Duration::ZERO;
        for _ in 0..20 {
            at += 200 * MS;
            let asked: Vec<_> = run(&mut watch, now, at, &["w", "v"])
                .into_iter()
                .filter_map(|(_, action)| match action {
                    Action::Ask { witness, token, .. } => Some((witness, token)),
                    Action::Gone(..) => panic!("gone at {at:?}"),
                    _ => None,
                })
                .collect();
            for (witness, token) in asked {
                watch.judge(now + at, &witness, &"x".into(), token, witness.as_str() == "w");
            }
        }
        assert!(!watch.is_gone(&"x".into()));
    }

    #[test]
    fn when_nobody_answers_at_all_we_are_on_our_own_after_a_second() {
        let now = start();
        let mut watch = Watch::new("me".into(), Timing::default());
        watch.set(now, names(&["x"]).into_iter().collect());
        let log = run(&mut watch, now, 3000 * MS, &["w", "v"]);
        let gone = gone_at(&log).unwrap();
        assert!((1000..1300).contains(&gone), "{gone}");
    }

    #[test]
    fn a_stall_of_ours_is_no_silence_of_theirs() {
        let now = start();
        let mut watch = Watch::new("me".into(), Timing::default());
        watch.set(now, names(&["x"]).into_iter().collect());
        let awake = now + Duration::from_secs(30);
        let actions = watch.run_due(awake, |_| Vec::new());
        assert_eq!(actions, [Action::Ping("x".into())]);
        assert_eq!(watch.hear(awake + MS, &"x".into(), Sign::Answer), None);
    }

    #[test]
    fn of_two_that_watch_each_other_one_pings_and_the_other_one_answers() {
        let start = start();
        let (mut a, mut b) = (Watch::new("a".into(), Timing::default()), Watch::new("b".into(), Timing::default()));
        a.set(start, names(&["b"]).into_iter().collect());
        b.set(start, names(&["a"]).into_iter().collect());
        let mut pings = [0, 0];
        let mut now = start;
        while now < start + 10_000 * MS {
            now = a.next().into_iter().chain(b.next()).min().unwrap().max(now);
            let asked = [a.run_due(now, |_| Vec::new()), b.run_due(now, |_| Vec::new())].map(|due| !due.is_empty());
            let mut say = |asked: bool, from: usize| {
                let (mine, other) = if from == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
                if asked {
                    pings[from] += 1;
                    let (me, peer) = [("a", "b"), ("b", "a")][from];
                    assert_eq!(other.hear(now + MS, &me.into(), Sign::Ping), None);
                    assert_eq!(mine.hear(now + 2 * MS, &peer.into(), Sign::Answer), None);
                }
            };
            say(asked[0], 0);
            say(asked[1], 1);
        }
        assert!((95..=100).contains(&pings[0]) && pings[1] <= 2, "{pings:?}");
        // The one that answers asks itself soon after it is not asked any more.
        let silent = run(&mut b, now, 400 * MS, &[]);
        assert!(gone_at(&silent).is_some_and(|at| at <= 300), "{silent:?}");
    }
}
