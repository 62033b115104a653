//! Two ends of a handover, in virtual time.

use super::*;

const MS: Duration = Duration::from_millis(1);

fn mine(ips: &[&str]) -> BTreeSet<IpAddr> {
    ips.iter().map(|ip| ip.parse().unwrap()).collect()
}

impl Handover {
    /// Replaces all addresses of this node. `successors` maps those that it loses or lost to their new owners.
    fn plan(&mut self, now: Instant, mine: BTreeSet<IpAddr>, successors: &BTreeMap<IpAddr, NodeName>) {
        let ips: BTreeSet<IpAddr> = self.held.keys().chain(&mine).chain(successors.keys()).copied().collect();
        let wanted = |ip: IpAddr| match mine.contains(&ip) {
            true => Wanted::Held(metallb_core::announcement::Scope::All),
            false => Wanted::Released(successors.get(&ip).cloned()),
        };
        self.change(now, ips.into_iter().map(|ip| (ip, wanted(ip))));
    }
}

fn start() -> Instant {
    Instant::now()
}

/// The changed addresses that are still answered for.
fn stances(handover: &mut Handover) -> Vec<(String, Stance)> {
    let changed = handover.poll_announcements().expect("the announcements changed").into_iter();
    let announced = changed.filter_map(|change| match change {
        AddressChange::Announce(announcement) => Some((announcement.ip.to_string(), announcement.stance)),
        AddressChange::Withdraw(_) => None,
    });
    announced.collect()
}

#[test]
fn old_owner_answers_until_the_new_one_has_announced() {
    let now = start();
    let (mut old, mut new) = (Handover::default(), Handover::default());
    let (a, b) = (NodeName::from("a"), NodeName::from("b"));
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    old.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
    old.handle_announced(now, &[ip]);
    assert_eq!(stances(&mut old), [("10.0.0.1".to_owned(), Stance::Hold)]);

    let later = now + 500 * MS;
    old.plan(later, BTreeSet::new(), &BTreeMap::from([(ip, b.clone())]));
    assert_eq!(stances(&mut old), [("10.0.0.1".to_owned(), Stance::Yield)]);
    let (to, Message::HandoverOffer { ips, since: 0 }) = old.poll_message().unwrap() else {
        panic!("the new owner was sent no offer")
    };
    assert_eq!(to, b);

    // The offer arrives before the new owner's plan has the address.
    new.handle_offer(later, &a, &ips, later);
    assert_eq!(new.poll_message(), None);
    new.plan(later + 5 * MS, mine(&["10.0.0.1"]), &BTreeMap::new());
    assert_eq!(stances(&mut new), [("10.0.0.1".to_owned(), Stance::Hold)]);
    assert_eq!(new.poll_message(), None, "the address is not announced yet");
    new.handle_announced(later + 6 * MS, &[ip]);
    let (to, Message::HandoverAck(ips)) = new.poll_message().unwrap() else { panic!("no ack") };
    assert_eq!(to, a);

    old.handle_ack(&b, &ips);
    assert_eq!(stances(&mut old), []);
    assert!(old.is_settled());
    assert_eq!(old.tally(), Tally { acknowledged: 1, ..Tally::default() });
}

#[test]
fn owner_that_is_offered_its_own_address_announces_it_again() {
    let now = start();
    let mut owner = Handover::default();
    let ip: IpAddr = "fd00::1".parse().unwrap();
    owner.plan(now, mine(&["fd00::1"]), &BTreeMap::new());
    owner.handle_announced(now, &[ip]);
    let later = now + 500 * MS;
    owner.handle_offer(later, &"b".into(), &[ip], later);
    assert_eq!(owner.poll_announce_again(), Some(vec![ip]));
    owner.handle_offer(later + 40 * MS, &"b".into(), &[ip], later);
    assert_eq!(owner.poll_announce_again(), None, "it is announced again once");
    owner.handle_announced(later + 41 * MS, &[ip]);
    assert_eq!(owner.poll_message(), Some(("b".into(), Message::HandoverAck(vec![ip]))));
    owner.handle_offer(later + 80 * MS, &"b".into(), &[ip], later);
    assert_eq!(owner.poll_message(), Some(("b".into(), Message::HandoverAck(vec![ip]))), "the ack may have been lost");
    assert_eq!(owner.poll_announce_again(), None);
    // The other node has announced the address a second time, after the owner.
    owner.handle_offer(later + 100 * MS, &"b".into(), &[ip], later + 90 * MS);
    assert_eq!(owner.poll_announce_again(), Some(vec![ip]));
    assert_eq!(owner.poll_message(), None);
}

#[test]
fn address_given_up_without_successor_is_offered_to_a_later_owner() {
    let (mut handover, now) = (Handover::default(), start());
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    handover.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
    handover.handle_announced(now, &[ip]);
    handover.plan(now + 10 * MS, BTreeSet::new(), &BTreeMap::new());
    assert_eq!(stances(&mut handover), []);
    assert_eq!(handover.poll_message(), None);
    handover.plan(now + 30 * MS, BTreeSet::new(), &BTreeMap::from([(ip, "a".into())]));
    assert_eq!(
        handover.poll_message(),
        Some(("a".into(), Message::HandoverOffer { ips: vec![ip], since: 20_000 })),
        "the last announcement was before that"
    );
    assert_eq!(handover.poll_announcements(), None, "it does not answer for the address again");
    assert!(handover.is_settled());
    handover.handle_ack(&"a".into(), &[ip]);
    handover.plan(now + 40 * MS, BTreeSet::new(), &BTreeMap::from([(ip, "b".into())]));
    assert_eq!(handover.poll_message(), None);
}

