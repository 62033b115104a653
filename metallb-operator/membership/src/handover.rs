//! Planned moves: the new owner announces before the old one falls silent.
//!
//! ```text
//! old owner                                   new owner
//! plan without the address
//! yields: answers, announces no more ──Yielding──>  has it by its own plan: announces it, or announces it anew
//! silent <──────────────────────────── Taken ─────  when the first round has left
//! silent anyway after 200 ms, repeats itself for 5 s
//! ```
//!
//! A new owner that has the address itself, or knows another reason not to announce it, says so instead (`Refused`), as soon as it hears
//! that it is the one: the old one falls silent at once.
//!
//! Who announced an address that was another one's all the time misled the neighbours. That one hears of it by `Yielding`, or by
//! [`Handover::announce_again`] when the other one died or came back. The winner's announcement must be the last one: it counts as
//! made only when it left after the loser's last one could have.
//!
//! What came to us is announced anew once more after [`LATE`]: neighbours that nothing reached meanwhile, as behind a port of a switch
//! that comes up slowly, believe the past until then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use metallb_core::model::NodeName;
use metallb_l2::interface::{Announcement, Scope, Stance};

use crate::wire::message::{ADDRESSES_MAX, Message};

/// What this node answers for, between one plan and the next.
#[derive(Debug, Default)]
pub struct Handover {
    held: BTreeMap<IpAddr, Held>,
    yielding: BTreeMap<IpAddr, Yielding>,
    /// What we gave up and nobody took, since when: neighbours may take us for its owner until somebody does.
    orphans: BTreeMap<IpAddr, (Scope, Instant)>,
    /// What this node does not announce, though it may be its own.
    refused: BTreeSet<IpAddr>,
    /// Who waits to hear that we announced an address.
    waiting: BTreeMap<IpAddr, (NodeName, Instant)>,
    changed: bool,
    again: BTreeSet<IpAddr>,
    /// When all that is held then is announced anew.
    again_at: Option<Instant>,
    /// What came to us lately, and when it is announced anew for those that were away.
    late: VecDeque<(Instant, IpAddr)>,
    outgoing: VecDeque<(NodeName, Message)>,
    tally: Tally,
}

/// How planned moves ended.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Addresses whose new owner said that it has announced them.
    pub acknowledged: u64,
    /// Addresses whose new owner said that it does not announce them.
    pub refused: u64,
    /// Addresses given up without hearing so.
    pub timed_out: u64,
}

#[derive(Debug)]
struct Held {
    scope: Scope,
    /// When the first round had left.
    announced: Option<Instant>,
}

#[derive(Debug)]
struct Yielding {
    scope: Scope,
    to: NodeName,
    /// When it was announced last at the latest.
    since: Instant,
    /// Until when it is answered for at most.
    until: Instant,
    /// Whether it still is.
    answers: bool,
    tell_at: Instant,
}

impl Handover {
    /// Replaces what is ours. `successors` says who has what was ours before this plan or an earlier one; what nobody has falls silent
    /// at once.
    pub fn plan(&mut self, now: Instant, mine: BTreeMap<IpAddr, Scope>, successors: &BTreeMap<IpAddr, NodeName>) {
        let old = std::mem::take(&mut self.held);
        for (&ip, held) in old.iter().filter(|(ip, _)| !mine.contains_key(*ip)) {
            let scope = held.scope.clone();
            if let Some(to) = successors.get(&ip) {
                let until = now + PATIENCE;
                let yielding = Yielding { scope, to: to.clone(), since: now, until, answers: true, tell_at: now };
                self.yielding.insert(ip, yielding);
            } else if held.announced.is_some() {
                self.orphans.insert(ip, (scope, now));
            }
        }
        // Who has it now may have had it all the time, unseen by us.
        self.orphans.retain(|ip, (_, since)| !mine.contains_key(ip) && *since + REMEMBERED > now);
        for (ip, (scope, since)) in self.orphans.extract_if(.., |ip, _| successors.contains_key(ip)) {
            if let Some(to) = successors.get(&ip).cloned() {
                let yielding = Yielding { scope, to, since, until: now, answers: false, tell_at: now };
                self.yielding.insert(ip, yielding);
            }
        }
        // Who is to have what is being given up may have changed meanwhile.
        for (ip, yielding) in &mut self.yielding {
            if let Some(to) = successors.get(ip).filter(|to| **to != yielding.to) {
                yielding.to = to.clone();
                yielding.tell_at = now;
            }
        }
        for (ip, scope) in mine {
            let announced = match old.get(&ip) {
                Some(held) if held.scope == scope => held.announced,
                _ => None,
            };
            self.yielding.remove(&ip);
            if !old.contains_key(&ip) {
                self.late.push_back((now + LATE, ip));
            }
            self.held.insert(ip, Held { scope, announced });
        }
        self.changed |= old.len() != self.held.len()
            || old.iter().any(|(ip, old)| self.held.get(ip).is_none_or(|held| held.scope != old.scope));
        self.tell(now);
    }

