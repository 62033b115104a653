//! The rules one by one, in virtual time.

mod model;
mod server;

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;

use self::server::{Event, Server};
use super::*;
use crate::sink::lease::LeaseTiming;

const UID: &str = "8a1c0d2e-1111-4222-8333-444455556666";

/// Another process, alive or not.
const FOREIGN: &str = "other-pod_99999999-1111-4222-8333-444455556666_1f";

fn settings(pod: &str, uid: Option<&str>) -> LeaseSettings {
    LeaseSettings {
        namespace: "metallb-system".into(),
        name: "metallb-controller".into(),
        identity: Identity::new(pod, uid),
        timing: LeaseTiming::default(),
    }
}

/// One elector that follows a server, in a time that passes only when a test says so.
struct Scene {
    server: Server,
    elector: Elector,
    start: Instant,
    milliseconds: u64,
    told: usize,
    requests: Vec<Request>,
    /// When the elector wants to be asked again.
    wake: Option<Instant>,
}

impl Scene {
    fn new() -> Self {
        Self::of(Elector::new(settings("pod", None)))
    }

    fn of(mut elector: Elector) -> Self {
        elector.follow(true);
        let start = Instant::now();
        Self { server: Server::default(), elector, start, milliseconds: 0, told: 0, requests: Vec::new(), wake: None }
    }

    /// The same, with a Lease of another process that was just seen.
    fn beside(holder: &str, seconds: i32) -> Self {
        let mut scene = Self::new();
        scene.server.store(&lease(holder, seconds));
        scene.run();
        scene
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.milliseconds)
    }

    fn wall() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    /// Sends and answers what is due, and delivers the events.
    fn run(&mut self) {
        for round in 0.. {
            assert!(round < 50, "{:?}", self.requests);
            self.deliver();
            let step = self.elector.poll(self.now(), Self::wall());
            self.wake = step.wake;
            let Some(request) = step.request else { return };
            let end = self.server.answer(&request);
            self.requests.push(request);
            self.elector.ended(self.now(), end);
        }
    }

    fn deliver(&mut self) {
        for event in &self.server.events[self.told..] {
            match event {
                Event::Seen(lease) => self.elector.observe(self.now(), lease.clone()),
                Event::Gone(revision) => {
                    self.elector.observe_absence(self.now(), Version::parse(&revision.to_string()));
                }
            }
        }
        self.told = self.server.events.len();
    }

    /// Lets time pass in steps of 50 ms. As in the keeper, the elector is only asked when it wants to be or something
    /// happened.
    fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds / 50 {
            self.milliseconds += 50;
            if self.told != self.server.events.len() || self.wake.is_some_and(|wake| wake <= self.now()) {
                self.run();
            }
        }
    }

    /// The same while nothing runs in this process.
    fn stand_still(&mut self, milliseconds: u64) {
        self.milliseconds += milliseconds;
    }

    /// The next request, under way until it is ended.
    fn send(&mut self) -> Request {
        self.elector.poll(self.now(), Self::wall()).request.unwrap()
    }

    fn end(&mut self, end: End) {
        self.elector.ended(self.now(), end);
        self.wake = Some(self.now());
    }

    fn leads(&self) -> bool {
        self.may_write(self.now())
    }

    fn may_write(&self, now: Instant) -> bool {
        self.elector.grant().is_some_and(|(_, until)| now < until)
    }

    fn term(&self) -> Option<u64> {
        self.elector.standing(Claim::default()).term.map(|term| term.0)
    }

    fn restores(&self) -> u64 {
        self.elector.standing(Claim::default()).restores
    }

    /// The milliseconds from now on until it leads.
    fn leads_after(&mut self) -> u64 {
        let before = self.milliseconds;
        while !self.leads() {
            assert!(self.milliseconds - before < 100_000, "{:?}", self.requests.last());
            self.pass(50);
        }
        self.milliseconds - before
    }
}

fn lease(holder: &str, seconds: i32) -> Lease {
    Lease {
        metadata: kube::api::ObjectMeta { name: Some("metallb-controller".into()), ..Default::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(seconds),
            ..LeaseSpec::default()
        }),
    }
}

