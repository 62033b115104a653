//! A view that follows changes step by step has what a view that sees everything at once has, and looks only at what
//! changed.

use proptest::prelude::*;

use super::*;
use crate::config::spec::{BgpAdvertisementSpec, L2AdvertisementSpec, ObjectMeta, PeerSpec, PoolSpec, Resources};
use crate::model::{EXCLUDE_LABEL, Endpoint, Ingress, LabelSelector, Labels, Namespace, TrafficPolicy};
use crate::plan::{Plan, PlanOptions, plan};

/// A cluster as it is now.
#[derive(Clone)]
struct World {
    resources: Resources,
    config: Config,
    cluster: Cluster,
    live: LiveSpeakers,
    interfaces: BTreeSet<Arc<str>>,
}

/// A change of the cluster.
#[derive(Clone, Debug)]
enum Change {
    Service(u8, ServiceState),
    Endpoints(u8, Vec<(u8, bool)>),
    NodeLabels(u8, u8, bool, bool),
    NodeGone(u8),
    Live(u8),
    L2(u8, Option<(u8, u8, u8)>),
    Bgp(u8, Option<(u8, u8, bool)>),
    Peer(bool),
    NamespaceLabel(u8),
    Interfaces(u8),
}

/// A Service; `None` where it is deleted.
type ServiceState = Option<(Vec<u8>, bool, u8, bool, u8)>;

/// More nodes than an election remembers.
const NODES: u8 = 7;
const FEW: u8 = 4;
const SERVICES: u8 = 5;

fn node(index: u8) -> NodeName {
    format!("node-{index}").into()
}

fn key(index: u8) -> ServiceKey {
    ServiceKey::new("default", &format!("s{index}"))
}

fn label(key: &str, value: u8) -> Labels {
    Labels::from([(key.to_owned(), value.to_string())])
}

fn selector(key: &str, value: u8) -> Vec<LabelSelector> {
    // Zero selects everything.
    let selector = || LabelSelector { match_labels: label(key, value), match_expressions: Vec::new() };
    (value != 0).then(selector).into_iter().collect()
}

fn meta(name: String) -> ObjectMeta {
    ObjectMeta { namespace: "metallb-system".to_owned(), name, ..ObjectMeta::default() }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, last / 128, last])
}

fn pool(index: u8) -> PoolSpec {
    PoolSpec {
        meta: meta(format!("pool-{index}")),
        addresses: vec![format!("10.0.{index}.0/24")],
        auto_assign: true,
        avoid_buggy_ips: false,
        service_allocation: None,
    }
}

impl World {
    fn new(nodes: u8) -> Self {
        let mut world = Self {
            resources: Resources { pools: vec![pool(0), pool(1)], ..Resources::default() },
            config: Config::default(),
            cluster: Cluster::default(),
            live: LiveSpeakers::Only((0..nodes).map(node).collect()),
            interfaces: BTreeSet::from(["eth1".into()]),
        };
        for index in 0..nodes {
            world.cluster.nodes.insert(node(index), Node::new(node(index).as_str()));
        }
        world.change(&Change::L2(0, Some((0, 0, 0))));
        world
    }

