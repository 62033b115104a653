//! The configuration store: an invalid edit does not remove a valid object.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use metallb_core::config::spec::{Resources, Unreadable};
use metallb_core::config::{ConfigReason, ConfigStore, Parsed};
use metallb_core::model::ObjectRef;
use serde_json::{Value, json};

use crate::support::manifest::{merged, object};
use crate::support::objects::World;

#[test]
fn object_edited_into_an_error_keeps_its_last_good_form() {
    let mut store = ConfigStore::new();
    update(&mut store, &[pool("a", "10.0.0.0/24")]);
    let parsed = update(&mut store, &[pool("a", "10.0.0.0/33")]);
    assert_eq!(prefixes(&parsed, "a"), ["10.0.0.0/24"]);
    assert_eq!(codes(&parsed), [ConfigReason::InvalidAddress]);
    let parsed = update(&mut store, &[pool("a", "10.0.0.0/25")]);
    assert_eq!((prefixes(&parsed, "a"), codes(&parsed)), (vec!["10.0.0.0/25".to_owned()], vec![]));
}

#[test]
fn object_of_any_kind_keeps_its_last_good_form_alone_and_together() {
    let selector = |operator: &str| json!({"matchExpressions": [{"key": "rack", "operator": operator}]});
    let peer = |address: &str| json!({"myASN": 64512, "peerASN": 64513, "peerAddress": address, "bfdProfile": "it"});
    let kinds = [
        ("IPAddressPool", json!({"addresses": ["10.0.0.0/24"]}), json!({"addresses": ["10.0.0.0/33"]})),
        (
            "L2Advertisement",
            json!({"nodeSelectors": [selector("Exists")]}),
            json!({"nodeSelectors": [selector("surrounds")]}),
        ),
        ("BGPAdvertisement", json!({"aggregationLength": 24}), json!({"aggregationLength": 34})),
        ("BGPPeer", peer("10.9.9.9"), peer("nowhere")),
        ("BFDProfile", json!({"receiveInterval": 100}), json!({"receiveInterval": 1})),
        (
            "Community",
            json!({"communities": [{"name": "a", "value": "1:2"}]}),
            json!({"communities": [{"name": "a", "value": "1"}]}),
        ),
    ];
    let good: Vec<Value> = kinds.iter().map(|(kind, good, _)| object(kind, "it", good.clone())).collect();
    let mut store = ConfigStore::new();
    let before = update(&mut store, &good);
    assert_eq!(before.problems, []);
    let runs = (0..kinds.len()).flat_map(|first| (first + 1..=kinds.len()).map(move |end| first..end));
    for spoiled in runs {
        let mut objects = good.clone();
        for index in spoiled.clone() {
            let (kind, _, bad) = &kinds[index];
            objects[index] = object(kind, "it", bad.clone());
        }
        let after = update(&mut store, &objects);
        assert_eq!(after.config, before.config, "{spoiled:?}");
        let blamed: BTreeSet<String> = after.problems.iter().map(|problem| problem.object.to_string()).collect();
        // A peer has a problem too if its profile became invalid.
        let expected = kinds[spoiled].iter().map(|(kind, ..)| format!("{kind}/metallb-system/it")).collect();
        assert!(blamed.is_superset(&expected), "{blamed:?} {expected:?}");
    }
}