fn holder_of(server: &Server) -> String {
    record::holder(server.lease.as_ref().unwrap()).unwrap_or_default().to_owned()
}

#[test]
fn absent_lease_is_created_and_renewed_once_a_second() {
    let mut scene = Scene::new();
    scene.run();
    assert_eq!((scene.leads(), scene.term()), (true, Some(1)));
    let before = scene.requests.len();
    scene.pass(10_000);
    assert_eq!(scene.term(), Some(1));
    assert_eq!(scene.requests.len() - before, 10);
}

#[test]
fn foreign_lease_is_free_after_its_duration_within_bounds() {
    let year = 31_536_000;
    for (seconds, milliseconds) in [
        (5, 5000),
        (15, 15_000),
        (1, 5000),
        (0, 5000),
        (-7, 5000),
        (i32::MIN, 5000),
        (year, 60_000),
        (i32::MAX, 60_000),
    ] {
        let mut scene = Scene::beside(FOREIGN, seconds);
        assert_eq!(scene.leads_after(), milliseconds, "{seconds} s");
        assert_eq!(scene.server.lease.as_ref().unwrap().spec.as_ref().unwrap().lease_transitions, Some(1));
    }
}

#[test]
fn foreign_lease_is_judged_by_its_age_whatever_its_times_say() {
    for seconds in [-4_000_000_000, 0, 4_000_000_000] {
        let mut scene = Scene::new();
        let mut foreign = lease(FOREIGN, 5);
        let spec = foreign.spec.as_mut().unwrap();
        spec.renew_time = Some(MicroTime(Timestamp::from_second(seconds).unwrap()));
        spec.acquire_time = spec.renew_time.clone();
        scene.server.store(&foreign);
        scene.run();
        assert_eq!(scene.leads_after(), 5000, "{seconds}");
    }
}

#[test]
fn foreign_lease_stays_taken_while_renewals_are_seen() {
    let mut scene = Scene::beside(FOREIGN, 5);
    let before = scene.requests.len();
    for _ in 0..20 {
        scene.pass(4900);
        scene.server.edit(|_| {});
    }
    assert!(!scene.leads());
    // A standby whose watch works asks for nothing.
    assert_eq!(scene.requests.len(), before);
    assert_eq!(scene.leads_after(), 5050);
}

#[test]
fn lease_without_a_holder_is_free_at_once() {
    let mut scene = Scene::beside(FOREIGN, 5);
    scene.pass(1000);
    for holder in [None, Some(String::new())] {
        let mut scene = Scene::beside(FOREIGN, 5);
        scene.server.edit(|lease| lease.spec.as_mut().unwrap().holder_identity = holder);
        assert_eq!(scene.leads_after(), 50);
    }
    scene.server.edit(|lease| lease.spec = None);
    assert_eq!(scene.leads_after(), 50);
}

#[test]
fn standby_without_a_watch_reads_once_a_second_and_takes_a_free_lease() {
    let mut scene = Scene::beside(FOREIGN, 5);
    scene.elector.follow(false);
    scene.told = usize::MAX / 2;
    scene.server.events = Vec::new();
    let before = scene.requests.len();
    for _ in 0..10 {
        for _ in 0..20 {
            scene.milliseconds += 50;
            let Some(request) = scene.elector.poll(scene.now(), Scene::wall()).request else { continue };
            let end = scene.server.answer(&request);
            scene.requests.push(request);
            scene.end(end);
        }
        scene.server.edit(|_| {});
    }
    assert!(!scene.leads());
    assert!((9..=11).contains(&(scene.requests.len() - before)), "{}", scene.requests.len() - before);
}