    /// Makes a change; says what is touched.
    fn change(&mut self, change: &Change) -> (bool, BTreeSet<ServiceKey>) {
        let configuration = (true, BTreeSet::new());
        let touched = match change {
            Change::Service(index, state) => {
                self.cluster.services.remove(&key(*index));
                if let Some((ips, local, app, shares, age)) = state {
                    let mut service = Service::load_balancer(key(*index));
                    service.labels = label("app", *app);
                    service.created = (*age > 0).then(|| crate::model::Timestamp::from_unix((*age).into()));
                    service.traffic_policy = if *local { TrafficPolicy::Local } else { TrafficPolicy::Cluster };
                    if *shares {
                        service.annotations.insert("metallb.io/allow-shared-ip".to_owned(), "key".to_owned());
                    }
                    let ingress = |&last: &u8| Ingress { ip: Some(ip(last).to_string()), hostname: None };
                    service.ingress = ips.iter().map(ingress).collect();
                    self.cluster.services.insert(key(*index), service);
                }
                return (false, BTreeSet::from([key(*index)]));
            }
            Change::Endpoints(index, on) => {
                let endpoint = |&(on, ready): &(u8, bool)| Endpoint {
                    has_address: true,
                    node: Some(node(on)),
                    ready: Some(ready),
                    serving: None,
                };
                self.cluster.endpoints.insert(key(*index), on.iter().map(endpoint).collect());
                return (false, BTreeSet::from([key(*index)]));
            }
            Change::NodeLabels(index, rack, excluded, unavailable) => {
                let mut changed = Node::new(node(*index).as_str());
                changed.labels = label("rack", *rack);
                if *excluded {
                    changed.labels.insert(EXCLUDE_LABEL.to_owned(), String::new());
                }
                changed.network_unavailable = *unavailable;
                changed.addresses = BTreeSet::from([IpAddr::from([192, 168, 0, *index])]);
                self.cluster.nodes.insert(node(*index), changed);
                configuration
            }
            Change::NodeGone(index) => {
                self.cluster.nodes.remove(&node(*index));
                configuration
            }
            Change::Live(bits) => {
                let live = (0..NODES).filter(|index| bits >> index & 1 == 1).map(node);
                self.live = LiveSpeakers::Only(live.collect());
                return (false, BTreeSet::new());
            }
            Change::L2(index, state) => {
                let name = format!("l2-{index}");
                self.resources.l2_advertisements.retain(|ad| ad.meta.name != name);
                self.resources.l2_advertisements.extend(state.map(|(rack, app, interface)| L2AdvertisementSpec {
                    meta: meta(name),
                    node_selectors: selector("rack", rack),
                    service_selectors: selector("app", app),
                    interfaces: (interface > 0).then(|| format!("eth{interface}")).into_iter().collect(),
                    pools: (*index > 0).then(|| "pool-1".to_owned()).into_iter().collect(),
                    ..L2AdvertisementSpec::default()
                }));
                configuration
            }
            Change::Bgp(index, state) => {
                let name = format!("bgp-{index}");
                self.resources.bgp_advertisements.retain(|ad| ad.meta.name != name);
                self.resources.bgp_advertisements.extend(state.map(|(rack, app, aggregates)| BgpAdvertisementSpec {
                    meta: meta(name),
                    aggregation_length: if aggregates { 28 } else { 32 },
                    aggregation_length_v6: 128,
                    communities: vec![format!("64512:{index}")],
                    node_selectors: selector("rack", rack),
                    service_selectors: selector("app", app),
                    ..bgp_advertisement()
                }));
                configuration
            }
            Change::Peer(there) => {
                let peer = || PeerSpec {
                    meta: meta("tor".to_owned()),
                    my_asn: 64512,
                    peer_asn: 64513,
                    address: "192.0.2.1".to_owned(),
                    ..PeerSpec::default()
                };
                self.resources.peers = there.then(peer).into_iter().collect();
                configuration
            }
            Change::NamespaceLabel(value) => {
                let namespace = Namespace { name: "default".into(), labels: label("team", *value) };
                self.cluster.namespaces.insert("default".into(), namespace);
                configuration
            }
            Change::Interfaces(number) => {
                self.interfaces = BTreeSet::from([format!("eth{number}").as_str().into()]);
                return (false, BTreeSet::new());
            }
        };
        self.config = Config::parse(&self.resources, &self.cluster).config;
        touched
    }

    fn facts(&self) -> Facts<'_> {
        let Self { config, cluster, live, interfaces, .. } = self;
        Facts { config, cluster, live: Some(live), interfaces }
    }

    fn plan(&self) -> Plan {
        let rules = ElectionRules { live: self.live.clone(), exclude_label: ExcludeLabel::Honoured };
        let order: Vec<ServiceKey> = self.cluster.services.keys().cloned().collect();
        plan(&self.resources, &self.cluster, &order, &PlanOptions { rules, ..PlanOptions::default() })
    }
}

