//! Watching those whose addresses we would inherit, directly and often.
//!
//! ```text
//! heard ──100 ms── ping ──50── ping ──50── ping ──50── suspected: others are asked, pings go on
//!   its answer to us ends it, nothing else: it may talk and be deaf; "it answers me" of another member delays the next question
//!   "I do not hear your answers" of itself ── suspected
//!   of two that watch each other the first in order pings, which tells the other one as much, until the first one hears no answers
//!   the first in order of those that ping us sets the pace: our own pings go out with its, so that all wake up at the same moments
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
    /// Who sets the pace, and when it pinged us last.
    pace: Option<(NodeName, Instant)>,
}

#[derive(Debug)]
struct Watched {
    heard: Instant,
    /// Pings since then, and when the next one is due.
    pings: u32,
    next_ping: Instant,
    /// When it pinged us last.
    pinged: Option<Instant>,
    /// When it answered us last.
    answered: Option<Instant>,
    state: State,
}

/// What a datagram of a watched node shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Sign {
    /// It watches us, too, and hears us.
    Ping,
    /// It hears us.
    Answer,
    /// It does not hear what we answer.
    Call,
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
        Self {
            interval: timing.interval,
            timing,
            me,
            nodes: BTreeMap::new(),
            wanted: BTreeSet::new(),
            tokens: 0,
            pace: None,
        }
    }

    /// Replaces the nodes to watch.
    pub(super) fn set(&mut self, now: Instant, wanted: BTreeSet<NodeName>) {
        self.nodes.retain(|node, watched| wanted.contains(node) || !matches!(watched.state, State::Steady));
        // Watching many must not cost more and more.
        self.timing.interval = self.interval.max(PER_NODE * u32::try_from(wanted.len()).unwrap_or(u32::MAX));
        for node in &wanted {
            let first = now + self.timing.interval;
            self.nodes.entry(node.clone()).or_insert_with(|| Watched::new(now, first));
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
        let watched = self.nodes.entry(node.clone()).or_insert_with(|| Watched::new(heard, now));
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
        let paced = self.pace.as_ref().is_some_and(|(_, at)| goes_on(*at, now, interval));
        let watched = self.nodes.get_mut(node)?;
        match (sign, &watched.state) {
            (Sign::Answer, _) => watched.answered = Some(now),
            (Sign::Ping, State::Steady) => {
                watched.pinged = Some(now);
                // Whom we ping ourselves has to answer: its pings don't show that it hears us.
                if *node > self.me || watched.pings > 0 {
                    return None;
                }
            }
            (Sign::Call, State::Steady) => {
                // Its pings counted for life, and none of our answers came to it: as good as so many pings of ours without one.
                if watched.answered.is_none_or(|at| now.saturating_duration_since(at) > interval) {
                    watched.pings = self.timing.pings;
                    watched.next_ping = now;
                }
                return None;
            }
            (Sign::Talk, State::Steady) => return None,
            (_, State::Suspected(_) | State::Gone(_)) => {
                watched.next_ping = now;
                return None;
            }
        }
        watched.heard = now;
        watched.pings = 0;
        // Its pings tell us as much as its answers to ours. So that not both ask at once, the second one in order waits a little, and so
        // does who waits for the pace.
        let leads = watched.leads(now, node, &self.me, interval);
        watched.next_ping = now + if leads || paced { interval + interval / LAG } else { interval };
        let news = match std::mem::replace(&mut watched.state, State::Steady) {
            State::Steady => None,
            State::Suspected(_) => Some(Action::Refuted(node.clone())),
            State::Gone(_) => Some(Action::Back(node.clone())),
        };
        if !self.wanted.contains(node) {
            self.nodes.remove(node);
        }
        if leads && sign == Sign::Ping {
            self.keep_pace(now, node);
        }
        news
    }

    /// One of those that come before us in order has pinged us. If it is the first of them, our own pings go out with its.
    fn keep_pace(&mut self, now: Instant, leader: &NodeName) {
        let goes_on = |at: Instant| goes_on(at, now, self.timing.interval);
        if self.pace.as_ref().is_none_or(|(first, at)| first >= leader || !goes_on(*at)) {
            self.pace = Some((leader.clone(), now));
            self.align(now);
        }
    }

    /// A round of pings begins: all that are not asked yet are asked now, unless they answered lately: then in the next round. So each
    /// is asked half to one and a half times as often for once, and as often as ever from then on.
    fn align(&mut self, now: Instant) {
        let Self { timing: Timing { interval, .. }, me, nodes, .. } = self;
        for (node, watched) in nodes.iter_mut() {
            let unasked = matches!(watched.state, State::Steady) && watched.pings == 0;
            if unasked && !watched.leads(now, node, me, *interval) {
                let lately = watched.answered.is_some_and(|at| now.saturating_duration_since(at) < *interval / 2);
                watched.next_ping = if lately { now + *interval + *interval / LAG } else { now };
            }
        }
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
        if self.nodes.values().any(|watched| watched.pings == 0 && watched.next_ping <= now) {
            self.align(now);
        }
        for (node, watched) in &mut self.nodes {
            let due = watched.next_ping <= now;
            let unanswered = due && watched.pings >= timing.pings;
            if unanswered && matches!(watched.state, State::Steady) {
                self.tokens = self.tokens.wrapping_add(1);
                actions.push(Action::Suspected(node.clone()));
                watched.state = State::Suspected(Question::new(self.tokens, now));
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
    const fn new(heard: Instant, next_ping: Instant) -> Self {
        Self { heard, pings: 0, next_ping, pinged: None, answered: None, state: State::Steady }
    }

    /// Whether it pings us, and we only answer: it comes before us in order.
    fn leads(&self, now: Instant, node: &NodeName, me: &NodeName, interval: Duration) -> bool {
        node < me && self.pinged.is_some_and(|at| goes_on(at, now, interval))
    }

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

/// Whether who pinged us last at `at` may be taken to ping us still.
fn goes_on(at: Instant, now: Instant, interval: Duration) -> bool {
    now.saturating_duration_since(at) <= interval * 2
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

/// Who waits for the ping of another one waits longer by this part of the interval: an answer takes less.
const LAG: u32 = 5;

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
        let (now, x) = (start(), NodeName::from("x"));
        for sign in [Sign::Talk, Sign::Ping] {
            let mut watch = Watch::new("me".into(), Timing::default());
            watch.set(now, [x.clone()].into());
            let (mut gone, mut called) = (None, false);
            for at in (0..1000).step_by(10).map(|ms| now + ms * MS) {
                assert_eq!(watch.hear(at, &x, sign), None);
                for action in watch.run_due(at, |_| Vec::new()) {
                    called |= action == Action::Call(x.clone());
                    gone = gone.or(matches!(action, Action::Gone(..)).then_some(at));
                }
            }
            assert!(gone.is_some_and(|at| at <= now + 300 * MS), "{sign:?}: {:?}", gone.map(|at| at - now));
            assert!(called, "it is told that it is not heard");
            assert_eq!(watch.hear(now + 1000 * MS, &x, Sign::Ping), None, "it may have pinged before it called");
            assert!(watch.next().is_some_and(|at| at <= now + 1000 * MS), "it is asked at once");
            assert_eq!(watch.hear(now + 1001 * MS, &x, Sign::Answer), Some(Action::Back(x.clone())));
        }
    }

    #[test]
    fn who_does_not_hear_our_answers_is_suspected_at_once_unless_it_answered_just_now() {
        let (now, x) = (start(), NodeName::from("x"));
        for (answered, suspected) in [(None, true), (Some(150), true), (Some(20), false)] {
            let mut watch = Watch::new("me".into(), Timing::default());
            watch.set(now, [x.clone()].into());
            answered.map(|ago| watch.hear(now + (200 - ago) * MS, &x, Sign::Answer));
            watch.hear(now + 199 * MS, &x, Sign::Ping);
            assert_eq!(watch.hear(now + 200 * MS, &x, Sign::Call), None);
            let actions = watch.run_due(now + 200 * MS, |_| names(&["w"]));
            let asked = actions.iter().any(|action| matches!(action, Action::Ask { .. }));
            assert_eq!(
                (actions.contains(&Action::Suspected(x.clone())), asked),
                (suspected, suspected),
                "{answered:?}"
            );
        }
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

    /// Lets all watch each other, on a network without delay, and returns who pinged whom, and when.
    fn converse(watches: &mut [(NodeName, Watch)], from: Instant, end: Instant) -> Vec<(Instant, usize, usize)> {
        let mut log = Vec::new();
        let mut now = from;
        while let Some(next) = watches.iter().filter_map(|(_, watch)| watch.next()).min().filter(|next| *next < end) {
            now = now.max(next);
            for from in 0..watches.len() {
                for action in watches[from].1.run_due(now, |_| Vec::new()) {
                    let Action::Ping(name) = action else { panic!("{action:?}") };
                    let to = watches.iter().position(|(node, _)| *node == name).unwrap();
                    let me = watches[from].0.clone();
                    assert_eq!(watches[to].1.hear(now, &me, Sign::Ping), None);
                    assert_eq!(watches[from].1.hear(now, &name, Sign::Answer), None);
                    log.push((now, from, to));
                }
            }
        }
        log
    }

    /// Watches of all others, that begin in the given order and so many milliseconds after each other.
    fn watches(order: &[usize], apart: u32, start: Instant) -> Vec<(NodeName, Watch)> {
        let all: Vec<NodeName> = (0..order.len()).map(|index| format!("node-{index}").as_str().into()).collect();
        let watch = |(index, me): (usize, &NodeName)| {
            let mut watch = Watch::new(me.clone(), Timing::default());
            let others = all.iter().filter(|node| *node != me).cloned().collect();
            let place = u32::try_from(order.iter().position(|&turn| turn == index).unwrap()).unwrap();
            watch.set(start + apart * place * MS, others);
            (me.clone(), watch)
        };
        all.iter().enumerate().map(watch).collect()
    }

    #[test]
    fn of_two_that_watch_each_other_one_pings_and_the_other_one_answers() {
        let start = start();
        let mut both = watches(&[1, 0], 30, start);
        let end = start + 10_000 * MS;
        let log = converse(&mut both, start, end);
        let by = |node: usize| log.iter().filter(|(_, from, _)| *from == node).count();
        assert!((95..=100).contains(&by(0)) && by(1) <= 2, "{} and {}", by(0), by(1));
        // The one that answers asks itself soon after it is not asked any more.
        let silent = run(&mut both[1].1, end, 400 * MS, &[]);
        assert!(gone_at(&silent).is_some_and(|at| at <= 300), "{silent:?}");
    }

    #[test]
    fn all_that_watch_each_other_ping_at_the_same_moments_and_no_more_often() {
        for (order, apart) in
            [([0, 1, 2, 3, 4], 23), ([4, 3, 2, 1, 0], 17), ([2, 4, 0, 1, 3], 41), ([3, 0, 4, 2, 1], 7)]
        {
            let start = start();
            let mut all = watches(&order, apart, start);
            let (settled, end) = (start + 1000 * MS, start + 11_000 * MS);
            let before = converse(&mut all, start, settled);
            assert!(before.len() <= 10 * 15, "{} pings in the first second", before.len());
            let log = converse(&mut all, settled, end);
            assert!((10 * 95..=10 * 101).contains(&log.len()), "{} pings of ten pairs in ten seconds", log.len());
            let moments: BTreeSet<Instant> = log.iter().map(|&(at, ..)| at).collect();
            assert!(moments.len() <= 101, "{} moments, {order:?}", moments.len());
        }
    }

    #[test]
    fn a_leader_that_pings_without_end_makes_nobody_else_ping_without_end() {
        let start = start();
        let mut watch = Watch::new("b".into(), Timing::default());
        watch.set(start, names(&["a", "c", "d"]).into_iter().collect());
        let mut pings: BTreeMap<NodeName, u32> = BTreeMap::new();
        for now in (0..10_000).map(|ms| start + ms * MS) {
            watch.hear(now, &"a".into(), Sign::Ping);
            for action in watch.run_due(now, |_| Vec::new()) {
                let Action::Ping(node) = action else { panic!("{action:?}") };
                watch.hear(now, &node, Sign::Answer);
                *pings.entry(node).or_default() += 1;
            }
        }
        let counts: Vec<u32> = pings.into_values().collect();
        assert!(counts.len() == 2 && counts.iter().all(|count| (60..=200).contains(count)), "{counts:?}");
    }
}