#[test]
fn new_address_is_announced_once_more_after_35_seconds() {
    let (mut handover, now) = (Handover::default(), start());
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    handover.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
    handover.handle_announced(now, &[ip]);
    handover.plan(now + 10 * MS, mine(&["10.0.0.1"]), &BTreeMap::new());
    assert_eq!(handover.poll_timeout(), Some(now + REPEAT_ANNOUNCEMENT_AFTER));
    handover.handle_timeout(now + REPEAT_ANNOUNCEMENT_AFTER);
    assert_eq!(handover.poll_announce_again(), Some(vec![ip]));
    assert_eq!(handover.poll_timeout(), None);
}

#[test]
fn old_owner_stops_answering_after_200_ms_without_ack() {
    let now = start();
    let mut old = Handover::default();
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    old.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
    old.plan(now, BTreeSet::new(), &BTreeMap::from([(ip, "b".into())]));
    let mut sent = 0;
    let mut silent = None;
    while let Some(next) = old.poll_timeout().filter(|next| *next < now + 10_000 * MS) {
        sent += std::iter::from_fn(|| old.poll_message()).count();
        old.handle_timeout(next);
        if old.is_settled() {
            silent = silent.or(Some(next));
        }
    }
    assert_eq!(silent, Some(now + 200 * MS));
    assert!((20..30).contains(&sent), "{sent}");
    assert_eq!(stances(&mut old), []);
    // An ack of a third node changes nothing.
    old.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
    old.plan(now, BTreeSet::new(), &BTreeMap::from([(ip, "b".into())]));
    old.handle_ack(&"c".into(), &[ip]);
    assert!(!old.is_settled());
}

#[test]
fn old_owner_stops_answering_after_a_reject_and_offers_the_address_to_the_next_owner() {
    let now = start();
    let (mut old, mut new) = (Handover::default(), Handover::default());
    let (a, b) = (NodeName::from("a"), NodeName::from("b"));
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    old.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
    old.handle_announced(now, &[ip]);
    old.plan(now + MS, BTreeSet::new(), &BTreeMap::from([(ip, b.clone())]));
    assert!(old.poll_message().is_some());

    new.set_refused([ip].into());
    new.handle_offer(now, &a, &[ip], now);
    assert_eq!(new.poll_message(), None, "its plan does not have the address");
    new.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
    new.handle_offer(now, &a, &[ip], now);
    assert_eq!(new.poll_message(), Some((a, Message::HandoverReject(vec![ip]))));

    old.handle_reject(&"c".into(), &[ip]);
    assert!(!old.is_settled(), "a reject of a third node changes nothing");
    old.handle_reject(&b, &[ip]);
    assert!(old.is_settled());
    assert_eq!(stances(&mut old), []);
    assert_eq!(old.tally(), Tally { rejected: 1, ..Tally::default() });
    let later = now + 20_000 * MS;
    old.plan(later, BTreeSet::new(), &BTreeMap::from([(ip, "c".into())]));
    let sent = old.poll_message();
    assert_eq!(sent, Some(("c".into(), Message::HandoverOffer { ips: vec![ip], since: 19_999_000 })));
}

#[test]
fn changed_successor_is_sent_an_offer() {
    let now = start();
    let mut old = Handover::default();
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    old.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
    old.plan(now, BTreeSet::new(), &BTreeMap::from([(ip, "b".into())]));
    old.plan(now + MS, BTreeSet::new(), &BTreeMap::from([(ip, "c".into())]));
    let sent: Vec<_> = std::iter::from_fn(|| old.poll_message()).map(|(to, _)| to).collect();
    assert_eq!(sent, [NodeName::from("b"), "c".into()]);
    old.handle_ack(&"c".into(), &[ip]);
    assert!(old.is_settled());
}

#[test]
fn address_lost_in_an_election_is_not_announced_again() {
    let (mut handover, now) = (Handover::default(), start());
    let ips: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
    handover.plan(now, mine(&["10.0.0.1", "10.0.0.2"]), &BTreeMap::new());
    handover.handle_announced(now, &ips);
    handover.schedule_announcement(now);
    assert_eq!(handover.poll_announce_again(), None, "the election has not run");
    handover.plan(now, mine(&["10.0.0.1"]), &BTreeMap::from([(ips[1], "b".into())]));
    handover.handle_timeout(handover.poll_timeout().unwrap().max(now + ELECTION_DELAY));
    assert_eq!(handover.poll_announce_again(), Some(vec![ips[0]]));
    handover.schedule_announcement(now + ELECTION_DELAY);
    handover.cancel_announcement();
    handover.handle_timeout(now + ELECTION_DELAY * 2);
    assert_eq!(handover.poll_announce_again(), None, "the announcement was cancelled");
}

#[test]
fn address_that_returns_during_its_handover_is_held_again() {
    let now = start();
    let mut old = Handover::default();
    let ip: IpAddr = "10.0.0.1".parse().unwrap();
    old.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
    old.plan(now, BTreeSet::new(), &BTreeMap::from([(ip, "b".into())]));
    old.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
    assert_eq!(stances(&mut old), [("10.0.0.1".to_owned(), Stance::Hold)]);
    assert!(old.is_settled());
}