fn bgp_advertisement() -> BgpAdvertisementSpec {
    BgpAdvertisementSpec {
        meta: ObjectMeta::default(),
        aggregation_length: 32,
        aggregation_length_v6: 128,
        local_pref: 0,
        communities: Vec::new(),
        pools: Vec::new(),
        pool_selectors: Vec::new(),
        node_selectors: Vec::new(),
        peers: Vec::new(),
        service_selectors: Vec::new(),
    }
}

/// The state of a view, with the routes that its peers learned.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    assignments: BTreeMap<IpAddr, Assignment>,
    monitor: BTreeSet<NodeName>,
    announced: Announced,
    routes: BTreeMap<PeerName, RouteTable>,
    probed: BTreeSet<IpAddr>,
}

impl Outcome {
    fn follow(&mut self, changes: AddressChanges) {
        for (ip, assignment) in changes {
            match assignment {
                Assignment::None => assert!(self.assignments.remove(&ip).is_some(), "{ip} had no assignment"),
                now => assert_ne!(self.assignments.insert(ip, now.clone()), Some(now), "{ip} has it already"),
            }
        }
    }

    /// The addresses that the node answers for.
    fn owned(&self) -> BTreeMap<IpAddr, Scope> {
        let owned = |(ip, assignment): (&IpAddr, &Assignment)| match assignment {
            Assignment::Owner(scope) => Some((*ip, scope.clone())),
            _ => None,
        };
        self.assignments.iter().filter_map(owned).collect()
    }
}

/// A view with what its updates led to.
struct Follower {
    view: NodeView,
    outcome: Outcome,
}

impl Follower {
    fn new(index: u8) -> Self {
        Self { view: NodeView::new(node(index), Options::default()), outcome: Outcome::default() }
    }

    /// A step, with the nodes to monitor after it.
    fn step(&mut self, world: &World, touched: Touched<'_>) -> Update {
        let update = self.apply(world, touched);
        self.monitor();
        update
    }

    fn monitor(&mut self) {
        let ranked = self.view.monitor();
        self.outcome.follow(ranked.addresses);
        if let Some(nodes) = ranked.monitor {
            self.outcome.monitor = nodes;
        }
    }

    fn apply(&mut self, world: &World, touched: Touched<'_>) -> Update {
        let update = self.view.apply(world.facts(), touched);
        self.outcome.follow(update.addresses.clone());
        for (peer, changes) in &update.routes {
            let told = self.outcome.routes.entry(peer.clone()).or_default();
            for (prefix, route) in changes {
                match route {
                    Some(route) => drop(told.insert(*prefix, route.clone())),
                    None => drop(told.remove(prefix)),
                }
            }
        }
        self.outcome.routes.retain(|_, routes| !routes.is_empty());
        self.outcome.announced = self.view.announced().clone();
        self.outcome.probed.extend(update.probe.iter().copied());
        update
    }
}

fn change() -> impl Strategy<Value = Change> {
    let ips = proptest::sample::subsequence(vec![1_u8, 2, 129, 130], 0..=2);
    let service = (ips, any::<bool>(), 0_u8..3, any::<bool>(), 0_u8..4);
    let (service, rarely) = (proptest::option::weighted(0.85, service), proptest::bool::weighted(0.15));
    prop_oneof![
        4 => (0..SERVICES, service).prop_map(|(index, state)| Change::Service(index, state)),
        4 => (0..SERVICES, proptest::collection::vec((0..NODES, any::<bool>()), 0..4))
            .prop_map(|(index, on)| Change::Endpoints(index, on)),
        2 => (0..NODES, 0_u8..3, rarely, rarely)
            .prop_map(|(index, rack, excluded, lost)| Change::NodeLabels(index, rack, excluded, lost)),
        1 => (0..NODES).prop_map(Change::NodeGone),
        3 => (0_u8..128).prop_map(Change::Live),
        2 => (0_u8..2, proptest::option::weighted(0.8, (0_u8..3, 0_u8..3, 0_u8..3)))
            .prop_map(|(index, state)| Change::L2(index, state)),
        1 => (0_u8..2, proptest::option::weighted(0.8, (0_u8..3, 0_u8..3, any::<bool>())))
            .prop_map(|(index, state)| Change::Bgp(index, state)),
        1 => any::<bool>().prop_map(Change::Peer),
        1 => (0_u8..3).prop_map(Change::NamespaceLabel),
        1 => (1_u8..3).prop_map(Change::Interfaces),
    ]
}