    /// Replaces what this node does not announce, whatever the plan says.
    pub fn set_refused(&mut self, refused: BTreeSet<IpAddr>) {
        self.refused = refused;
    }

    /// Another member is about to give these up for us; it announced none of them after `since`.
    pub fn handle_yielding(&mut self, now: Instant, from: &NodeName, ips: &[IpAddr], since: Instant) {
        let mut refused = Vec::new();
        for &ip in ips.iter().take(ADDRESSES_MAX) {
            match self.held.get(&ip) {
                Some(_) if self.refused.contains(&ip) => {
                    refused.push(ip);
                    continue;
                }
                // It did not hear yet that we have, or our answer was lost.
                Some(Held { announced: Some(at), .. }) if *at >= since => {
                    self.outgoing.push_back((from.clone(), Message::Taken(vec![ip])));
                    continue;
                }
                Some(Held { announced: Some(_), .. }) if !self.waiting.contains_key(&ip) => {
                    self.again.insert(ip);
                }
                _ => {}
            }
            // What is not ours yet becomes ours when we learn what the other one knows.
            if self.waiting.len() < WAITING_MAX || self.waiting.contains_key(&ip) {
                self.waiting.insert(ip, (from.clone(), now + WAIT));
            }
        }
        self.send(from, &refused, Message::Refused);
    }

    /// The new owner has announced these.
    pub fn handle_taken(&mut self, from: &NodeName, ips: &[IpAddr]) {
        for ip in ips {
            if self.yielding.get(ip).is_some_and(|yielding| yielding.to == *from)
                && self.yielding.remove(ip).is_some_and(|yielding| yielding.answers)
            {
                self.tally.acknowledged += 1;
                self.changed = true;
            }
        }
    }

    /// The new owner announces none of these. Should another one become the owner, it hears from us.
    pub fn handle_refused(&mut self, from: &NodeName, ips: &[IpAddr]) {
        for ip in ips {
            if self.yielding.get(ip).is_some_and(|yielding| yielding.to == *from)
                && let Some(Yielding { scope, since, answers, .. }) = self.yielding.remove(ip)
            {
                self.orphans.insert(*ip, (scope, since));
                self.tally.refused += u64::from(answers);
                self.changed |= answers;
            }
        }
    }

    /// The first round for these has left.
    pub fn handle_announced(&mut self, now: Instant, ips: &[IpAddr]) {
        let mut taken: BTreeMap<NodeName, Vec<IpAddr>> = BTreeMap::new();
        for ip in ips {
            let Some(held) = self.held.get_mut(ip) else { continue };
            held.announced = Some(now);
            if let Some((to, _)) = self.waiting.remove(ip) {
                taken.entry(to).or_default().push(*ip);
            }
        }
        for (to, ips) in taken {
            self.send(&to, &ips, Message::Taken);
        }
    }

    /// Announces all that is held anew: somebody died, or came back, that may have claimed it out of a partition that only it saw.
    /// Not at once: what the election that follows takes away must not be announced after its new owner announced it.
    pub fn announce_again(&mut self, now: Instant) {
        self.again_at = Some(now + SETTLE);
    }

    /// Announces nothing anew after all.
    pub fn be_quiet(&mut self) {
        self.again_at = None;
    }

