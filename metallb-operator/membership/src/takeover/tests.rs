//! Which addresses a node has, whatever the order in which plans and changes of the live members arrive.

use proptest::prelude::*;

use super::*;

const ME: &str = "me";

fn names(nodes: &[&str]) -> BTreeSet<NodeName> {
    nodes.iter().map(|&node| node.into()).collect()
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn standby(before: &[&str]) -> Assignment {
    Assignment::Standby(Scope::All, before.iter().map(|&node| node.into()).collect())
}

/// Replaces the live members, this node included; says what changes for one address.
fn live(takeover: &mut Takeover, nodes: &[&str]) -> Option<Wanted> {
    let mut live = names(nodes);
    live.insert(ME.into());
    takeover.set_live(&live, &ME.into()).into_iter().find(|(changed, _)| *changed == ip(1)).map(|(_, wanted)| wanted)
}

/// A plan of one address whose ranking is as old as itself.
fn plan(takeover: &mut Takeover, generation: Generation, assignment: Assignment) -> Wanted {
    let addresses = [(ip(1), assignment)].into();
    let changed = takeover.plan(&Plan { addresses, generation, monitor: None, ranked: Some(generation) });
    changed.into_iter().find(|(changed, _)| *changed == ip(1)).map(|(_, wanted)| wanted).unwrap()
}

fn held() -> Wanted {
    Wanted::Held(Scope::All)
}

fn released(to: &str) -> Wanted {
    Wanted::Released(Some(to.into()))
}

#[test]
fn address_is_taken_over_with_the_last_predecessor_and_returned_to_the_first_live_one() {
    let mut takeover = Takeover::default();
    live(&mut takeover, &["a", "b"]);
    let generation = takeover.generation();
    assert_eq!(plan(&mut takeover, generation, standby(&["a", "b"])), released("a"));
    assert_eq!(live(&mut takeover, &["a", "b", "c"]), None, "a node that does not come before this one");
    assert_eq!(live(&mut takeover, &["b"]), Some(released("b")));
    assert_eq!(live(&mut takeover, &[]), Some(held()));
    assert_eq!(live(&mut takeover, &["b"]), Some(released("b")));
    assert_eq!(live(&mut takeover, &["a", "b"]), Some(released("a")));
}

#[test]
fn plan_that_does_not_know_of_a_death_takes_nothing_away() {
    let mut takeover = Takeover::default();
    live(&mut takeover, &["a", "b"]);
    let before = takeover.generation();
    plan(&mut takeover, before, standby(&["a"]));
    assert_eq!(live(&mut takeover, &["b"]), Some(held()));
    assert_eq!(plan(&mut takeover, before, standby(&["a"])), held());
    let after = takeover.generation();
    assert_eq!(plan(&mut takeover, after, Assignment::Owner(Scope::All)), held());
}

#[test]
fn plan_that_does_not_know_of_a_return_gives_nothing_twice() {
    let stale = [Assignment::Owner(Scope::All), standby(&["b"])];
    for stale in stale {
        let mut takeover = Takeover::default();
        live(&mut takeover, &["a", "b"]);
        let generation = takeover.generation();
        plan(&mut takeover, generation, standby(&["a", "b"]));
        assert_eq!(live(&mut takeover, &[]), Some(held()));
        let without = takeover.generation();
        assert_eq!(live(&mut takeover, &["a"]), Some(released("a")));
        assert_eq!(plan(&mut takeover, without, stale.clone()), released("a"), "{stale:?}");
        // It dies once more, and returns once more.
        assert_eq!(live(&mut takeover, &[]), Some(held()), "{stale:?}");
        assert_eq!(live(&mut takeover, &["a"]), Some(released("a")), "{stale:?}");
        // A plan that knows it, and leaves the assignment as it is: the node is no candidate any longer.
        let knowing =
            Plan { generation: takeover.generation(), ranked: Some(takeover.generation()), ..Plan::default() };
        assert_eq!(takeover.plan(&knowing), [(ip(1), held())], "{stale:?}");
        assert_eq!(live(&mut takeover, &[]), None, "{stale:?}");
    }
}

#[test]
fn order_that_a_plan_does_not_rank_again_stays_until_it_does() {
    let mut takeover = Takeover::default();
    live(&mut takeover, &["a", "b"]);
    let generation = takeover.generation();
    plan(&mut takeover, generation, standby(&["a", "b"]));
    live(&mut takeover, &["b"]);
    let ranked = takeover.generation();
    live(&mut takeover, &["a", "b"]);
    assert_eq!(plan(&mut takeover, ranked, standby(&["b"])), released("a"));
    // The step that knows of the return has not ranked yet.
    let step = Plan { generation: takeover.generation(), ..Plan::default() };
    assert_eq!(takeover.plan(&step), []);
    assert_eq!(takeover.wanted(ip(1)), released("a"));
}

#[test]
fn node_that_is_not_ready_takes_nothing_over_and_keeps_what_it_has() {
    let mut takeover = Takeover::default();
    live(&mut takeover, &["a"]);
    let generation = takeover.generation();
    plan(&mut takeover, generation, standby(&["a"]));
    assert_eq!(takeover.set_live(&names(&[]), &ME.into()), []);
    assert_ne!(takeover.wanted(ip(1)), held());
    assert_eq!(plan(&mut takeover, generation, standby(&["a"])), Wanted::Released(None));
    assert_eq!(live(&mut takeover, &[]), Some(held()), "it is ready again");
    assert_eq!(takeover.set_live(&names(&["a"]), &ME.into()), [], "it hands over when the speaker says so");
}

#[test]
fn cost_is_that_of_the_changed_addresses() {
    for size in [10_u32, 1_000] {
        let mut takeover = Takeover::default();
        live(&mut takeover, &["a", "b"]);
        let owner = |number: u32| if number.is_multiple_of(10) { standby(&["a"]) } else { standby(&["b"]) };
        let address = |number: u32| IpAddr::from((0x0a01_0000 + number).to_be_bytes());
        let addresses = (0..size).map(|number| (address(number), owner(number))).collect();
        takeover.plan(&Plan { addresses, ..Plan::default() });
        let before = takeover.looked_at();
        let generation = takeover.generation();
        plan(&mut takeover, generation, Assignment::Owner(Scope::All));
        assert_eq!(takeover.looked_at() - before, 1, "one address is planned among {size}");
        let before = takeover.looked_at();
        live(&mut takeover, &["b"]);
        assert_eq!(takeover.looked_at() - before, u64::from(size / 10), "those of the node that died, of {size}");
    }
}

/// Something that happens to a node: its speaker changes an assignment, or other members come and go.
#[derive(Clone, Debug)]
enum Change {
    Assign(u8, Assignment),
    Live(u8),
}

fn change() -> impl Strategy<Value = Change> {
    let list = proptest::sample::subsequence(vec!["a", "b", "c"], 1..=3).prop_shuffle();
    let assignment = prop_oneof![
        Just(Assignment::Owner(Scope::All)),
        list.prop_map(|before| standby(&before)),
        Just(Assignment::GivenUp("a".into())),
        Just(Assignment::None),
    ];
    prop_oneof![
        3 => (0_u8..6, assignment).prop_map(|(last, assignment)| Change::Assign(last, assignment)),
        1 => (0_u8..8).prop_map(Change::Live),
    ]
}

fn members(bits: u8) -> BTreeSet<NodeName> {
    let others = ["a", "b", "c"].iter().enumerate().filter(|(place, _)| bits >> place & 1 == 1);
    others.map(|(_, &node)| node.into()).chain([ME.into()]).collect()
}

proptest! {
    /// However the differences are merged on their way, and whatever is live in between, the outcome is that of one
    /// plan with all assignments.
    #[test]
    fn differences_in_any_batches_equal_the_whole_plan(
        changes in proptest::collection::vec((change(), any::<bool>()), 1..60),
    ) {
        let mut takeover = Takeover::default();
        takeover.set_live(&members(7), &ME.into());
        let mut has: BTreeMap<IpAddr, Wanted> = BTreeMap::new();
        let (mut all, mut present) = (AddressChanges::new(), members(7));
        let mut waiting = Plan { generation: takeover.generation(), ..Plan::default() };
        for (change, arrives) in changes {
            match change {
                Change::Assign(last, assignment) => {
                    all.insert(ip(last), assignment.clone());
                    let generation = takeover.generation();
                    let addresses = [(ip(last), assignment)].into();
                    waiting.merge(Plan { addresses, generation, monitor: None, ranked: Some(generation) });
                }
                Change::Live(bits) => {
                    present = members(bits);
                    has.extend(takeover.set_live(&present, &ME.into()));
                }
            }
            if arrives {
                has.extend(takeover.plan(&std::mem::take(&mut waiting)));
                waiting.generation = takeover.generation();
            }
        }
        let generation = takeover.generation();
        waiting.merge(Plan { generation, ranked: Some(generation), ..Plan::default() });
        has.extend(takeover.plan(&waiting));
        let mut whole = Takeover::default();
        whole.set_live(&present, &ME.into());
        let generation = whole.generation();
        let addresses = all.clone();
        let expected = whole.plan(&Plan { addresses, generation, monitor: None, ranked: Some(generation) });
        for (ip, wanted) in expected {
            prop_assert_eq!(takeover.wanted(ip), wanted.clone());
            prop_assert_eq!(has.get(&ip), Some(&wanted), "it was reported");
        }
        prop_assert!(takeover.kept.is_empty());
    }
}
