//! A cluster with many Services.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use metallb_core::announcement::{Facts, Touched};
use metallb_core::config::Config;
use metallb_core::config::spec::{L2AdvertisementSpec, ObjectMeta, PoolSpec, Resources};
use metallb_core::election::LiveSpeakers;
use metallb_core::model::{Cluster, Endpoint, Ingress, Node, NodeName, Service, ServiceKey, TrafficPolicy};

/// The facts of a speaker.
pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) cluster: Cluster,
    pub(crate) live: LiveSpeakers,
    interfaces: BTreeSet<Arc<str>>,
}

pub(crate) fn node(index: usize) -> NodeName {
    format!("node-{index}").into()
}

pub(crate) fn key(number: u32) -> ServiceKey {
    ServiceKey::new("default", &format!("service-{number:05}"))
}

pub(crate) fn ip(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a01_0000 + number).into()
}

impl World {
    /// Services of the policy Cluster on these nodes. Every tenth one is of the policy Local, with its endpoint on the
    /// first node.
    pub(crate) fn new(services: u32, nodes: usize) -> Self {
        let meta = |name: &str| ObjectMeta::named("metallb-system", name);
        let pool = PoolSpec {
            meta: meta("pool"),
            addresses: vec!["10.1.0.0/16".to_owned()],
            auto_assign: true,
            avoid_buggy_ips: false,
            service_allocation: None,
        };
        let advertisement = L2AdvertisementSpec { meta: meta("all"), ..L2AdvertisementSpec::default() };
        let resources = Resources { pools: vec![pool], l2_advertisements: vec![advertisement], ..Resources::default() };
        let mut world = Self {
            config: Config::parse(&resources, &Cluster::default()).config,
            cluster: Cluster::default(),
            live: LiveSpeakers::Only((0..nodes).map(node).collect()),
            interfaces: BTreeSet::from(["eth0".into()]),
        };
        for index in 0..nodes {
            world.cluster.nodes.insert(node(index), Node::new(node(index).as_str()));
        }
        (0..services).for_each(|number| world.add(number));
        world
    }

    /// Creates a Service with its address.
    pub(crate) fn add(&mut self, number: u32) {
        let mut service = Service::load_balancer(key(number));
        service.ingress = vec![Ingress { ip: Some(ip(number).to_string()), hostname: None }];
        if number.is_multiple_of(10) {
            service.traffic_policy = TrafficPolicy::Local;
        }
        self.cluster.services.insert(service.key.clone(), service);
        self.serve(number, &[0]);
    }

    /// Replaces the endpoints of a Service by one on each of these nodes.
    pub(crate) fn serve(&mut self, number: u32, nodes: &[usize]) {
        let endpoint = |&index: &usize| Endpoint { node: Some(node(index)), ..Endpoint::default() };
        self.cluster.endpoints.insert(key(number), nodes.iter().map(endpoint).collect());
    }

    pub(crate) fn facts(&self) -> Facts<'_> {
        let Self { config, cluster, live, interfaces } = self;
        Facts { config, cluster, live: Some(live), interfaces }
    }
}

/// Everything that a start touches.
pub(crate) const START: Touched<'static> = Touched::Everything;