    /// Repeats what was not answered, and gives up what was not taken.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.again_at.take_if(|at| *at <= now).is_some() {
            self.again.extend(self.held.iter().filter(|(_, held)| held.announced.is_some()).map(|(ip, _)| *ip));
        }
        while let Some((_, ip)) = self.late.pop_front_if(|(at, _)| *at <= now) {
            if self.held.get(&ip).is_some_and(|held| held.announced.is_some()) {
                self.again.insert(ip);
            }
        }
        for yielding in self.yielding.values_mut().filter(|yielding| yielding.answers && yielding.until <= now) {
            yielding.answers = false;
            self.tally.timed_out += 1;
            self.changed = true;
        }
        for (ip, yielding) in self.yielding.extract_if(.., |_, yielding| yielding.until + INSIST <= now) {
            self.orphans.insert(ip, (yielding.scope, yielding.since));
        }
        self.waiting.retain(|_, (_, until)| *until > now);
        self.tell(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let yielding = self.yielding.values().map(|yielding| match yielding.answers {
            true => yielding.until.min(yielding.tell_at),
            false => yielding.tell_at,
        });
        let late = self.late.front().map(|(at, _)| *at);
        yielding.chain(self.waiting.values().map(|(_, until)| *until)).chain(self.again_at).chain(late).min()
    }

    /// Everything to answer for, if that changed.
    pub fn poll_announcements(&mut self) -> Option<Vec<Announcement>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let held = self.held.iter().map(|(&ip, held)| (ip, &held.scope, Stance::Hold));
        let answered = self.yielding.iter().filter(|(_, yielding)| yielding.answers);
        let yielding = answered.map(|(&ip, yielding)| (ip, &yielding.scope, Stance::Yield));
        Some(
            held.chain(yielding).map(|(ip, scope, stance)| Announcement { ip, scope: scope.clone(), stance }).collect(),
        )
    }

    /// Addresses to announce anew, if any.
    pub fn poll_again(&mut self) -> Option<Vec<IpAddr>> {
        let again = std::mem::take(&mut self.again);
        (!again.is_empty()).then(|| again.into_iter().collect())
    }

    /// The next message to send.
    pub fn poll_message(&mut self) -> Option<(NodeName, Message)> {
        self.outgoing.pop_front()
    }

    /// Whether nothing is being given up.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        !self.yielding.values().any(|yielding| yielding.answers)
    }

    /// How planned moves ended so far.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    fn tell(&mut self, now: Instant) {
        let mut due: BTreeMap<(NodeName, Instant), Vec<IpAddr>> = BTreeMap::new();
        for (&ip, yielding) in self.yielding.iter_mut().filter(|(_, yielding)| yielding.tell_at <= now) {
            yielding.tell_at = now + if yielding.answers { REPEAT } else { REPEAT_LATE };
            due.entry((yielding.to.clone(), yielding.since)).or_default().push(ip);
        }
        for ((to, since), ips) in due {
            let since = u32::try_from(now.saturating_duration_since(since).as_micros()).unwrap_or(u32::MAX);
            self.send(&to, &ips, |ips| Message::Yielding { ips, since });
        }
    }

    fn send(&mut self, to: &NodeName, ips: &[IpAddr], message: impl Fn(Vec<IpAddr>) -> Message) {
        self.outgoing.extend(ips.chunks(ADDRESSES_MAX).map(|ips| (to.clone(), message(ips.to_vec()))));
    }
}

/// How long the old owner answers at most while the new one does not say that it has announced.
const PATIENCE: Duration = Duration::from_millis(200);

/// How often it repeats that it gives up.
const REPEAT: Duration = Duration::from_millis(40);

/// For how long it repeats that after it fell silent, and how often: the new owner may have been the owner all the time, and must
/// win the neighbours back.
const INSIST: Duration = Duration::from_secs(5);
const REPEAT_LATE: Duration = Duration::from_millis(300);

/// For how long it remembers what nobody took: longer than neighbours believe the past.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Within this time after a change of the living the election that follows from it is known.
const SETTLE: Duration = Duration::from_millis(50);

/// How long after it came to us an address is announced anew: longer than a switch blocks a port that came up (twice 15 s).
pub const LATE: Duration = Duration::from_secs(35);

/// How long the new owner remembers who waits, should it learn later that it is the new owner.
const WAIT: Duration = Duration::from_millis(500);

