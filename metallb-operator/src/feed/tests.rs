//! The feed, update by update.

use serde_json::{Value, json};

use super::*;
use crate::source::changes::Listed;

fn read<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

fn metadata(object: &Value) -> Metadata {
    Metadata::of(&read(object["metadata"].clone()))
}

/// A feed that follows these kinds and is updated by hand.
fn following(kinds: &[Kind]) -> Feed {
    Feed::following(kinds.iter().map(|kind| (*kind, watch::Sender::new(Demand::default()))).collect())
}

fn reset<K: DeserializeOwned>(objects: &[Value], version: &str, round: Round) -> Change<K> {
    let objects = objects.iter().cloned().map(read).collect();
    Change::Reset(Listed { objects, undecodable: Vec::new(), version: version.into(), round })
}

fn service(uid: &str, version: u64, labels: &Value) -> Value {
    json!({
        "metadata": {
            "namespace": "default", "name": "web", "uid": uid, "labels": labels, "resourceVersion": version.to_string(),
        },
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    })
}

fn node(version: usize, labels: Value, spec: Value, conditions: Value) -> Change<core::Node> {
    Change::Apply(read(json!({
        "metadata": {"name": "iris", "labels": labels, "resourceVersion": version.to_string()},
        "spec": spec, "status": {"conditions": conditions},
    })))
}

fn touched(feed: &mut Feed, update: Update) -> Touched {
    let mut touched = Touched::default();
    feed.apply(update, &mut touched);
    touched
}

/// See `docs/upstream-behaviour.md`: heartbeats and unrelated fields of a Node cause no work.
#[test]
fn node_wakes_whoever_elects_by_labels_and_network_alone() {
    let heartbeat = |at: &str| json!({"type": "Ready", "status": "True", "lastHeartbeatTime": at});
    let (early, late) = (heartbeat("2026-01-01T00:00:00Z"), heartbeat("2026-01-01T00:00:10Z"));
    let without_network = json!({"type": "NetworkUnavailable", "status": "True"});
    let with_network = json!({"type": "NetworkUnavailable", "status": "False"});
    let rows = [
        ("created", json!({}), json!({}), json!([early]), true),
        ("nothing", json!({}), json!({}), json!([early]), false),
        ("heartbeat", json!({}), json!({}), json!([late]), false),
        ("cordon", json!({}), json!({"unschedulable": true}), json!([late]), false),
        ("pod CIDR", json!({}), json!({"podCIDR": "10.244.0.0/24"}), json!([late]), false),
        ("label", json!({"rack": "1"}), json!({}), json!([late]), true),
        ("network lost", json!({"rack": "1"}), json!({}), json!([late, without_network]), true),
        ("network still lost", json!({"rack": "1"}), json!({}), json!([early, without_network]), false),
        ("network back", json!({"rack": "1"}), json!({}), json!([late, with_network]), true),
    ];
    let mut feed = Feed::default();
    for (version, (name, labels, spec, conditions, wakes)) in rows.into_iter().enumerate() {
        let touched = touched(&mut feed, Update::Nodes(node(version, labels, spec, conditions)));
        assert_eq!((touched.nodes, touched.config), (wakes, wakes), "{name}");
    }
    let gone = Change::Delete(metadata(&json!({"metadata": {"name": "iris", "resourceVersion": "99"}})));
    assert!(touched(&mut feed, Update::Nodes(gone)).nodes, "deleted");
}

/// See `docs/upstream-behaviour.md`: no decision before every kind was listed.
#[test]
fn picture_is_incomplete_until_every_kind_was_listed() {
    let mut feed = following(&[Kind::Service, Kind::Pool, Kind::Node]);
    let first = feed.round();
    let services = reset(&[service("u1", 1, &json!({}))], "5", first);
    assert!(!touched(&mut feed, Update::Services(services)).services.is_empty());
    assert!(!feed.is_complete(), "a Service alone decides nothing");
    touched(&mut feed, Update::Pools(reset(&[], "5", first)));
    touched(&mut feed, Update::Nodes(node(1, json!({}), json!({}), json!([]))));
    assert!(!feed.is_complete() && !feed.was_complete(), "an event is no list");
    touched(&mut feed, Update::Nodes(reset(&[], "5", first)));
    assert!(feed.is_complete() && feed.was_complete());
}

#[test]
fn new_round_is_complete_by_lists_that_began_in_it_alone() {
    let mut feed = following(&[Kind::Pool, Kind::Node]);
    let first = feed.round();
    touched(&mut feed, Update::Pools(reset(&[], "5", first)));
    touched(&mut feed, Update::Nodes(reset(&[], "5", first)));
    let second = feed.relist(Relist::Again);
    assert!(!feed.is_complete() && feed.was_complete(), "nothing is decided, the process stays ready");
    touched(&mut feed, Update::Pools(reset(&[], "6", second)));
    touched(&mut feed, Update::Nodes(reset(&[], "6", first)));
    assert!(!feed.is_complete(), "this list began before the round");
    touched(&mut feed, Update::Nodes(reset(&[], "7", second)));
    assert!(feed.is_complete());
}