proptest! {
    /// Every change is taken in as narrowly as a speaker would, and the outcome is that of a view that never saw
    /// anything else. The views of all nodes together are what the plan says.
    #[test]
    fn view_that_follows_changes_equals_one_that_sees_everything_at_once(
        changes in proptest::collection::vec((change(), proptest::bool::weighted(0.3)), 1..40),
    ) {
        let mut world = World::new(NODES);
        let mut followers: Vec<Follower> = (0..NODES).map(Follower::new).collect();
        followers.iter_mut().for_each(|follower| drop(follower.step(&world, Touched::Everything)));
        for (change, monitors) in &changes {
            let before = world.live.clone();
            let (configuration, services) = world.change(change);
            let touched = match configuration {
                true => Touched::Configuration(&services),
                false if world.live != before => Touched::Live,
                false => Touched::Services(&services),
            };
            let plan = world.plan();
            for (index, follower) in (0..NODES).zip(&mut followers) {
                follower.apply(&world, touched);
                let mut fresh = Follower::new(index);
                fresh.apply(&world, Touched::Everything);
                // Where the other nodes are not ranked, the nodes to monitor are those of an earlier step.
                if *monitors {
                    follower.monitor();
                    fresh.monitor();
                } else {
                    fresh.outcome.monitor.clone_from(&follower.outcome.monitor);
                }
                // A node remembers the addresses that it gave up; a new view does not know them.
                let assignments = follower.outcome.assignments.clone();
                let probed = std::mem::take(&mut follower.outcome.probed);
                for outcome in [&mut follower.outcome, &mut fresh.outcome] {
                    outcome.assignments.retain(|_, assignment| match assignment {
                        Assignment::Owner(_) => true,
                        Assignment::Standby(..) => *monitors,
                        Assignment::GivenUp(_) | Assignment::None => false,
                    });
                }
                prop_assert_eq!(&follower.outcome, &fresh.outcome, "node-{} after {:?}", index, change);
                prop_assert!(probed.iter().all(|ip| fresh.outcome.owned().contains_key(ip)));
                follower.outcome.assignments = assignments;
                agree(&plan, &world, &node(index), &follower.outcome, *monitors)?;
                let expected = follower.view.hand_over(&world.cluster.nodes);
                prop_assert!(expected.values().all(|owner| *owner != node(index)));
            }
        }
    }
}

