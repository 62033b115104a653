//! The ledger against a store that answers its requests.

use super::*;

type Status = &'static str;

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

fn object(uid: &str, version: u64, status: Status) -> Object<Status> {
    let identity = Identity { uid: uid.into(), version: version.to_string().as_str().into() };
    Object { identity, owned: true, status: Some(status) }
}

fn listed(objects: &[(&str, Object<Status>)]) -> Ledger<Status> {
    let mut ledger = Ledger::default();
    ledger.listed(objects.iter().map(|(name, object)| (key(name), object.clone())), []);
    ledger
}

fn after(now: Instant, milliseconds: u64) -> Instant {
    now + Duration::from_millis(milliseconds)
}

#[test]
fn nothing_is_written_before_the_first_list_and_only_differences_after_it() {
    let now = Instant::now();
    let wanted = |service: &ServiceKey| match &*service.name {
        "new" => Some("n"),
        "same" => Some("s"),
        "edited" => Some("e"),
        "old pod" => Some("o"),
        _ => None,
    };
    let mut ledger = Ledger::default();
    ledger.changed([key("new")]);
    assert_eq!(ledger.next(now, wanted), None);
    let of_old_pod = Object { owned: false, ..object("u4", 7, "o") };
    let objects = [
        (key("same"), object("u1", 5, "s")),
        (key("edited"), object("u2", 6, "?")),
        (key("unwanted"), object("u3", 4, "x")),
        (key("old pod"), of_old_pod),
    ];
    ledger.listed(objects, [key("new"), key("same")]);
    let mut requests: Vec<_> = std::iter::from_fn(|| ledger.next(now, wanted)).collect();
    requests.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        (key("edited"), Request::Update("e")),
        (key("new"), Request::Claim("n")),
        (key("old pod"), Request::Claim("o")),
        (key("unwanted"), Request::Delete(object("u3", 4, "x").identity)),
    ];
    assert_eq!(requests, expected);
}

#[test]
fn one_request_runs_per_service_and_the_newest_desired_status_wins() {
    let now = Instant::now();
    let mut ledger = listed(&[]);
    ledger.changed([key("web")]);
    assert_eq!(ledger.next(now, |_| Some("first")), Some((key("web"), Request::Claim("first"))));
    ledger.changed([key("web")]);
    assert_eq!(ledger.next(now, |_| Some("second")), None, "a request is running");
    ledger.succeeded(key("web"), Some(object("u1", 2, "first")));
    assert_eq!(ledger.next(now, |_| Some("third")), Some((key("web"), Request::Update("third"))));
    ledger.succeeded(key("web"), Some(object("u1", 3, "third")));
    assert_eq!(ledger.next(now, |_| Some("third")), None);
}

#[test]
fn events_older_than_our_own_write_change_nothing() {
    let now = Instant::now();
    let mut ledger = listed(&[("web", object("u1", 5, "a"))]);
    ledger.changed([key("web")]);
    assert!(ledger.next(now, |_| Some("b")).is_some());
    ledger.succeeded(key("web"), Some(object("u1", 9, "b")));
    ledger.seen(key("web"), object("u1", 7, "a"));
    ledger.seen(key("web"), object("u1", 9, "b"));
    ledger.gone(&key("web"), &object("u0", 8, "").identity, now);
    assert_eq!(ledger.next(now, |_| Some("b")), None);
    ledger.listed([(key("web"), object("u1", 7, "a"))], [key("web")]);
    assert_eq!(ledger.next(now, |_| Some("b")), None, "a list of before");
    ledger.seen(key("web"), object("u1", 10, "edited by hand"));
    assert_eq!(ledger.next(now, |_| Some("b")), Some((key("web"), Request::Update("b"))));
}

#[test]
fn answer_older_than_a_delivered_event_does_not_hide_it() {
    let now = Instant::now();
    let mut ledger = listed(&[("web", object("u1", 5, "a"))]);
    ledger.changed([key("web")]);
    assert!(ledger.next(now, |_| Some("b")).is_some());
    ledger.seen(key("web"), object("u1", 7, "edited by hand"));
    ledger.succeeded(key("web"), Some(object("u1", 6, "b")));
    assert_eq!(ledger.next(now, |_| Some("b")), Some((key("web"), Request::Update("b"))));
}

#[test]
fn object_that_others_keep_taking_is_claimed_ever_more_rarely() {
    let mut now = Instant::now();
    let mut ledger = listed(&[]);
    ledger.changed([key("web")]);
    let mut version = 1;
    let mut pauses = Vec::new();
    for _ in 0..10 {
        assert_eq!(ledger.next(now, |_| Some("mine")), Some((key("web"), Request::Claim("mine"))));
        ledger.succeeded(key("web"), Some(object("u1", version, "mine")));
        assert_eq!(ledger.next(now, |_| Some("mine")), None);
        version += 2;
        ledger.gone(&key("web"), &object("u1", version - 1, "").identity, now);
        let due = ledger.next_due(now).unwrap_or(now);
        pauses.push((due - now).as_millis());
        now = due;
    }
    assert_eq!(pauses, [0, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000]);
}

#[test]
fn deletion_of_our_own_is_no_loss() {
    let now = Instant::now();
    let mut ledger = listed(&[("web", object("u1", 5, "a"))]);
    for _ in 0..5 {
        ledger.changed([key("web")]);
        assert!(matches!(ledger.next(now, |_| None), Some((_, Request::Delete(_)))));
        ledger.gone(&key("web"), &object("u1", 6, "a").identity, now);
        ledger.succeeded(key("web"), None);
        ledger.changed([key("web")]);
        assert_eq!(ledger.next(now, |_| Some("a")), Some((key("web"), Request::Claim("a"))), "at once");
        ledger.succeeded(key("web"), Some(object("u1", 5, "a")));
    }
}

#[test]
fn refused_object_waits_and_delays_no_other() {
    let now = Instant::now();
    let mut ledger = listed(&[]);
    ledger.changed([key("refused"), key("web")]);
    let refused = Failure::Refused("no".to_owned());
    assert_eq!(ledger.next(now, |_| Some("a")).unwrap().0, key("refused"));
    ledger.failed(key("refused"), &refused, now, 0.0);
    assert_eq!(ledger.next(now, |_| Some("a")).unwrap().0, key("web"));
    ledger.succeeded(key("web"), Some(object("u1", 1, "a")));
    assert_eq!(ledger.next(now, |_| Some("a")), None);
    assert!(ledger.has_failures());
    assert_eq!(ledger.next_due(now), Some(after(now, 1_000)));
    assert_eq!(ledger.next(after(now, 999), |_| Some("a")), None);
    assert_eq!(ledger.next(after(now, 1_000), |_| Some("a")).unwrap().0, key("refused"));
    ledger.succeeded(key("refused"), Some(object("u2", 2, "a")));
    assert!(!ledger.has_failures());
}

#[test]
fn update_of_an_object_that_is_gone_becomes_a_claim() {
    let now = Instant::now();
    let mut ledger = listed(&[("web", object("u1", 5, "a"))]);
    ledger.changed([key("web")]);
    assert_eq!(ledger.next(now, |_| Some("b")), Some((key("web"), Request::Update("b"))));
    ledger.failed(key("web"), &Failure::Gone, now, 0.0);
    assert_eq!(ledger.next(now, |_| Some("b")), Some((key("web"), Request::Claim("b"))));
}