/// Addresses that are waited for at most, whatever is claimed.
const WAITING_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn mine(ips: &[&str]) -> BTreeMap<IpAddr, Scope> {
        ips.iter().map(|ip| (ip.parse().unwrap(), Scope::All)).collect()
    }

    fn start() -> Instant {
        Instant::now()
    }

    fn stances(handover: &mut Handover) -> Vec<(String, Stance)> {
        let changed = handover.poll_announcements().expect("a change");
        changed.into_iter().map(|announcement| (announcement.ip.to_string(), announcement.stance)).collect()
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
        old.plan(later, BTreeMap::new(), &BTreeMap::from([(ip, b.clone())]));
        assert_eq!(stances(&mut old), [("10.0.0.1".to_owned(), Stance::Yield)]);
        let (to, Message::Yielding { ips, since: 0 }) = old.poll_message().unwrap() else {
            panic!("no word to the new owner")
        };
        assert_eq!(to, b);

        // The new owner learns of it first, and only then that the address is its own.
        new.handle_yielding(later, &a, &ips, later);
        assert_eq!(new.poll_message(), None);
        new.plan(later + 5 * MS, mine(&["10.0.0.1"]), &BTreeMap::new());
        assert_eq!(stances(&mut new), [("10.0.0.1".to_owned(), Stance::Hold)]);
        assert_eq!(new.poll_message(), None, "nothing was announced yet");
        new.handle_announced(later + 6 * MS, &[ip]);
        let (to, Message::Taken(ips)) = new.poll_message().unwrap() else { panic!("no answer") };
        assert_eq!(to, a);

        old.handle_taken(&b, &ips);
        assert_eq!(stances(&mut old), []);
        assert!(old.is_settled());
        assert_eq!(old.tally(), Tally { acknowledged: 1, ..Tally::default() });
    }

    #[test]
    fn an_owner_that_always_was_announces_anew_for_the_one_that_stood_in() {
        let now = start();
        let mut owner = Handover::default();
        let ip: IpAddr = "fd00::1".parse().unwrap();
        owner.plan(now, mine(&["fd00::1"]), &BTreeMap::new());
        owner.handle_announced(now, &[ip]);
        let later = now + 500 * MS;
        owner.handle_yielding(later, &"b".into(), &[ip], later);
        assert_eq!(owner.poll_again(), Some(vec![ip]));
        owner.handle_yielding(later + 40 * MS, &"b".into(), &[ip], later);
        assert_eq!(owner.poll_again(), None, "once is enough");
        owner.handle_announced(later + 41 * MS, &[ip]);
        assert_eq!(owner.poll_message(), Some(("b".into(), Message::Taken(vec![ip]))));
        owner.handle_yielding(later + 80 * MS, &"b".into(), &[ip], later);
        assert_eq!(owner.poll_message(), Some(("b".into(), Message::Taken(vec![ip]))), "the answer was lost");
        assert_eq!(owner.poll_again(), None);
        // It stood in a second time, and announced the address after us.
        owner.handle_yielding(later + 100 * MS, &"b".into(), &[ip], later + 90 * MS);
        assert_eq!(owner.poll_again(), Some(vec![ip]));
        assert_eq!(owner.poll_message(), None);
    }

    #[test]
    fn what_was_given_up_when_nobody_was_there_is_yielded_to_who_turns_out_to_have_had_it() {
        let (mut handover, now) = (Handover::default(), start());
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        handover.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
        handover.handle_announced(now, &[ip]);
        handover.plan(now + 10 * MS, BTreeMap::new(), &BTreeMap::new());
        assert_eq!(stances(&mut handover), []);
        assert_eq!(handover.poll_message(), None);
        handover.plan(now + 30 * MS, BTreeMap::new(), &BTreeMap::from([(ip, "a".into())]));
        assert_eq!(
            handover.poll_message(),
            Some(("a".into(), Message::Yielding { ips: vec![ip], since: 20_000 })),
            "it was announced last before that"
        );
        assert_eq!(handover.poll_announcements(), None, "silent it stays");
        assert!(handover.is_settled());
        handover.handle_taken(&"a".into(), &[ip]);
        handover.plan(now + 40 * MS, BTreeMap::new(), &BTreeMap::from([(ip, "b".into())]));
        assert_eq!(handover.poll_message(), None);
    }

    #[test]
    fn what_came_to_us_is_announced_anew_once_when_slow_ports_are_up() {
        let (mut handover, now) = (Handover::default(), start());
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        handover.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
        handover.handle_announced(now, &[ip]);
        handover.plan(now + 10 * MS, mine(&["10.0.0.1"]), &BTreeMap::new());
        assert_eq!(handover.poll_timeout(), Some(now + LATE));
        handover.handle_timeout(now + LATE);
        assert_eq!(handover.poll_again(), Some(vec![ip]));
        assert_eq!(handover.poll_timeout(), None);
    }

    #[test]
    fn silence_of_the_new_owner_is_waited_for_200_ms_and_no_longer() {
        let now = start();
        let mut old = Handover::default();
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        old.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
        old.plan(now, BTreeMap::new(), &BTreeMap::from([(ip, "b".into())]));
        let mut said = 0;
        let mut silent = None;
        while let Some(next) = old.poll_timeout().filter(|next| *next < now + 10_000 * MS) {
            said += std::iter::from_fn(|| old.poll_message()).count();
            old.handle_timeout(next);
            if old.is_settled() {
                silent = silent.or(Some(next));
            }
        }
        assert_eq!(silent, Some(now + 200 * MS));
        assert!((20..30).contains(&said), "{said}");
        assert_eq!(stances(&mut old), []);
        // A stranger's word changes nothing.
        old.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
        old.plan(now, BTreeMap::new(), &BTreeMap::from([(ip, "b".into())]));
        old.handle_taken(&"c".into(), &[ip]);
        assert!(!old.is_settled());
    }

    #[test]
    fn old_owner_is_silent_when_the_new_one_refuses_and_tells_the_one_after_it() {
        let now = start();
        let (mut old, mut new) = (Handover::default(), Handover::default());
        let (a, b) = (NodeName::from("a"), NodeName::from("b"));
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        old.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
        old.handle_announced(now, &[ip]);
        old.plan(now + MS, BTreeMap::new(), &BTreeMap::from([(ip, b.clone())]));
        assert!(old.poll_message().is_some());

        new.set_refused([ip].into());
        new.handle_yielding(now, &a, &[ip], now);
        assert_eq!(new.poll_message(), None, "it is not the owner, as far as it knows");
        new.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
        new.handle_yielding(now, &a, &[ip], now);
        assert_eq!(new.poll_message(), Some((a, Message::Refused(vec![ip]))));

        old.handle_refused(&"c".into(), &[ip]);
        assert!(!old.is_settled(), "a stranger's word changes nothing");
        old.handle_refused(&b, &[ip]);
        assert!(old.is_settled());
        assert_eq!(stances(&mut old), []);
        assert_eq!(old.tally(), Tally { refused: 1, ..Tally::default() });
        let later = now + 20_000 * MS;
        old.plan(later, BTreeMap::new(), &BTreeMap::from([(ip, "c".into())]));
        let told = old.poll_message();
        assert_eq!(told, Some(("c".into(), Message::Yielding { ips: vec![ip], since: 19_999_000 })));
    }

    #[test]
    fn a_successor_that_changes_is_told() {
        let now = start();
        let mut old = Handover::default();
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        old.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
        old.plan(now, BTreeMap::new(), &BTreeMap::from([(ip, "b".into())]));
        old.plan(now + MS, BTreeMap::new(), &BTreeMap::from([(ip, "c".into())]));
        let told: Vec<_> = std::iter::from_fn(|| old.poll_message()).map(|(to, _)| to).collect();
        assert_eq!(told, [NodeName::from("b"), "c".into()]);
        old.handle_taken(&"c".into(), &[ip]);
        assert!(old.is_settled());
    }

    #[test]
    fn what_an_election_takes_away_is_not_announced_again() {
        let (mut handover, now) = (Handover::default(), start());
        let ips: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        handover.plan(now, mine(&["10.0.0.1", "10.0.0.2"]), &BTreeMap::new());
        handover.handle_announced(now, &ips);
        handover.announce_again(now);
        assert_eq!(handover.poll_again(), None, "the election is still to come");
        handover.plan(now, mine(&["10.0.0.1"]), &BTreeMap::from([(ips[1], "b".into())]));
        handover.handle_timeout(handover.poll_timeout().unwrap().max(now + SETTLE));
        assert_eq!(handover.poll_again(), Some(vec![ips[0]]));
        handover.announce_again(now + SETTLE);
        handover.be_quiet();
        handover.handle_timeout(now + SETTLE * 2);
        assert_eq!(handover.poll_again(), None, "who may be deaf tells nobody");
    }

    #[test]
    fn an_address_that_returns_while_it_is_yielded_is_held_again() {
        let now = start();
        let mut old = Handover::default();
        let ip: IpAddr = "10.0.0.1".parse().unwrap();
        old.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
        old.plan(now, BTreeMap::new(), &BTreeMap::from([(ip, "b".into())]));
        old.plan(now, mine(&["10.0.0.1"]), &BTreeMap::new());
        assert_eq!(stances(&mut old), [("10.0.0.1".to_owned(), Stance::Hold)]);
        assert!(old.is_settled());
    }
}