#[test]
fn lease_of_a_process_before_in_the_pod_is_taken_at_once_with_the_lock_of_the_pod_only() {
    let uid = PodUid::parse(UID).unwrap();
    let predecessor = Identity::new("pod", Some(UID)).to_string();
    let elsewhere = PodUid::parse("99999999-0000-4222-8333-444455556666").unwrap();
    for (lock, holder, milliseconds) in [
        (Some(uid.clone()), predecessor.as_str(), 0),
        (None, predecessor.as_str(), 5000),
        (Some(elsewhere), predecessor.as_str(), 5000),
        (Some(uid.clone()), FOREIGN, 5000),
        // Two processes that do not know the uid of their Pod have nothing in common.
        (None, "pod__1f", 5000),
        (Some(uid), "pod__1f", 5000),
    ] {
        let mut elector = Elector::new(settings("pod", Some(UID)));
        if let Some(lock) = &lock {
            elector.hold_pod_lock(lock.clone());
        }
        let mut scene = Scene::of(elector);
        scene.server.store(&lease(holder, 5));
        scene.run();
        assert_eq!(scene.leads_after(), milliseconds, "{lock:?} {holder}");
    }
}

#[test]
fn process_without_the_lock_of_its_pod_does_not_write_the_uid() {
    let mut scene = Scene::of(Elector::new(settings("pod", Some(UID))));
    scene.run();
    assert!(scene.leads() && !holder_of(&scene.server).contains(UID), "{}", holder_of(&scene.server));
    // The lock is free later on: it is the same process all the same.
    scene.elector.hold_pod_lock(PodUid::parse(UID).unwrap());
    scene.pass(1000);
    assert!(holder_of(&scene.server).contains(UID));
    assert_eq!(scene.term(), Some(1));
}

#[test]
fn leader_that_was_stopped_may_not_write_and_leads_again_in_a_new_term() {
    let mut scene = Scene::new();
    scene.run();
    assert!(scene.may_write(scene.start + Duration::from_millis(2999)));
    assert!(!scene.may_write(scene.start + Duration::from_millis(3000)));
    scene.stand_still(20_000);
    assert!(!scene.leads());
    let request = scene.send();
    assert_eq!(scene.term(), None);
    let end = scene.server.answer(&request);
    scene.end(end);
    assert_eq!((scene.leads(), scene.term()), (true, Some(2)));
}

#[test]
fn leader_that_was_stopped_while_its_lease_was_taken_follows() {
    let mut scene = Scene::new();
    scene.run();
    scene.stand_still(20_000);
    scene.server.edit(|taken| taken.spec = lease(FOREIGN, 5).spec);
    // The event of the other holder is not there yet: the renewal meets a conflict.
    let request = scene.send();
    let end = scene.server.answer(&request);
    assert!(matches!(end, End::Conflict));
    scene.end(end);
    assert_eq!(scene.send(), Request::Get);
    scene.end(End::Done(Box::new(scene.server.lease.clone().unwrap())));
    assert_eq!((scene.leads(), scene.restores()), (false, 0));
    assert_eq!(scene.leads_after(), 5000);
}

#[test]
fn renewal_counts_from_its_start_and_not_from_its_answer() {
    let mut scene = Scene::new();
    scene.run();
    scene.stand_still(1000);
    let request = scene.send();
    let end = scene.server.answer(&request);
    scene.stand_still(1900);
    scene.end(end);
    assert!(scene.may_write(scene.start + Duration::from_millis(3999)));
    assert!(!scene.may_write(scene.start + Duration::from_millis(4000)));
}

#[test]
fn answer_after_the_deadline_does_not_lead() {
    let mut scene = Scene::new();
    assert_eq!(scene.send(), Request::Get);
    scene.end(End::Absent);
    let request = scene.send();
    let end = scene.server.answer(&request);
    scene.stand_still(3000);
    scene.end(end);
    assert_eq!(scene.term(), None);
    scene.run();
    assert_eq!(scene.term(), Some(1));
}