proptest! {
    /// A standby says what a new election would say when nodes before this one fail, in whatever combination.
    #[test]
    fn standby_takes_an_address_over_exactly_when_a_new_election_gives_it_to_the_node(
        changes in proptest::collection::vec(change(), 1..30),
    ) {
        let mut world = World::new(NODES);
        let mut followers: Vec<Follower> = (0..NODES).map(Follower::new).collect();
        followers.iter_mut().for_each(|follower| drop(follower.step(&world, Touched::Everything)));
        for change in &changes {
            let before = world.live.clone();
            let (configuration, services) = world.change(change);
            let touched = match configuration {
                true => Touched::Configuration(&services),
                false if world.live != before => Touched::Live,
                false => Touched::Services(&services),
            };
            followers.iter_mut().for_each(|follower| drop(follower.step(&world, touched)));
        }
        let LiveSpeakers::Only(live) = world.live.clone() else { unreachable!("the world names its nodes") };
        for (index, follower) in (0..NODES).zip(&followers) {
            for (ip, assignment) in &follower.outcome.assignments {
                let Assignment::Standby(scope, before) = assignment else { continue };
                prop_assert!(before.iter().all(|node| follower.outcome.monitor.contains(node)));
                for left_out in 0..=before.len() {
                    let dead = before.iter().enumerate().filter(|(place, _)| *place != left_out);
                    let dead: BTreeSet<NodeName> = dead.map(|(_, node)| node.clone()).collect();
                    world.live = LiveSpeakers::Only(live.difference(&dead).cloned().collect());
                    let mut fresh = Follower::new(index);
                    fresh.apply(&world, Touched::Everything);
                    let expected = (left_out == before.len()).then(|| scope.clone());
                    prop_assert_eq!(fresh.outcome.owned().get(ip).cloned(), expected, "{} without {:?}", ip, dead);
                }
            }
        }
    }
}

/// The owners that a plan names for an address.
fn ip_owners(plan: &Plan, ip: IpAddr) -> impl Iterator<Item = Option<&NodeName>> {
    let of_ip = plan.services.iter().flat_map(|service| &service.l2).filter(move |l2| l2.ip == ip);
    of_ip.map(|l2| l2.node.as_ref())
}

/// Whether a node announces what the plan says of it.
fn agree(plan: &Plan, world: &World, me: &NodeName, outcome: &Outcome, is_ranked: bool) -> Result<(), TestCaseError> {
    // A plan also decides who keeps an address; here only Services count for which it leaves everything as it is.
    let kept = |service: &&crate::plan::ServicePlan| {
        world.cluster.services[&service.key].status_ips().unwrap_or_default() == service.ips
    };
    if !plan.services.iter().all(|service| kept(&service)) {
        return Ok(());
    }
    for (ip, assignment) in &outcome.assignments {
        let owner = match assignment {
            Assignment::GivenUp(owner) => owner,
            Assignment::Standby(_, before) if is_ranked => &before[0],
            _ => continue,
        };
        prop_assert!(ip_owners(plan, *ip).any(|node| node == Some(owner)), "{} {:?}", ip, owner);
    }
    for service in &plan.services {
        let answers = service.l2.iter().any(|l2| l2.node.as_ref() == Some(me));
        let announced = outcome.announced.l2.get(&service.key);
        prop_assert_eq!(announced.is_some(), answers, "{} {}", me, &service.key);
        if let (Some(announced), Some(l2)) = (announced, service.l2.first()) {
            prop_assert_eq!(&announced.interfaces, &l2.interfaces);
        }
        let peers: BTreeSet<&PeerName> =
            service.bgp.iter().filter(|route| route.node == *me).map(|route| &route.peer).collect();
        let offered: BTreeSet<&PeerName> =
            outcome.announced.bgp.get(&service.key).into_iter().flat_map(|(_, peers)| peers.iter()).collect();
        prop_assert_eq!(offered, peers);
    }
    Ok(())
}

/// 120 Services, every second one with the policy Local, on four nodes.
fn large() -> (World, Follower) {
    let mut world = World::new(FEW);
    for index in 0..120_u8 {
        let ips = vec![index];
        world.change(&Change::Service(index, Some((ips, index.is_multiple_of(2), 1, false, 1))));
        world.change(&Change::Endpoints(index, vec![(index % FEW, true)]));
    }
    let mut follower = Follower::new(0);
    follower.step(&world, Touched::Everything);
    (world, follower)
}

