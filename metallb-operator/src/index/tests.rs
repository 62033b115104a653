//! The index, update by update.

use serde_json::{Value, json};

use super::*;
use metallb_core::config::ConfigStore;

use crate::source::changes::{Listed, Undecodable};

fn read<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

fn metadata(object: &Value) -> Metadata {
    Metadata::of(&read(object["metadata"].clone()))
}

/// A index that follows these kinds and is updated by hand.
fn following(kinds: &[Kind]) -> Index {
    Index::following(kinds.iter().map(|kind| (*kind, watch::Sender::new(Demand::default()))).collect())
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

fn touched(index: &mut Index, update: Update) -> Touched {
    index.apply([update])
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
    let mut index = Index::default();
    for (version, (name, labels, spec, conditions, wakes)) in rows.into_iter().enumerate() {
        let touched = touched(&mut index, Update::Nodes(node(version, labels, spec, conditions)));
        assert_eq!((touched.nodes, touched.config), (wakes, wakes), "{name}");
    }
    let gone = Change::Delete(metadata(&json!({"metadata": {"name": "iris", "resourceVersion": "99"}})));
    assert!(touched(&mut index, Update::Nodes(gone)).nodes, "deleted");
}

/// See `docs/upstream-behaviour.md`: no decision before every kind was listed.
#[test]
fn picture_is_incomplete_until_every_kind_was_listed() {
    let mut index = following(&[Kind::Service, Kind::Pool, Kind::Node]);
    let first = index.round();
    let services = reset(&[service("u1", 1, &json!({}))], "5", first);
    assert!(!touched(&mut index, Update::Services(services)).services.is_empty());
    assert!(!index.is_complete(), "a Service alone decides nothing");
    touched(&mut index, Update::Pools(reset(&[], "5", first)));
    touched(&mut index, Update::Nodes(node(1, json!({}), json!({}), json!([]))));
    assert!(!index.is_complete() && !index.was_complete(), "an event is no list");
    touched(&mut index, Update::Nodes(reset(&[], "5", first)));
    assert!(index.is_complete() && index.was_complete());
}

#[test]
fn new_round_is_complete_by_lists_that_began_in_it_alone() {
    let mut index = following(&[Kind::Pool, Kind::Node]);
    let first = index.round();
    touched(&mut index, Update::Pools(reset(&[], "5", first)));
    touched(&mut index, Update::Nodes(reset(&[], "5", first)));
    let second = index.relist(Relist::Again);
    assert!(!index.is_complete() && index.was_complete(), "nothing is decided, the process stays ready");
    touched(&mut index, Update::Pools(reset(&[], "6", second)));
    touched(&mut index, Update::Nodes(reset(&[], "6", first)));
    assert!(!index.is_complete(), "this list began before the round");
    touched(&mut index, Update::Nodes(reset(&[], "7", second)));
    assert!(index.is_complete());
}

#[test]
fn service_that_only_got_a_status_or_a_field_of_others_wakes_nobody_twice() {
    let apply = |version, labels: Value| Update::Services(Change::Apply(read(service("u1", version, &labels))));
    let mut index = Index::default();
    let key = ServiceKey::new("default", "web");
    let both = |touched: Touched| (touched.services.contains(&key), touched.versions.contains(&key));
    assert_eq!(both(touched(&mut index, apply(1, json!({})))), (true, true));
    assert_eq!(both(touched(&mut index, apply(2, json!({})))), (false, true));
    let version = index.identity(&key).map(|identity| identity.version.to_string());
    assert_eq!(version.as_deref(), Some("2"), "the version to write against is new all the same");
    assert_eq!(both(touched(&mut index, apply(3, json!({"app": "web"})))), (true, true));
    assert_eq!(both(touched(&mut index, apply(3, json!({"app": "web"})))), (false, false), "the same once more");
}

#[test]
fn answer_to_our_own_write_is_not_undone_by_older_events_and_lists() {
    let mut index = following(&[Kind::Service]);
    let key = ServiceKey::new("default", "web");
    let round = index.round();
    touched(&mut index, Update::Services(reset(&[service("u1", 1, &json!({}))], "5", round)));
    let observed = index.observe(read(service("u1", 8, &json!({"app": "new"}))), round);
    assert!(observed.services.contains(&key) && observed.versions.contains(&key));
    for (name, late) in [
        ("event", Change::Apply(read(service("u1", 6, &json!({}))))),
        ("list without it", reset(&[], "7", round)),
        ("list of before", reset(&[service("u1", 6, &json!({}))], "7", round)),
    ] {
        let touched = touched(&mut index, Update::Services(late));
        assert!(touched.services.is_empty() && touched.versions.is_empty(), "{name}");
        assert_eq!(index.cluster().services[&key].labels["app"], "new", "{name}");
    }
    assert_eq!(index.demands[&Kind::Service].borrow().floor, Some("8".into()), "the next list must be as new");
    assert!(!touched(&mut index, Update::Services(reset(&[], "9", round))).services.is_empty(), "a newer list frees");
    assert!(index.cluster().services.is_empty() && index.identity(&key).is_none());
}

#[test]
fn service_that_a_write_did_not_find_is_gone_and_its_namesake_is_served() {
    let mut index = following(&[Kind::Service]);
    let key = ServiceKey::new("default", "web");
    let round = index.round();
    touched(&mut index, Update::Services(reset(&[service("u1", 4, &json!({}))], "5", round)));
    let other = index.deleted(&key, &"u2".into(), round);
    assert!(other.services.is_empty(), "not this one");
    let gone = index.deleted(&key, &"u1".into(), round);
    assert!(gone.services.contains(&key) && gone.versions.contains(&key) && index.identity(&key).is_none());
    let late = touched(&mut index, Update::Services(Change::Apply(read(service("u1", 6, &json!({}))))));
    assert!(late.versions.is_empty(), "written before it was deleted");
    let namesake = touched(&mut index, Update::Services(Change::Apply(read(service("u3", 7, &json!({}))))));
    assert!(namesake.services.contains(&key));
}

#[test]
fn restored_store_counts_from_its_list_on() {
    let mut index = following(&[Kind::Service]);
    let key = ServiceKey::new("default", "web");
    let before = index.round();
    touched(&mut index, Update::Services(reset(&[service("u1", 40, &json!({}))], "50", before)));
    touched(&mut index, Update::Services(Change::Delete(metadata(&service("u1", 51, &json!({}))))));
    let after = index.relist(Relist::Forget);
    let demand = index.demands[&Kind::Service].borrow().clone();
    assert_eq!((demand.round, demand.forgotten, demand.floor), (after, after, None));
    let observed = index.observe(read(service("u2", 60, &json!({}))), before);
    touched(&mut index, Update::Services(Change::Apply(read(service("u2", 60, &json!({}))))));
    assert!(index.cluster().services.is_empty() && observed.versions.is_empty(), "of the history that ended");
    touched(&mut index, Update::Services(reset(&[service("u1", 10, &json!({}))], "20", after)));
    assert_eq!(index.identity(&key).map(|identity| identity.uid.as_str()), Some("u1"), "alive once more");
    index.observe(read(service("u2", 60, &json!({}))), before);
    assert_eq!(index.identity(&key).map(|identity| identity.uid.as_str()), Some("u1"), "an answer that came late");
    index.observe(read(service("u1", 21, &json!({}))), after);
    assert_eq!(index.identity(&key).map(|identity| identity.version.to_string()).as_deref(), Some("21"));
}

#[test]
fn configuration_that_cannot_be_decoded_keeps_its_last_good_form() {
    let pool = |version: &str| {
        json!({
            "metadata": {"namespace": "metallb-system", "name": "blue", "uid": "u1", "resourceVersion": version},
            "spec": {"addresses": ["192.0.2.0/24"]},
        })
    };
    let mut index = following(&[Kind::Pool]);
    let round = index.round();
    assert!(touched(&mut index, Update::Pools(reset(&[pool("3")], "5", round))).config);
    let broken = |version: &str| Undecodable { metadata: metadata(&pool(version)), error: "invalid type".to_owned() };
    let mut store = ConfigStore::new();
    let good = store.update(index.resources(), index.cluster()).config;
    let listed = Listed { objects: Vec::new(), undecodable: vec![broken("6")], version: "7".into(), round };
    for (case, change, is_news) in [
        ("listed", Change::Reset(listed.clone()), true),
        ("listed again", Change::Reset(listed), false),
        ("an earlier event", Change::Broken(broken("2")), false),
        ("changed, with the same error", Change::Broken(broken("8")), false),
    ] {
        assert_eq!(touched(&mut index, Update::Pools(change)).config, is_news, "{case}");
        assert_eq!(index.resources().unreadable.len(), 1, "{case}");
        assert_eq!(store.update(index.resources(), index.cluster()).config, good, "{case}");
    }
    assert!(touched(&mut index, Update::Pools(Change::Apply(read(pool("9"))))).config, "repaired");
    assert_eq!((index.resources().pools.len(), index.resources().unreadable.len()), (1, 0));
    assert!(touched(&mut index, Update::Pools(Change::Broken(broken("10")))).config);
    assert!(touched(&mut index, Update::Pools(Change::Delete(metadata(&pool("11"))))).config, "deleted while broken");
    assert!(index.resources().unreadable.is_empty());
    let other =
        json!({"metadata": {"namespace": "metallb-system", "name": "red", "uid": "u2", "resourceVersion": "12"}});
    let never_good = Undecodable { metadata: metadata(&other), error: "invalid type".to_owned() };
    assert!(touched(&mut index, Update::Pools(Change::Broken(never_good))).config);
    assert_eq!(index.resources().unreadable.len(), 1);
    assert!(touched(&mut index, Update::Pools(reset(&[], "13", round))).config, "deleted");
    assert!(index.resources().pools.is_empty() && index.resources().unreadable.is_empty());
}