#[test]
fn deleted_object_is_gone_even_if_it_was_good() {
    let mut store = ConfigStore::new();
    update(&mut store, &[pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24")]);
    let parsed = update(&mut store, &[pool("b", "10.0.1.0/33")]);
    assert_eq!(parsed.config.pools.len(), 1);
    assert_eq!(prefixes(&parsed, "b"), ["10.0.1.0/24"]);
}

#[test]
fn pool_edited_over_another_one_does_not_take_its_addresses() {
    let mut store = ConfigStore::new();
    update(&mut store, &[pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24")]);
    let parsed = update(&mut store, &[pool("a", "10.0.0.0/23"), pool("b", "10.0.1.0/24")]);
    assert_eq!(prefixes(&parsed, "a"), ["10.0.0.0/24"]);
    assert_eq!(prefixes(&parsed, "b"), ["10.0.1.0/24"]);
    assert_eq!(
        parsed.problems.iter().map(|p| p.object.to_string()).collect::<Vec<_>>(),
        ["IPAddressPool/metallb-system/a"]
    );
}

#[test]
fn new_pool_that_sorts_first_does_not_displace_one_in_force() {
    let mut store = ConfigStore::new();
    update(&mut store, &[pool("m", "10.0.0.0/24")]);
    let parsed = update(&mut store, &[pool("a", "10.0.0.0/8"), pool("m", "10.0.0.0/24")]);
    assert_eq!(parsed.config.pools.keys().map(ToString::to_string).collect::<Vec<_>>(), ["m"]);
}

#[test]
fn pool_moved_to_addresses_of_a_kept_form_is_not_moved() {
    let mut store = ConfigStore::new();
    update(&mut store, &[pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24")]);
    let parsed = update(&mut store, &[pool("a", "10.0.9.0/33"), pool("b", "10.0.0.0/24")]);
    assert_eq!(prefixes(&parsed, "a"), ["10.0.0.0/24"]);
    assert_eq!(prefixes(&parsed, "b"), ["10.0.1.0/24"]);
    assert_eq!(codes(&parsed), [ConfigReason::InvalidAddress, ConfigReason::OverlappingAddresses]);
}

#[test]
fn pools_can_swap_addresses_in_one_change() {
    let mut store = ConfigStore::new();
    update(&mut store, &[pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24")]);
    let parsed = update(&mut store, &[pool("a", "10.0.1.0/24"), pool("b", "10.0.0.0/24")]);
    assert_eq!(
        (prefixes(&parsed, "a"), prefixes(&parsed, "b")),
        (vec!["10.0.1.0/24".to_owned()], vec!["10.0.0.0/24".to_owned()])
    );
    assert!(parsed.problems.is_empty());
}

#[test]
fn peer_in_force_survives_the_loss_of_its_secret_and_its_bfd_profile() {
    use ConfigReason::{InvalidSecret, SecretNotFound, UnknownBfdProfile};
    let fast = || object("BFDProfile", "fast", json!({}));
    // Unrelated objects of the same kinds in the same namespace.
    let others =
        || vec![secret("other", "pw-of-another"), object("BFDProfile", "slow", json!({"transmitInterval": 999}))];
    let before = [vec![secret("mine", "pw"), fast(), peer("tor", json!({}))], others()].concat();
    let left: [(Vec<Value>, &[ConfigReason]); 5] = [
        (vec![], &[UnknownBfdProfile, SecretNotFound]),
        (vec![fast()], &[SecretNotFound]),
        (vec![secret("mine", "pw")], &[UnknownBfdProfile]),
        (others(), &[UnknownBfdProfile, SecretNotFound]),
        (vec![merged(secret("mine", "pw"), &json!({"type": "Opaque"})), fast()], &[InvalidSecret]),
    ];
    for (left, expected) in left {
        let mut store = ConfigStore::new();
        let before = update(&mut store, &before);
        assert_eq!(before.problems, []);
        let after = [vec![peer("tor", json!({}))], left].concat();
        for round in 1..=2 {
            let parsed = update(&mut store, &after);
            assert_eq!(parsed.config.peers, before.config.peers, "{after:?}, round {round}");
            assert_eq!(codes(&parsed), expected, "{after:?}, round {round}");
        }
    }
}

#[test]
fn peer_in_force_keeps_its_profile_until_a_valid_one_replaces_it() {
    let pools = || vec![pool("six", "fd00::/64"), object("BGPAdvertisement", "all", json!({}))];
    let profile = |spec: Value| object("BFDProfile", "fast", spec);
    let peer = || peer("tor", json!({"dualStackAddressFamily": true}));
    let before = [pools(), vec![secret("mine", "pw"), profile(json!({"detectMultiplier": 3})), peer()]].concat();
    let in_force = |parsed: &Parsed| parsed.config.bfd_profiles["fast"].clone();
    let mut store = ConfigStore::new();
    let before = update(&mut store, &before);
    assert_eq!(before.problems, []);

    let echo = profile(json!({"detectMultiplier": 5, "echoMode": true}));
    let parsed = update(&mut store, &[pools(), vec![secret("mine", "pw"), echo, peer()]].concat());
    assert_eq!((in_force(&parsed), parsed.config.peers.clone()), (in_force(&before), before.config.peers.clone()));
    assert_eq!(codes(&parsed), [ConfigReason::EchoWithIpv6]);

    // The Secret is deleted and the profile is valid: the Secret is restored and the new profile is used.
    let parsed = update(&mut store, &[pools(), vec![profile(json!({"detectMultiplier": 7})), peer()]].concat());
    assert_eq!((in_force(&parsed).detect_multiplier, codes(&parsed)), (7, vec![ConfigReason::SecretNotFound]));
    assert_eq!(parsed.config.peers, before.config.peers);
}

#[test]
fn one_of_two_peers_that_meet_by_a_label_change_is_dropped() {
    let node = |labels: Value| json!({"kind": "Node", "metadata": {"name": "n", "labels": labels}});
    let on = |name: &str| peer(name, json!({"bfdProfile": "", "nodeSelectors": [{"matchLabels": {name: "here"}}]}));
    let mut store = ConfigStore::new();
    let apart = update(&mut store, &[node(json!({"a": "here"})), secret("mine", "pw"), on("a"), on("b")]);
    assert_eq!((apart.config.peers.len(), apart.problems), (2, vec![]));
    // No last valid form resolves the conflict.
    let together =
        update(&mut store, &[node(json!({"a": "here", "b": "here"})), secret("mine", "pw"), on("a"), on("b")]);
    assert_eq!((together.config.peers.len(), codes(&together)), (1, vec![ConfigReason::DuplicatePeer]));
}

#[test]
fn warning_is_reported_once_even_if_good_forms_are_restored() {
    let odd = object("L2Advertisement", "odd", json!({"ipAddressPools": ["nowhere"]}));
    let mut store = ConfigStore::new();
    let before = update(&mut store, &[pool("a", "10.0.0.0/24"), odd.clone()]);
    assert_eq!(codes(&before), [ConfigReason::UnknownName]);
    let parsed = update(&mut store, &[pool("a", "10.0.0.0/33"), odd]);
    assert_eq!(codes(&parsed), [ConfigReason::InvalidAddress, ConfigReason::UnknownName]);
}

#[test]
fn advertisement_in_force_survives_the_loss_of_an_alias() {
    let alias = |aliases: Value| object("Community", "names", json!({"communities": aliases}));
    let (vip, other) = (json!({"name": "vip", "value": "1:2"}), json!({"name": "other", "value": "3:4"}));
    let ad = object("BGPAdvertisement", "ad", json!({"communities": ["vip"]}));
    let mut store = ConfigStore::new();
    let before = update(&mut store, &[pool("a", "10.0.0.0/24"), alias(json!([vip])), ad.clone()]);
    for left in [vec![alias(json!([other]))], vec![]] {
        let objects = [vec![pool("a", "10.0.0.0/24"), ad.clone()], left].concat();
        let parsed = update(&mut store, &objects);
        assert_eq!(parsed.config, before.config);
        assert_eq!(codes(&parsed), [ConfigReason::UnknownCommunity]);
    }
}

/// One valid object of each kind that is kept, with a form of it that is not valid.
fn kinds() -> [(Value, Value); 6] {
    let peer = |address: &str| json!({"myASN": 64512, "peerASN": 64513, "peerAddress": address, "bfdProfile": "it"});
    let alias = |value: &str| json!({"communities": [{"name": "a", "value": value}]});
    [
        ("IPAddressPool", json!({"addresses": ["10.0.0.0/24"]}), json!({"addresses": ["10.0.0.0/33"]})),
        ("L2Advertisement", json!({}), json!({"nodeSelectors": [{}, {}]})),
        ("BGPAdvertisement", json!({"aggregationLength": 24}), json!({"aggregationLength": 34})),
        ("BGPPeer", peer("10.9.9.9"), peer("nowhere")),
        ("BFDProfile", json!({"receiveInterval": 100}), json!({"receiveInterval": 1})),
        ("Community", alias("1:2"), alias("1")),
    ]
    .map(|(kind, good, bad)| (object(kind, "it", good), object(kind, "it", bad)))
}

fn reference(object: &Value) -> ObjectRef {
    let kinds = ["IPAddressPool", "L2Advertisement", "BGPAdvertisement", "BGPPeer", "BFDProfile", "Community"];
    let kind = kinds.into_iter().find(|kind| object["kind"] == *kind).unwrap();
    ObjectRef::new(kind, "metallb-system", object["metadata"]["name"].as_str().unwrap())
}

fn with_uid(mut object: Value, uid: Option<&str>) -> Value {
    if let Some(uid) = uid {
        object["metadata"]["uid"] = uid.into();
    }
    object
}

#[test]
fn object_of_any_kind_that_cannot_be_read_keeps_its_last_good_form() {
    let good: Vec<Value> = kinds().into_iter().map(|(good, _)| good).collect();
    for broken in 0..good.len() {
        let mut store = ConfigStore::new();
        let before = update(&mut store, &good);
        assert_eq!(before.problems, []);
        let mut rest = good.clone();
        let reference = reference(&rest.remove(broken));
        let mut world = World::read(&rest);
        let error = Some("invalid type: integer `90`, expected a string".to_owned());
        world.resources.unreadable.insert(reference.clone(), Unreadable { uid: None, error });
        for round in 1..=2 {
            let after = store.update(&world.resources, &world.cluster);
            assert_eq!(after.config, before.config, "{reference}, round {round}");
            assert_eq!((codes(&after), &after.problems[0].object), (vec![ConfigReason::Malformed], &reference));
            assert!(after.problems[0].message.contains("expected a string"), "{:?}", after.problems);
        }
        // Readable and different, then deleted.
        assert_eq!(update(&mut store, &good).problems, []);
        world.resources.unreadable.clear();
        let deleted = store.update(&world.resources, &world.cluster).config;
        // A deleted profile stays for the peer that refers to it, and no advertisement uses the community.
        let is_kept = ["BFDProfile", "Community"].contains(&reference.kind);
        assert_eq!(deleted == before.config, is_kept, "{reference} is deleted");
    }
}

#[test]
fn recalled_form_serves_an_object_that_exists_and_is_invalid_or_unreadable() {
    let rows = [
        ("the same object", Some("u1"), Some("u1"), true),
        ("objects of files", None, None, true),
        ("a later object of the same name", Some("u1"), Some("u2"), false),
    ];
    for (case, stored, present, is_used) in rows {
        let good: Vec<Value> = kinds().into_iter().map(|(good, _)| with_uid(good, stored)).collect();
        let mut first = ConfigStore::new();
        let before = update(&mut first, &good);
        let bad: Vec<Value> = kinds().into_iter().map(|(_, bad)| with_uid(bad, present)).collect();
        let mut recalling = ConfigStore::new();
        recalling.recall(first.good().clone());
        let invalid = update(&mut recalling, &bad);
        assert_eq!(invalid.config == before.config, is_used, "{case}: {:?}", invalid.problems);

        let mut world = World::read(&[]);
        for object in &bad {
            let unreadable = Unreadable { uid: present.map(Into::into), error: None };
            world.resources.unreadable.insert(reference(object), unreadable);
        }
        let mut recalling = ConfigStore::new();
        recalling.recall(first.good().clone());
        let unreadable = recalling.update(&world.resources, &world.cluster);
        assert_eq!(unreadable.config == before.config, is_used, "{case}");

        // An object that was deleted meanwhile stays deleted, now and later.
        let mut recalling = ConfigStore::new();
        recalling.recall(first.good().clone());
        assert_eq!(update(&mut recalling, &[]).config.pools.len(), 0, "{case}");
        assert_eq!(update(&mut recalling, &bad).config.pools.len(), 0, "{case}");
    }
}

#[test]
fn pool_edited_over_another_one_does_not_take_its_addresses_after_a_restart() {
    let mut first = ConfigStore::new();
    update(&mut first, &[pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24")]);
    // By age and by name a comes first, so that only the recalled forms tell which of the two was edited.
    let edited = [pool("a", "10.0.0.0/23"), pool("b", "10.0.1.0/24")];
    let mut store = ConfigStore::new();
    store.recall(first.good().clone());
    let parsed = update(&mut store, &edited);
    assert_eq!(
        (prefixes(&parsed, "a"), prefixes(&parsed, "b")),
        (vec!["10.0.0.0/24".into()], vec!["10.0.1.0/24".into()])
    );
    assert_eq!(update(&mut ConfigStore::new(), &edited).config.pools.len(), 1, "without them");
}

#[test]
fn stored_forms_hold_no_password_and_no_secret() {
    let objects = [secret("mine", "hunter2"), object("BFDProfile", "fast", json!({})), peer("tor", json!({}))];
    let mut store = ConfigStore::new();
    assert_eq!(update(&mut store, &objects).problems, []);
    let text = serde_json::to_string(store.good()).unwrap();
    assert!(text.contains("tor") && !text.contains("hunter2"), "{text}");
    let read: Resources = serde_json::from_str(&text).unwrap();
    assert_eq!((read.peers, read.bfd_profiles), (store.good().peers.clone(), store.good().bfd_profiles.clone()));
    assert_eq!((read.secrets, read.unreadable.len()), (vec![], 0));
}

#[test]
fn departed_pool_keeps_its_advertisements_for_the_grace_time() {
    let grace = Duration::from_secs(30);
    let start = Instant::now();
    let mut store = ConfigStore::new().with_grace(grace);
    let mut at = |objects: &[Value], seconds: u64| {
        let world = World::read(objects);
        store.update_at(&world.resources, &world.cluster, start + Duration::from_secs(seconds)).config
    };
    let (a, b) = (pool("a", "10.0.0.0/24"), pool("b", "10.0.0.0/25"));
    let ad = object("L2Advertisement", "all", json!({}));
    let before = at(&[a.clone(), ad.clone()], 0);
    let ip: [IpAddr; 1] = ["10.0.0.200".parse().unwrap()];
    for (seconds, objects) in [(1, vec![ad.clone()]), (2, vec![]), (3, vec![b.clone(), ad.clone()])] {
        let config = at(&objects, seconds);
        assert_eq!(config.pool_of(&ip), before.pools.get("a"), "{seconds}");
        assert!(!config.pools.contains_key("a"), "nothing is allocated from it");
    }
    // A pool that exists comes first.
    let inside: [IpAddr; 1] = ["10.0.0.7".parse().unwrap()];
    assert_eq!(at(&[b.clone(), ad.clone()], 4).pool_of(&inside).unwrap().name.as_str(), "b");
    assert_eq!(at(&[b, ad.clone()], 31).pool_of(&ip), None);
    assert!(at(&[a, ad], 32).departed.keys().all(|name| name.as_str() == "b"));
}

fn update(store: &mut ConfigStore, objects: &[Value]) -> Parsed {
    let world = World::read(objects);
    store.update(&world.resources, &world.cluster)
}

/// A Secret with a password.
fn secret(name: &str, password: &str) -> Value {
    json!({"kind": "Secret", "type": "kubernetes.io/basic-auth", "data": {"password": password},
        "metadata": {"namespace": "metallb-system", "name": name}})
}

/// A peer with the Secret `mine` and the BFD profile `fast`, unless `more` replaces them.
fn peer(name: &str, more: Value) -> Value {
    let spec = json!({"myASN": 1, "peerASN": 2, "peerAddress": "10.0.0.1", "passwordSecret": {"name": "mine"},
        "bfdProfile": "fast"});
    object("BGPPeer", name, merged(spec, &more))
}

fn pool(name: &str, addresses: &str) -> Value {
    object("IPAddressPool", name, json!({"addresses": [addresses]}))
}

fn prefixes(parsed: &Parsed, pool: &str) -> Vec<String> {
    parsed.config.pools[pool].prefixes().map(ToString::to_string).collect()
}

fn codes(parsed: &Parsed) -> Vec<ConfigReason> {
    parsed.problems.iter().map(|problem| problem.code).collect()
}