#[test]
fn step_reads_and_elects_only_what_changed() {
    let flip = |ready| vec![(0, ready), (1, true)];
    let relabelled = |app| Change::Service(7, Some((vec![7], false, app, false, 1)));
    // Each changed address is looked at twice: by the step, and after the ranking.
    let rows: [(&str, Change, u64, u64, u64); 8] = [
        ("an endpoint more on another node, policy Cluster", Change::Endpoints(7, flip(true)), 1, 0, 0),
        ("an endpoint more on another node, policy Local", Change::Endpoints(8, flip(true)), 1, 1, 2),
        ("a Service label that no advertisement reads", relabelled(2), 1, 0, 0),
        ("another address", Change::Service(7, Some((vec![127], false, 1, false, 1))), 1, 1, 4),
        ("a Node label that no advertisement reads", Change::NodeLabels(1, 1, false, false), 0, 0, 0),
        ("a Namespace label that no pool reads", Change::NamespaceLabel(1), 0, 0, 0),
        ("a Service that is gone", Change::Service(7, None), 0, 0, 2),
        // Its 30 local Services have no candidate left. The other nodes were ranked for all others already; the 60
        // Services of the policy Cluster lose a successor.
        ("a node that is excluded", Change::NodeLabels(3, 0, true, false), 0, 0, 120),
    ];
    for (what, change, services, elections, addresses) in rows {
        let (mut world, mut follower) = large();
        let before = follower.view.work();
        let (configuration, touched) = world.change(&change);
        let touched = match configuration {
            true => Touched::Configuration(&touched),
            false => Touched::Services(&touched),
        };
        follower.step(&world, touched);
        let after = follower.view.work();
        let work = (
            after.services_read - before.services_read,
            after.elections - before.elections,
            after.addresses_read - before.addresses_read,
        );
        assert_eq!(work, (services, elections, addresses), "{what}");
    }
}

#[test]
fn address_is_probed_when_no_service_had_it_and_never_at_the_first_step() {
    let mut world = World::new(FEW);
    world.live = LiveSpeakers::Only(BTreeSet::from([node(0)]));
    world.change(&Change::Endpoints(0, vec![(0, true)]));
    world.change(&Change::Endpoints(1, vec![(0, true)]));
    let mut follower = Follower::new(0);
    let state = |ips: &[u8]| Some((ips.to_vec(), false, 1, false, 1));
    let mut step = |changes: &[(u8, ServiceState)]| {
        let mut touched = BTreeSet::new();
        for (service, state) in changes {
            touched.extend(world.change(&Change::Service(*service, state.clone())).1);
        }
        let first = !follower.view.announced().l2.contains_key(&key(0)) && touched.len() == 1 && changes[0].0 == 0;
        let touched = if first { Touched::Everything } else { Touched::Services(&touched) };
        follower.step(&world, touched).probe
    };
    assert_eq!(step(&[(0, state(&[1]))]), BTreeSet::new(), "the first step");
    assert_eq!(step(&[(1, state(&[2]))]), BTreeSet::from([ip(2)]));
    assert_eq!(step(&[(1, state(&[2]))]), BTreeSet::new());
    assert_eq!(step(&[(1, None), (0, state(&[1, 2]))]), BTreeSet::new(), "it passes from one Service to another");
    assert_eq!(step(&[(0, state(&[1]))]), BTreeSet::new());
    assert_eq!(step(&[(0, state(&[1, 2]))]), BTreeSet::from([ip(2)]), "it was free in between");
}

#[test]
fn address_that_moves_to_another_node_is_handed_over_to_its_owner() {
    let mut world = World::new(FEW);
    world.change(&Change::Service(0, Some((vec![1], false, 1, false, 1))));
    world.change(&Change::Endpoints(0, vec![(0, true)]));
    let owner = (0..NODES).find(|&index| {
        let mut follower = Follower::new(index);
        follower.step(&world, Touched::Everything);
        !follower.outcome.owned().is_empty()
    });
    let mut follower = Follower::new(owner.unwrap());
    follower.step(&world, Touched::Everything);
    assert!(follower.outcome.monitor.is_empty(), "no node comes before the owner");
    let next = follower.view.hand_over(&world.cluster.nodes)[&ip(1)].clone();
    let (_, touched) = world.change(&Change::NodeLabels(owner.unwrap(), 0, true, false));
    let update = follower.step(&world, Touched::Configuration(&touched));
    assert_eq!(update.addresses, BTreeMap::from([(ip(1), Assignment::GivenUp(next))]));
    let withdrawn = Transition { service: key(0), kind: TransitionKind::Withdrawn(Protocol::Layer2) };
    assert_eq!(update.transitions, [withdrawn]);
    let (_, touched) = world.change(&Change::Service(0, None));
    let update = follower.step(&world, Touched::Services(&touched));
    assert_eq!(update.addresses, BTreeMap::from([(ip(1), Assignment::None)]), "nothing is left to hand over");
}

