//! Converts Kubernetes objects in JSON to the values of the crate, without Kubernetes types.

use metallb_core::config::spec::{
    BfdProfileSpec, BgpAdvertisementSpec, CommunitySpec, L2AdvertisementSpec, ObjectMeta, Password, PeerSpec, PoolSpec,
    Resources, SecretSpec, ServiceAllocationSpec,
};
use metallb_core::model::{
    Cluster, Endpoint, Ingress, IpFamily, IpFamilyPolicy, LabelSelector, Labels, Namespace, Node, Protocol,
    Requirement, Service, ServiceKey, ServicePort, ServiceType, Timestamp, TrafficPolicy,
};
use serde_json::Value;

/// The facts of a list of objects.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) resources: Resources,
    pub(crate) cluster: Cluster,
    /// Services as listed.
    pub(crate) order: Vec<ServiceKey>,
}

impl World {
    pub(crate) fn read(objects: &[Value]) -> Self {
        let mut world = Self::default();
        for object in objects {
            world.add(object);
        }
        world
    }

    fn add(&mut self, object: &Value) {
        let kind = text(&object["kind"]);
        let meta = meta(object);
        let spec = &object["spec"];
        let cluster = &mut self.cluster;
        match kind.as_str() {
            "Node" => {
                let mut node = Node::new(&meta.name);
                node.labels = meta.labels;
                node.network_unavailable = list(&object["status"]["conditions"])
                    .iter()
                    .any(|condition| condition["type"] == "NetworkUnavailable" && condition["status"] == "True");
                cluster.nodes.insert(node.name.clone(), node);
            }
            "Namespace" => {
                let namespace = Namespace { name: meta.name.as_str().into(), labels: meta.labels };
                cluster.namespaces.insert(namespace.name.clone(), namespace);
            }
            "Service" => {
                let service = service(object, meta);
                self.order.push(service.key.clone());
                cluster.services.insert(service.key.clone(), service);
            }
            "EndpointSlice" => {
                // A slice without a Service name is ignored.
                let Some(name) = meta.labels.get("kubernetes.io/service-name") else { return };
                let endpoints = cluster.endpoints.entry(ServiceKey::new(&meta.namespace, name)).or_default();
                endpoints.extend(list(&object["endpoints"]).iter().map(endpoint));
            }
            // Configuration in other namespaces is ignored.
            _ if meta.namespace != "metallb-system" => {}
            "IPAddressPool" => self.resources.pools.push(pool(spec, meta)),
            "L2Advertisement" => self.resources.l2_advertisements.push(l2_advertisement(spec, meta)),
            "BGPAdvertisement" => self.resources.bgp_advertisements.push(bgp_advertisement(spec, meta)),
            "BGPPeer" => self.resources.peers.push(peer(spec, meta)),
            "BFDProfile" => self.resources.bfd_profiles.push(bfd_profile(spec, meta)),
            "Community" => {
                let alias = |entry: &Value| (text(&entry["name"]), text(&entry["value"]));
                let communities = list(&spec["communities"]).iter().map(alias).collect();
                self.resources.communities.push(CommunitySpec { meta, communities });
            }
            "Secret" => self.resources.secrets.push(SecretSpec {
                meta,
                secret_type: text(&object["type"]),
                password: object["data"]["password"].as_str().map(|data| Password::new(data.to_owned())),
            }),
            other => panic!("a case holds an object of kind {other}"),
        }
    }
}

fn service(object: &Value, meta: ObjectMeta) -> Service {
    let spec = &object["spec"];
    let filled = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    let mut service = Service::load_balancer(ServiceKey::new(&meta.namespace, &meta.name));
    service.annotations = labels(&object["metadata"]["annotations"]);
    service.labels = meta.labels;
    service.created = meta.created;
    if spec["type"] != "LoadBalancer" {
        service.service_type = ServiceType::Other;
    }
    service.load_balancer_class = filled(&spec["loadBalancerClass"]);
    service.load_balancer_ip = filled(&spec["loadBalancerIP"]);
    service.cluster_ips = texts(&spec["clusterIPs"]);
    if service.cluster_ips.is_empty() {
        service.cluster_ips.extend(filled(&spec["clusterIP"]));
    }
    service.ip_families = texts(&spec["ipFamilies"])
        .iter()
        .map(|family| if family == "IPv4" { IpFamily::V4 } else { IpFamily::V6 })
        .collect();
    service.ip_family_policy = spec["ipFamilyPolicy"].as_str().map(|policy| match policy {
        "SingleStack" => IpFamilyPolicy::SingleStack,
        "PreferDualStack" => IpFamilyPolicy::PreferDualStack,
        "RequireDualStack" => IpFamilyPolicy::RequireDualStack,
        other => panic!("unknown policy {other}"),
    });
    if spec["externalTrafficPolicy"] == "Local" {
        service.traffic_policy = TrafficPolicy::Local;
    }
    service.selector = labels(&spec["selector"]);
    let port = |entry: &Value| ServicePort {
        protocol: match entry["protocol"].as_str() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        },
        port: u16::try_from(integer(&entry["port"]).unwrap()).unwrap(),
    };
    service.ports = list(&spec["ports"]).iter().map(port).collect();
    let ingress = |entry: &Value| Ingress { ip: filled(&entry["ip"]), hostname: filled(&entry["hostname"]) };
    service.ingress = list(&object["status"]["loadBalancer"]["ingress"]).iter().map(ingress).collect();
    service
}

fn endpoint(object: &Value) -> Endpoint {
    Endpoint {
        has_address: !list(&object["addresses"]).is_empty(),
        node: object["nodeName"].as_str().map(Into::into),
        ready: object["conditions"]["ready"].as_bool(),
        serving: object["conditions"]["serving"].as_bool(),
    }
}