#[test]
fn lost_answer_of_a_renewal_that_was_done_ends_no_term() {
    let mut scene = Scene::new();
    scene.run();
    scene.stand_still(1000);
    let request = scene.send();
    scene.server.answer(&request);
    scene.stand_still(500);
    scene.end(End::Unknown);
    assert!(!scene.may_write(scene.start + Duration::from_millis(3000)));
    // Without a word from the watch: the next try meets a conflict, and the Lease names this process.
    scene.stand_still(250);
    for expected in ["update", "get", "update"] {
        let request = scene.send();
        let kind = if request == Request::Get { "get" } else { "update" };
        assert_eq!(kind, expected);
        let end = scene.server.answer(&request);
        scene.end(end);
    }
    assert_eq!((scene.term(), scene.restores()), (Some(1), 0));
    assert!(scene.may_write(scene.start + Duration::from_millis(4749)));
}

#[test]
fn lease_edited_by_a_person_keeps_the_term_and_what_was_written() {
    let mut scene = Scene::new();
    scene.run();
    scene.server.edit(|lease| lease.metadata.annotations = Some([("note".to_owned(), "kept".to_owned())].into()));
    scene.told = scene.server.events.len();
    scene.pass(1000);
    assert_eq!((scene.term(), scene.restores()), (Some(1), 0));
    let written = scene.server.lease.clone().unwrap();
    assert_eq!(written.metadata.annotations.unwrap()["note"], "kept");
    assert_eq!(written.spec.unwrap().lease_transitions, Some(0));
}

#[test]
fn leader_that_sees_another_holder_stops_at_once() {
    let mut scene = Scene::new();
    scene.run();
    scene.server.edit(|taken| taken.spec = lease(FOREIGN, 5).spec);
    scene.deliver();
    assert!(!scene.leads());
    let turns = [Turn::Acquired(Term(1)), Turn::Lost(Loss::Taken), Turn::Follows(FOREIGN.to_owned())];
    assert_eq!(scene.elector.take_turns(), turns);
    // The holder is reported once, not with each of its renewals.
    scene.server.edit(|_| {});
    scene.deliver();
    assert_eq!(scene.elector.take_turns(), []);
}

#[test]
fn event_that_is_older_than_what_was_seen_is_ignored() {
    let mut scene = Scene::beside(FOREIGN, 5);
    let old = scene.server.lease.clone().unwrap();
    scene.server.edit(|_| {});
    scene.pass(4000);
    scene.elector.observe(scene.now(), Box::new(old.clone()));
    scene.elector.observe_absence(scene.now(), Version::of(&old));
    assert_eq!(scene.leads_after(), 1050);
}

#[test]
fn deleted_lease_is_created_again_by_its_holder_in_the_same_term() {
    let mut scene = Scene::new();
    scene.run();
    scene.server.delete();
    scene.run();
    assert_eq!((scene.leads(), scene.term(), scene.restores()), (true, Some(1), 0));
    assert!(scene.server.lease.is_some());
}

#[test]
fn deleted_lease_is_not_created_by_a_standby_before_the_holder_must_have_stopped() {
    let mut scene = Scene::beside(FOREIGN, 5);
    scene.pass(1000);
    scene.server.delete();
    assert_eq!(scene.leads_after(), 4000);
}

#[test]
fn restored_lease_that_names_this_process_begins_a_new_term() {
    let mut scene = Scene::new();
    scene.run();
    scene.pass(3000);
    let snapshot = scene.server.clone();
    scene.pass(4000);
    scene.server = snapshot;
    scene.told = scene.server.events.len();
    scene.pass(1000);
    assert_eq!((scene.restores(), scene.term(), scene.leads()), (1, Some(2), true));
    assert_eq!(scene.elector.rewinds(), 1);
    scene.pass(60_000);
    assert_eq!((scene.restores(), scene.term()), (1, Some(2)));
}

#[test]
fn restored_lease_that_names_a_dead_holder_is_waited_for() {
    let mut scene = Scene::beside(FOREIGN, 5);
    let snapshot = scene.server.clone();
    scene.leads_after();
    scene.pass(3000);
    scene.server = snapshot;
    scene.told = scene.server.events.len();
    scene.pass(1000);
    assert_eq!((scene.restores(), scene.leads()), (1, false));
    assert_eq!(scene.leads_after(), 5000);
    assert_eq!((scene.restores(), scene.term()), (1, Some(2)));
}

