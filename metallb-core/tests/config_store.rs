//! The configuration over time: no edit takes away what works.
#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test says what it expects")]
#![allow(clippy::needless_pass_by_value, reason = "`json!` makes values, and rows read better without `&`")]

mod support {
    pub(crate) mod objects;
}

use metallb_core::config::{ConfigReason, ConfigStore, Parsed};
use serde_json::{Value, json};

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
fn deleted_object_is_gone_even_if_it_was_good() {
    let mut store = ConfigStore::new();
    update(&mut store, &[pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24")]);
    let parsed = update(&mut store, &[pool("b", "10.0.1.0/33")]);
    assert_eq!(parsed.config.pools.len(), 1);
    assert_eq!(prefixes(&parsed, "b"), ["10.0.1.0/24"]);
}

#[test]
fn older_pool_edited_over_a_younger_one_does_not_take_its_addresses() {
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
fn pool_moved_onto_addresses_that_a_kept_form_still_holds_stays_where_it_was() {
    let mut store = ConfigStore::new();
    update(&mut store, &[pool("a", "10.0.0.0/24"), pool("b", "10.0.1.0/24")]);
    let parsed = update(&mut store, &[pool("a", "10.0.9.0/33"), pool("b", "10.0.0.0/24")]);
    assert_eq!(prefixes(&parsed, "a"), ["10.0.0.0/24"]);
    assert_eq!(prefixes(&parsed, "b"), ["10.0.1.0/24"]);
    assert_eq!(codes(&parsed), [ConfigReason::InvalidAddress, ConfigReason::OverlappingAddresses]);
}

#[test]
fn pools_that_swap_addresses_in_one_change_do_so() {
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
    let secret = json!({"kind": "Secret", "type": "kubernetes.io/basic-auth", "data": {"password": "pw"},
        "metadata": {"namespace": "metallb-system", "name": "s"}});
    let profile = object("BFDProfile", "fast", json!({}));
    let peer = object(
        "BGPPeer",
        "tor",
        json!({"myASN": 1, "peerASN": 2, "peerAddress": "10.0.0.1", "passwordSecret": {"name": "s"}, "bfdProfile": "fast"}),
    );
    let mut store = ConfigStore::new();
    let before = update(&mut store, &[secret, profile, peer.clone()]);
    assert!(before.problems.is_empty());
    for round in 1..=2 {
        let parsed = update(&mut store, std::slice::from_ref(&peer));
        assert_eq!(parsed.config, before.config, "round {round}");
        assert_eq!(codes(&parsed), [ConfigReason::UnknownBfdProfile, ConfigReason::SecretNotFound], "round {round}");
    }
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

fn update(store: &mut ConfigStore, objects: &[Value]) -> Parsed {
    let world = World::read(objects);
    store.update(&world.resources, &world.cluster)
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"kind": kind, "metadata": {"namespace": "metallb-system", "name": name}, "spec": spec})
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