fn pool(spec: &Value, meta: ObjectMeta) -> PoolSpec {
    let allocation = &spec["serviceAllocation"];
    PoolSpec {
        meta,
        addresses: texts(&spec["addresses"]),
        auto_assign: spec["autoAssign"].as_bool().unwrap_or(true),
        avoid_buggy_ips: truth(&spec["avoidBuggyIPs"]),
        service_allocation: allocation.is_object().then(|| ServiceAllocationSpec {
            priority: integer(&allocation["priority"]).unwrap_or(0),
            namespaces: texts(&allocation["namespaces"]),
            namespace_selectors: selectors(&allocation["namespaceSelectors"]),
            service_selectors: selectors(&allocation["serviceSelectors"]),
        }),
    }
}

fn l2_advertisement(spec: &Value, meta: ObjectMeta) -> L2AdvertisementSpec {
    let preference = |entry: &Value| (integer(&entry["weight"]).unwrap_or(0), selector(&entry["preference"]));
    L2AdvertisementSpec {
        meta,
        pools: texts(&spec["ipAddressPools"]),
        pool_selectors: selectors(&spec["ipAddressPoolSelectors"]),
        node_selectors: selectors(&spec["nodeSelectors"]),
        service_selectors: selectors(&spec["serviceSelectors"]),
        interfaces: texts(&spec["interfaces"]),
        preferences: list(&spec["preferredNodeSelectors"]).iter().map(preference).collect(),
    }
}

fn bgp_advertisement(spec: &Value, meta: ObjectMeta) -> BgpAdvertisementSpec {
    BgpAdvertisementSpec {
        meta,
        aggregation_length: integer(&spec["aggregationLength"]).unwrap_or(32),
        aggregation_length_v6: integer(&spec["aggregationLengthV6"]).unwrap_or(128),
        local_pref: integer(&spec["localPref"]).unwrap_or(0),
        communities: texts(&spec["communities"]),
        pools: texts(&spec["ipAddressPools"]),
        pool_selectors: selectors(&spec["ipAddressPoolSelectors"]),
        node_selectors: selectors(&spec["nodeSelectors"]),
        peers: texts(&spec["peers"]),
        service_selectors: selectors(&spec["serviceSelectors"]),
    }
}

fn peer(spec: &Value, meta: ObjectMeta) -> PeerSpec {
    let optional = |key: &str| spec[key].as_str().map(ToOwned::to_owned);
    PeerSpec {
        meta,
        my_asn: integer(&spec["myASN"]).unwrap_or(0),
        peer_asn: integer(&spec["peerASN"]).unwrap_or(0),
        dynamic_asn: text(&spec["dynamicASN"]),
        local_asn: integer(&spec["localASN"]).unwrap_or(0),
        address: text(&spec["peerAddress"]),
        interface: text(&spec["interface"]),
        source_address: text(&spec["sourceAddress"]),
        port: integer(&spec["peerPort"]).unwrap_or(0),
        hold_time: optional("holdTime"),
        keepalive_time: optional("keepaliveTime"),
        connect_time: optional("connectTime"),
        router_id: text(&spec["routerID"]),
        node_selectors: selectors(&spec["nodeSelectors"]),
        password: Password::new(text(&spec["password"])),
        password_secret: text(&spec["passwordSecret"]["name"]),
        bfd_profile: text(&spec["bfdProfile"]),
        graceful_restart: truth(&spec["enableGracefulRestart"]),
        ebgp_multihop: truth(&spec["ebgpMultiHop"]),
        vrf: text(&spec["vrf"]),
        disable_mp: truth(&spec["disableMP"]),
        dual_stack: truth(&spec["dualStackAddressFamily"]),
    }
}

fn bfd_profile(spec: &Value, meta: ObjectMeta) -> BfdProfileSpec {
    BfdProfileSpec {
        meta,
        receive_interval: integer(&spec["receiveInterval"]),
        transmit_interval: integer(&spec["transmitInterval"]),
        detect_multiplier: integer(&spec["detectMultiplier"]),
        echo_interval: integer(&spec["echoInterval"]),
        echo_mode: truth(&spec["echoMode"]),
        passive_mode: truth(&spec["passiveMode"]),
        minimum_ttl: integer(&spec["minimumTtl"]),
    }
}

fn meta(object: &Value) -> ObjectMeta {
    let metadata = &object["metadata"];
    ObjectMeta {
        namespace: text(&metadata["namespace"]),
        name: text(&metadata["name"]),
        labels: labels(&metadata["labels"]),
        annotations: labels(&metadata["annotations"]),
        created: metadata["creationTimestamp"].as_str().map(created),
        uid: metadata["uid"].as_str().map(Into::into),
    }
}

fn selectors(value: &Value) -> Vec<LabelSelector> {
    list(value).iter().map(selector).collect()
}

fn selector(value: &Value) -> LabelSelector {
    let requirement = |entry: &Value| Requirement {
        key: text(&entry["key"]),
        operator: text(&entry["operator"]),
        values: texts(&entry["values"]),
    };
    LabelSelector {
        match_labels: labels(&value["matchLabels"]),
        match_expressions: list(&value["matchExpressions"]).iter().map(requirement).collect(),
    }
}

fn labels(value: &Value) -> Labels {
    value.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), text(value))).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn texts(value: &Value) -> Vec<String> {
    list(value).iter().map(text).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn integer(value: &Value) -> Option<i64> {
    value.as_i64()
}

fn truth(value: &Value) -> bool {
    value.as_bool().unwrap_or(false)
}

/// The digits of an RFC 3339 text as one number. It orders as the instants do, and that is all that decisions use.
fn created(text: &str) -> Timestamp {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    Timestamp::from_unix(digits.parse().unwrap())
}