#[test]
fn service_that_only_got_a_status_or_a_field_of_others_wakes_nobody_twice() {
    let apply = |version, labels: Value| Update::Services(Change::Apply(read(service("u1", version, &labels))));
    let mut feed = Feed::default();
    let key = ServiceKey::new("default", "web");
    let both = |touched: Touched| (touched.services.contains(&key), touched.versions.contains(&key));
    assert_eq!(both(touched(&mut feed, apply(1, json!({})))), (true, true));
    assert_eq!(both(touched(&mut feed, apply(2, json!({})))), (false, true));
    let version = feed.identity(&key).map(|identity| identity.version.to_string());
    assert_eq!(version.as_deref(), Some("2"), "the version to write against is new all the same");
    assert_eq!(both(touched(&mut feed, apply(3, json!({"app": "web"})))), (true, true));
    assert_eq!(both(touched(&mut feed, apply(3, json!({"app": "web"})))), (false, false), "the same once more");
}

#[test]
fn answer_to_our_own_write_is_not_undone_by_older_events_and_lists() {
    let mut feed = following(&[Kind::Service]);
    let key = ServiceKey::new("default", "web");
    let round = feed.round();
    let mut observed = Touched::default();
    touched(&mut feed, Update::Services(reset(&[service("u1", 1, &json!({}))], "5", round)));
    feed.observe(read(service("u1", 8, &json!({"app": "new"}))), round, &mut observed);
    assert!(observed.services.contains(&key) && observed.versions.contains(&key));
    for (name, late) in [
        ("event", Change::Apply(read(service("u1", 6, &json!({}))))),
        ("list without it", reset(&[], "7", round)),
        ("list of before", reset(&[service("u1", 6, &json!({}))], "7", round)),
    ] {
        let touched = touched(&mut feed, Update::Services(late));
        assert!(touched.services.is_empty() && touched.versions.is_empty(), "{name}");
        assert_eq!(feed.world.cluster.services[&key].labels["app"], "new", "{name}");
    }
    assert_eq!(feed.demands[&Kind::Service].borrow().floor, Some("8".into()), "the next list must be as new");
    assert!(!touched(&mut feed, Update::Services(reset(&[], "9", round))).services.is_empty(), "a newer list frees");
    assert!(feed.world.cluster.services.is_empty() && feed.identity(&key).is_none());
}

#[test]
fn service_that_a_write_did_not_find_is_gone_and_its_namesake_is_served() {
    let mut feed = following(&[Kind::Service]);
    let key = ServiceKey::new("default", "web");
    let round = feed.round();
    touched(&mut feed, Update::Services(reset(&[service("u1", 4, &json!({}))], "5", round)));
    let mut gone = Touched::default();
    feed.deleted(&key, &"u2".into(), round, &mut gone);
    assert!(gone.services.is_empty(), "not this one");
    feed.deleted(&key, &"u1".into(), round, &mut gone);
    assert!(gone.services.contains(&key) && gone.versions.contains(&key) && feed.identity(&key).is_none());
    let late = touched(&mut feed, Update::Services(Change::Apply(read(service("u1", 6, &json!({}))))));
    assert!(late.versions.is_empty(), "written before it was deleted");
    let namesake = touched(&mut feed, Update::Services(Change::Apply(read(service("u3", 7, &json!({}))))));
    assert!(namesake.services.contains(&key));
}

#[test]
fn restored_store_counts_from_its_list_on() {
    let mut feed = following(&[Kind::Service]);
    let key = ServiceKey::new("default", "web");
    let before = feed.round();
    touched(&mut feed, Update::Services(reset(&[service("u1", 40, &json!({}))], "50", before)));
    touched(&mut feed, Update::Services(Change::Delete(metadata(&service("u1", 51, &json!({}))))));
    let after = feed.relist(Relist::Forget);
    let demand = feed.demands[&Kind::Service].borrow().clone();
    assert_eq!((demand.round, demand.forgotten, demand.floor), (after, after, None));
    let mut observed = Touched::default();
    feed.observe(read(service("u2", 60, &json!({}))), before, &mut observed);
    touched(&mut feed, Update::Services(Change::Apply(read(service("u2", 60, &json!({}))))));
    assert!(feed.world.cluster.services.is_empty() && observed.versions.is_empty(), "of the history that ended");
    touched(&mut feed, Update::Services(reset(&[service("u1", 10, &json!({}))], "20", after)));
    assert_eq!(feed.identity(&key).map(|identity| identity.uid.as_str()), Some("u1"), "alive once more");
    feed.observe(read(service("u2", 60, &json!({}))), before, &mut observed);
    assert_eq!(feed.identity(&key).map(|identity| identity.uid.as_str()), Some("u1"), "an answer that came late");
    feed.observe(read(service("u1", 21, &json!({}))), after, &mut observed);
    assert_eq!(feed.identity(&key).map(|identity| identity.version.to_string()).as_deref(), Some("21"));
}

#[test]
fn configuration_that_cannot_be_decoded_keeps_its_last_good_form() {
    let pool = |version: &str| {
        json!({
            "metadata": {"namespace": "metallb-system", "name": "blue", "uid": "u1", "resourceVersion": version},
            "spec": {"addresses": ["192.0.2.0/24"]},
        })
    };
    let mut feed = following(&[Kind::Pool]);
    let round = feed.round();
    assert!(touched(&mut feed, Update::Pools(reset(&[pool("3")], "5", round))).config);
    let undecodable = vec![metadata(&pool("6"))];
    let listed = Listed { objects: Vec::new(), undecodable, version: "7".into(), round };
    assert!(!touched(&mut feed, Update::Pools(Change::Reset(listed))).config);
    assert_eq!(feed.world.resources.pools.len(), 1);
    assert!(touched(&mut feed, Update::Pools(reset(&[], "8", round))).config, "deleted");
    assert!(feed.world.resources.pools.is_empty());
}
