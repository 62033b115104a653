//! The failure detector alone, in virtual time.

use super::*;

const MS: Duration = Duration::from_millis(1);

fn start() -> Instant {
    Instant::now()
}

fn names(names: &[&str]) -> Vec<NodeName> {
    names.iter().map(|&name| name.into()).collect()
}

/// Runs every due action until `end`, and returns each with its time in milliseconds.
fn run(detector: &mut FailureDetector, from: Instant, end: Duration, others: &[&str]) -> Vec<(u128, Action)> {
    let mut log = Vec::new();
    while let Some(next) = detector.poll_timeout().filter(|next| *next <= from + end) {
        for action in detector.handle_timeout(next, |_| names(others)) {
            log.push(((next - from).as_millis(), action));
        }
    }
    log
}

fn dead_at(log: &[(u128, Action)]) -> Option<u128> {
    log.iter().find(|(_, action)| matches!(action, Action::DeclareDead(..))).map(|(at, _)| *at)
}

#[test]
fn silent_node_in_a_cluster_of_two_is_dead_without_a_second_opinion() {
    let now = start();
    let mut detector = FailureDetector::new("me".into(), Timing::default());
    detector.select(now, names(&["x"]).into_iter().collect());
    let log = run(&mut detector, now, 1000 * MS, &[]);
    assert_eq!(dead_at(&log), Some(250), "{log:?}");
}

#[test]
fn silent_node_is_dead_when_one_other_member_confirms_it() {
    let now = start();
    let mut detector = FailureDetector::new("me".into(), Timing::default());
    detector.select(now, names(&["x"]).into_iter().collect());
    let log = run(&mut detector, now, 300 * MS, &["w"]);
    let Some(Action::PingReq { token, .. }) =
        log.iter().map(|(_, action)| action).find(|action| matches!(action, Action::PingReq { .. }))
    else {
        panic!("no member was asked: {log:?}")
    };
    assert_eq!(dead_at(&log), None);
    let at = now + 370 * MS;
    let verdict = detector.handle_ping_req_reply(at, &"w".into(), &"x".into(), *token, false);
    assert_eq!(verdict, Some(Action::DeclareDead("x".into(), now)));
    assert!(detector.is_dead(&"x".into()));
    assert_eq!(detector.handle_evidence(at + MS, &"x".into(), Evidence::Pong), Some(Action::Recovered("x".into())));
}

#[test]
fn node_that_sends_and_never_answers_is_dead_until_it_answers() {
    let (now, x) = (start(), NodeName::from("x"));
    for evidence in [Evidence::Other, Evidence::Ping] {
        let mut detector = FailureDetector::new("me".into(), Timing::default());
        detector.select(now, [x.clone()].into());
        let (mut died, mut probed) = (None, false);
        for at in (0..1000).step_by(10).map(|ms| now + ms * MS) {
            assert_eq!(detector.handle_evidence(at, &x, evidence), None);
            for action in detector.handle_timeout(at, |_| Vec::new()) {
                probed |= action == Action::Probe(x.clone());
                died = died.or(matches!(action, Action::DeclareDead(..)).then_some(at));
            }
        }
        assert!(died.is_some_and(|at| at <= now + 300 * MS), "{evidence:?}: {:?}", died.map(|at| at - now));
        assert!(probed, "it is sent a probe");
        assert_eq!(
            detector.handle_evidence(now + 1000 * MS, &x, Evidence::Ping),
            None,
            "a ping does not prove that it receives"
        );
        assert!(detector.poll_timeout().is_some_and(|at| at <= now + 1000 * MS), "it is pinged at once");
        assert_eq!(detector.handle_evidence(now + 1001 * MS, &x, Evidence::Pong), Some(Action::Recovered(x.clone())));
    }
}

#[test]
fn node_that_misses_our_pongs_is_suspected_at_once_unless_it_answered_within_an_interval() {
    let (now, x) = (start(), NodeName::from("x"));
    for (answered, suspected) in [(None, true), (Some(150), true), (Some(20), false)] {
        let mut detector = FailureDetector::new("me".into(), Timing::default());
        detector.select(now, [x.clone()].into());
        answered.map(|ago| detector.handle_evidence(now + (200 - ago) * MS, &x, Evidence::Pong));
        detector.handle_evidence(now + 199 * MS, &x, Evidence::Ping);
        assert_eq!(detector.handle_evidence(now + 200 * MS, &x, Evidence::Probe), None);
        let actions = detector.handle_timeout(now + 200 * MS, |_| names(&["w"]));
        let asked = actions.iter().any(|action| matches!(action, Action::PingReq { .. }));
        assert_eq!((actions.contains(&Action::Suspected(x.clone())), asked), (suspected, suspected), "{answered:?}");
    }
}

#[test]
fn reply_of_a_member_that_was_not_asked_or_with_a_wrong_token_is_ignored() {
    let now = start();
    let mut detector = FailureDetector::new("me".into(), Timing::default());
    detector.select(now, names(&["x"]).into_iter().collect());
    run(&mut detector, now, 300 * MS, &["w"]);
    assert_eq!(detector.handle_ping_req_reply(now + 300 * MS, &"liar".into(), &"x".into(), 2, false), None);
    assert_eq!(detector.handle_ping_req_reply(now + 300 * MS, &"w".into(), &"x".into(), 77, false), None);
    assert!(!detector.is_dead(&"x".into()));
}