#[test]
fn address_of_a_node_that_is_gone_moves_though_no_node_asked_whom_to_monitor() {
    let mut world = World::new(NODES);
    world.change(&Change::Service(0, Some((vec![1], false, 1, false, 1))));
    world.change(&Change::Endpoints(0, (0..NODES).map(|index| (index, true)).collect()));
    let options = || Options { class: None, exclude_label: ExcludeLabel::Honoured };
    let mut views: Vec<NodeView> = (0..NODES).map(|index| NodeView::new(node(index), options())).collect();
    let owners = |views: &mut [NodeView], world: &World| -> Vec<usize> {
        let World { config, cluster, live, interfaces, .. } = world;
        let answers = |view: &mut NodeView| {
            let update = view.apply(Facts { config, cluster, live: Some(live), interfaces }, Touched::Everything);
            update.addresses.values().any(|assignment| matches!(assignment, Assignment::Owner(_)))
        };
        views.iter_mut().enumerate().filter_map(|(index, view)| answers(view).then_some(index)).collect()
    };
    let before = owners(&mut views, &world);
    assert_eq!(before.len(), 1);
    world.change(&Change::NodeGone(u8::try_from(before[0]).unwrap()));
    let after = owners(&mut views, &world);
    assert_eq!(after.len(), 1, "one of the others answers");
    assert_ne!(after, before);
}

#[test]
fn interface_that_appears_ends_a_failure() {
    let mut world = World::new(FEW);
    world.live = LiveSpeakers::Only(BTreeSet::from([node(0)]));
    world.change(&Change::L2(0, Some((0, 0, 2))));
    world.change(&Change::Service(0, Some((vec![1], false, 1, false, 1))));
    world.change(&Change::Endpoints(0, vec![(0, true)]));
    let mut follower = Follower::new(0);
    let kinds = |update: Update| update.transitions.into_iter().map(|transition| transition.kind).collect::<Vec<_>>();
    let update = follower.step(&world, Touched::Everything);
    assert_eq!(kinds(update), [TransitionKind::Announcing(Protocol::Layer2), TransitionKind::Failed(ip(1))]);
    world.change(&Change::Interfaces(2));
    let update = follower.step(&world, Touched::Services(&BTreeSet::new()));
    assert_eq!(update.changes.len(), 1, "it has not failed any longer");
    assert_eq!(kinds(update), []);
    world.change(&Change::Interfaces(1));
    let update = follower.step(&world, Touched::Services(&BTreeSet::new()));
    assert_eq!(kinds(update), [TransitionKind::Failed(ip(1))]);
}

#[test]
fn node_that_becomes_live_announces_although_the_others_were_never_ranked() {
    let mut world = World::new(NODES);
    world.change(&Change::Service(0, Some((vec![1], false, 1, false, 1))));
    world.change(&Change::Endpoints(0, vec![(0, true)]));
    let mut owners = 0;
    for index in 0..NODES {
        let mut follower = Follower::new(index);
        let all = world.live.clone();
        world.live = LiveSpeakers::Only((0..NODES).filter(|other| *other != index).map(node).collect());
        follower.apply(&world, Touched::Everything);
        assert!(follower.view.announced().l2.is_empty(), "node-{index} is not live");
        world.live = all;
        follower.apply(&world, Touched::Live);
        owners += follower.view.announced().l2.len();
    }
    assert_eq!(owners, 1);
}