#[test]
fn restore_from_before_the_lease_existed_is_proven_by_the_next_creation() {
    let mut scene = Scene::new();
    scene.server.revision = 100;
    scene.run();
    scene.pass(3000);
    scene.server = Server { revision: 50, ..Server::default() };
    scene.told = 0;
    scene.pass(1000);
    assert_eq!((scene.restores(), scene.term(), scene.leads()), (1, Some(2), true));
    scene.pass(10_000);
    assert_eq!((scene.restores(), scene.term()), (1, Some(2)));
}

#[test]
fn lower_version_without_a_refused_write_of_this_process_is_no_restore() {
    // Of a leader: an old event, an old list, an old answer to a GET.
    let mut scene = Scene::new();
    scene.run();
    let old = scene.server.lease.clone().unwrap();
    scene.pass(3000);
    scene.elector.observe(scene.now(), Box::new(old.clone()));
    scene.run();
    assert_eq!((scene.restores(), scene.term()), (0, Some(1)));
    // Of a standby that never wrote: it follows the older Lease.
    let mut scene = Scene::beside(FOREIGN, 5);
    let snapshot = scene.server.clone();
    scene.server.edit(|_| {});
    scene.run();
    scene.server = snapshot;
    scene.told = scene.server.events.len();
    assert_eq!(scene.leads_after(), 10_000);
    assert_eq!((scene.restores(), scene.elector.rewinds()), (0, 1));
}

#[test]
fn refused_and_unanswered_requests_are_tried_again_about_once_a_second() {
    for end in [End::Refused, End::Unknown] {
        let mut scene = Scene::new();
        scene.run();
        let mut requests = 0;
        for _ in 0..1200 {
            scene.milliseconds += 50;
            if scene.elector.poll(scene.now(), Scene::wall()).request.is_some() {
                requests += 1;
                scene.end(end.clone());
            }
        }
        assert!(!scene.leads());
        assert!((40..=65).contains(&requests), "{end:?}: {requests} requests in a minute");
        // And then it leads again.
        assert!(scene.leads_after() <= 1000);
    }
}

#[test]
fn conflicts_without_end_are_no_busy_loop() {
    let mut scene = Scene::new();
    scene.run();
    let mut requests = 0;
    for _ in 0..1200 {
        scene.milliseconds += 50;
        while let Some(request) = scene.elector.poll(scene.now(), Scene::wall()).request {
            requests += 1;
            let end = if request == Request::Get { scene.server.answer(&request) } else { End::Conflict };
            scene.end(end);
        }
    }
    assert!(!scene.leads());
    assert!((60..=130).contains(&requests), "{requests} requests in a minute");
}

#[test]
fn released_lease_has_no_holder_and_is_not_taken_again() {
    let mut scene = Scene::new();
    scene.run();
    assert!(!scene.elector.is_released());
    scene.elector.release();
    assert_eq!((scene.leads(), scene.elector.is_released()), (false, false));
    scene.run();
    assert!(scene.elector.is_released());
    assert_eq!(holder_of(&scene.server), "");
    scene.pass(20_000);
    assert_eq!(holder_of(&scene.server), "");
}

#[test]
fn lease_is_released_when_the_renewal_under_way_has_ended() {
    for lost in [false, true] {
        let mut scene = Scene::new();
        scene.run();
        scene.stand_still(1000);
        let request = scene.send();
        scene.elector.release();
        assert!(scene.elector.poll(scene.now(), Scene::wall()).request.is_none());
        let end = scene.server.answer(&request);
        scene.end(if lost { End::Unknown } else { end });
        assert!(!scene.leads());
        scene.pass(300);
        assert!(scene.elector.is_released());
        assert_eq!(holder_of(&scene.server), "", "{lost}");
    }
}

#[test]
fn standby_has_nothing_to_release() {
    let mut scene = Scene::beside(FOREIGN, 5);
    scene.elector.release();
    assert!(scene.elector.is_released());
    scene.pass(10_000);
    assert_eq!(holder_of(&scene.server), FOREIGN);
}