#[test]
fn suspected_node_stays_alive_while_one_member_reaches_it() {
    let now = start();
    let mut detector = FailureDetector::new("me".into(), Timing::default());
    detector.select(now, names(&["x"]).into_iter().collect());
    let mut at = Duration::ZERO;
    for _ in 0..20 {
        at += 200 * MS;
        let asked: Vec<_> = run(&mut detector, now, at, &["w", "v"])
            .into_iter()
            .filter_map(|(_, action)| match action {
                Action::PingReq { witness, token, .. } => Some((witness, token)),
                Action::DeclareDead(..) => panic!("dead at {at:?}"),
                _ => None,
            })
            .collect();
        for (witness, token) in asked {
            detector.handle_ping_req_reply(now + at, &witness, &"x".into(), token, witness.as_str() == "w");
        }
    }
    assert!(!detector.is_dead(&"x".into()));
}

#[test]
fn silent_node_is_dead_after_a_second_when_no_member_replies() {
    let now = start();
    let mut detector = FailureDetector::new("me".into(), Timing::default());
    detector.select(now, names(&["x"]).into_iter().collect());
    let log = run(&mut detector, now, 3000 * MS, &["w", "v"]);
    let dead_after = dead_at(&log).unwrap();
    assert!((1000..1300).contains(&dead_after), "{dead_after}");
}

#[test]
fn pause_of_this_process_raises_no_suspicion() {
    let now = start();
    let mut detector = FailureDetector::new("me".into(), Timing::default());
    detector.select(now, names(&["x"]).into_iter().collect());
    let awake = now + Duration::from_secs(30);
    let actions = detector.handle_timeout(awake, |_| Vec::new());
    assert_eq!(actions, [Action::Ping("x".into())]);
    assert_eq!(detector.handle_evidence(awake + MS, &"x".into(), Evidence::Pong), None);
}

/// Lets all nodes monitor each other on a network without delay. Returns each ping: when, from and to which node.
fn converse(
    detectors: &mut [(NodeName, FailureDetector)],
    from: Instant,
    end: Instant,
) -> Vec<(Instant, usize, usize)> {
    let mut log = Vec::new();
    let mut now = from;
    while let Some(next) =
        detectors.iter().filter_map(|(_, detector)| detector.poll_timeout()).min().filter(|next| *next < end)
    {
        now = now.max(next);
        for from in 0..detectors.len() {
            for action in detectors[from].1.handle_timeout(now, |_| Vec::new()) {
                let Action::Ping(name) = action else { panic!("{action:?}") };
                let to = detectors.iter().position(|(node, _)| *node == name).unwrap();
                let me = detectors[from].0.clone();
                assert_eq!(detectors[to].1.handle_evidence(now, &me, Evidence::Ping), None);
                assert_eq!(detectors[from].1.handle_evidence(now, &name, Evidence::Pong), None);
                log.push((now, from, to));
            }
        }
    }
    log
}

/// One detector per node that monitors all others. They start in the given order, `apart` milliseconds after each
/// other.
fn detectors(order: &[usize], apart: u32, start: Instant) -> Vec<(NodeName, FailureDetector)> {
    let all: Vec<NodeName> = (0..order.len()).map(|index| format!("node-{index}").as_str().into()).collect();
    let detector = |(index, me): (usize, &NodeName)| {
        let mut detector = FailureDetector::new(me.clone(), Timing::default());
        let others = all.iter().filter(|node| *node != me).cloned().collect();
        let place = u32::try_from(order.iter().position(|&turn| turn == index).unwrap()).unwrap();
        detector.select(start + apart * place * MS, others);
        (me.clone(), detector)
    };
    all.iter().enumerate().map(detector).collect()
}

#[test]
fn of_two_nodes_that_monitor_each_other_only_the_first_in_order_pings() {
    let start = start();
    let mut both = detectors(&[1, 0], 30, start);
    let end = start + 10_000 * MS;
    let log = converse(&mut both, start, end);
    let by = |node: usize| log.iter().filter(|(_, from, _)| *from == node).count();
    assert!((95..=100).contains(&by(0)) && by(1) <= 2, "{} and {}", by(0), by(1));
    // The passive one pings soon after the pings to it have stopped.
    let silent = run(&mut both[1].1, end, 400 * MS, &[]);
    assert!(dead_at(&silent).is_some_and(|at| at <= 300), "{silent:?}");
}

#[test]
fn nodes_that_monitor_each_other_ping_at_the_same_moments_and_no_more_often() {
    for (order, apart) in [([0, 1, 2, 3, 4], 23), ([4, 3, 2, 1, 0], 17), ([2, 4, 0, 1, 3], 41), ([3, 0, 4, 2, 1], 7)] {
        let start = start();
        let mut all = detectors(&order, apart, start);
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
fn node_that_pings_continuously_does_not_raise_the_rate_of_the_nodes_it_paces() {
    let start = start();
    let mut detector = FailureDetector::new("b".into(), Timing::default());
    detector.select(start, names(&["a", "c", "d"]).into_iter().collect());
    let mut pings: BTreeMap<NodeName, u32> = BTreeMap::new();
    for now in (0..10_000).map(|ms| start + ms * MS) {
        detector.handle_evidence(now, &"a".into(), Evidence::Ping);
        for action in detector.handle_timeout(now, |_| Vec::new()) {
            let Action::Ping(node) = action else { panic!("{action:?}") };
            detector.handle_evidence(now, &node, Evidence::Pong);
            *pings.entry(node).or_default() += 1;
        }
    }
    let counts: Vec<u32> = pings.into_values().collect();
    assert!(counts.len() == 2 && counts.iter().all(|count| (60..=200).contains(count)), "{counts:?}");
}
