use super::*;

fn read(text: &str) -> (World, Vec<Problem>, Manifests) {
    let mut manifests = Manifests::default();
    manifests.parse(text, "test.yaml");
    let (world, problems) = manifests.world();
    (world, problems, manifests)
}

fn pool(name: &str) -> String {
    format!(
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {{name: {name}}}\n\
         spec: {{addresses: [10.0.0.0/24]}}\n"
    )
}

#[test]
fn broken_document_is_reported_with_its_number_and_line_and_the_rest_is_read() {
    let text = format!("{}---\nkind: [\n---\n# only a comment\n---\n{}", pool("a"), pool("b"));
    let (world, problems, _) = read(&text);
    assert_eq!(world.resources.pools.iter().map(|pool| pool.meta.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("document 2"), "{}", problems[0].message);
    assert!(
        problems[0].message.contains("line 6") || problems[0].message.contains("line 7"),
        "{}",
        problems[0].message
    );
}

#[test]
fn object_of_the_wrong_shape_is_reported_by_name_and_the_rest_is_read() {
    let broken = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: 80}\n";
    let (world, problems, _) = read(&format!("{broken}---\n{}", pool("a")));
    assert_eq!(world.resources.pools.len(), 1);
    assert!(problems[0].message.contains("test.yaml: document 1"), "{}", problems[0].message);
    assert_eq!(problems[0].object.to_string(), "Service/default/web");
}

#[test]
fn field_without_a_value_is_as_one_that_is_not_there() {
    let written = |kind: &str, version: &str, spec: &str| {
        read(&format!("apiVersion: metallb.io/{version}\nkind: {kind}\nmetadata: {{name: it}}\nspec:\n  {spec}\n"))
    };
    let rows = [
        (
            "IPAddressPool",
            "v1beta1",
            "addresses: [10.0.0.0/24]",
            &["autoAssign", "avoidBuggyIPs", "serviceAllocation"][..],
        ),
        ("BGPAdvertisement", "v1beta1", "localPref: 7", &["aggregationLength", "aggregationLengthV6", "peers"]),
        ("BGPPeer", "v1beta2", "myASN: 1", &["disableMP", "dualStackAddressFamily", "holdTime", "passwordSecret"]),
    ];
    for (kind, version, spec, fields) in rows {
        let (plain, problems, _) = written(kind, version, spec);
        assert_eq!(problems, []);
        for field in fields {
            let (world, problems, _) = written(kind, version, &format!("{spec}\n  {field}:"));
            assert_eq!((world.resources, problems), (plain.resources.clone(), vec![]), "{kind} {field}");
        }
    }
    let (_, problems, _) = written("IPAddressPool", "v1beta1", "addresses: [null]");
    assert_eq!(problems.len(), 1, "an entry of a list is not a field");
}

#[test]
fn lists_typed_or_not_and_json_documents_in_a_row_are_unfolded() {
    let items = r#"{"kind":"List","apiVersion":"v1","items":[
            {"kind":"Node","apiVersion":"v1","metadata":{"name":"n1"}}]}
        {"kind":"NodeList","apiVersion":"v1","items":[{"metadata":{"name":"n2"}},{"metadata":{}}]}
        {"kind":"Pod","apiVersion":"v1","metadata":{"name":"p"}} {"kind""#;
    let (world, problems, manifests) = read(items);
    assert_eq!(world.cluster.nodes.keys().map(ToString::to_string).collect::<Vec<_>>(), ["n1", "n2"]);
    assert_eq!(manifests.skipped(), &BTreeMap::from([("Pod".to_owned(), 1)]));
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(problems.len(), 2, "{messages:?}");
    assert!(
        messages.iter().any(|text| text.contains("document 2, item 2, line 3: an object without metadata.name")),
        "{messages:?}"
    );
    assert!(messages.iter().any(|text| text.contains("document 4, line 4")), "{messages:?}");
}

#[test]
fn change_replaces_in_place_keeps_the_status_and_deletes_by_name() {
    let service = |ip: &str, status: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\n\
             spec: {{type: LoadBalancer, loadBalancerIP: {ip}}}\n{status}"
        )
    };
    let held = "status: {loadBalancer: {ingress: [{ip: 10.0.0.7}]}}\n";
    let (_, _, mut manifests) = read(&format!("{}---\n{}", service("10.0.0.7", held), pool("a")));
    let mut change = Manifests::default();
    change.parse(&format!("{}---\n{}", service("10.0.0.9", ""), pool("b")), "change.yaml");
    manifests.apply(change);
    assert!(manifests.delete(&"IPAddressPool/metallb-system/a".parse().unwrap()));
    assert!(!manifests.delete(&"IPAddressPool/metallb-system/a".parse().unwrap()));

    let (world, problems) = manifests.world();
    assert_eq!(problems, []);
    assert_eq!(world.resources.pools.iter().map(|pool| pool.meta.name.as_str()).collect::<Vec<_>>(), ["b"]);
    let service = world.cluster.services.values().next().unwrap();
    assert_eq!(service.load_balancer_ip.as_deref(), Some("10.0.0.9"));
    assert_eq!(service.ingress[0].ip.as_deref(), Some("10.0.0.7"));
}

#[test]
fn config_map_of_old_is_configuration_in_its_own_namespace_only() {
    let map = |namespace: &str, address: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config, namespace: {namespace}}}\n\
             data:\n  config: |\n    \
             address-pools: [{{name: lan, protocol: layer2, addresses: [{address}]}}]\n"
        )
    };
    let (world, problems, _) = read(&map("metallb-system", "10.0.0.0/24"));
    assert_eq!((problems, world.resources.pools.len(), world.resources.l2_advertisements.len()), (vec![], 1, 1));
    let (world, problems, _) = read(&map("elsewhere", "10.0.0.0/24"));
    assert_eq!((problems, world.resources.pools.len()), (vec![], 0));
    let (_, problems, _) = read(&map("metallb-system", "10.0.0.0/33"));
    assert_eq!(problems[0].object.to_string(), "ConfigMap/metallb-system/config");
    assert!(problems[0].message.contains("10.0.0.0/33"), "{}", problems[0].message);
}

/// Everything that is said about a text: severity, object, field, and the rest with the line.
fn said(text: &str, strictness: Strictness) -> Vec<String> {
    let mut manifests = Manifests::default().with(strictness);
    manifests.parse(text, "f.yaml");
    manifests.world().1.iter().map(|problem| format!("{:?} {problem}", problem.severity)).collect()
}

fn object(version: &str, kind: &str, rest: &str) -> String {
    format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: x, namespace: metallb-system}}\n{rest}\n")
}

#[test]
fn unknown_field_is_an_error_with_its_line_and_the_nearest_name() {
    let rows = [
        (
            "metallb.io/v1beta1",
            "IPAddressPool",
            "spec: {addresses: [10.0.0.0/28], autoassign: false}",
            "line 4",
            "autoAssign",
        ),
        (
            "metallb.io/v1beta1",
            "IPAddressPool",
            "spec: {addresses: [10.0.0.0/28], protocol: bgp}",
            "line 4",
            "spec has addresses",
        ),
        (
            "metallb.io/v1beta1",
            "IPAddressPool",
            "spec: {addresses: [10.0.0.0/28], avoidBuggyIps: true}",
            "line 4",
            "avoidBuggyIPs",
        ),
        (
            "metallb.io/v1beta1",
            "IPAddressPool",
            "spec:\n  addresses: [10.0.0.0/28]\n  serviceAllocation:\n    namespace: [prod]",
            "line 7",
            "namespaces",
        ),
        ("metallb.io/v1beta1", "IPAddressPool", "spec:\naddresses: [10.0.0.0/28]", "line 5", "spec.addresses"),
        ("metallb.io/v1beta1", "L2Advertisement", "spec: {ipAddressPool: [a]}", "line 4", "ipAddressPools"),
        ("metallb.io/v1beta1", "L2Advertisement", "spec: {interface: [eth1]}", "line 4", "interfaces"),
        ("metallb.io/v1beta1", "L2Advertisement", "spec: {nodeSelector: [{}]}", "line 4", "nodeSelectors"),
        (
            "metallb.io/v1beta1",
            "L2Advertisement",
            "spec: {nodeSelectors: [{matchLabel: {a: b}}]}",
            "line 4",
            "matchLabels",
        ),
        ("metallb.io/v1beta1", "L2Advertisement", "spec: {peers: [tor]}", "line 4", "unknown field"),
        ("metallb.io/v1beta1", "L2Advertisement", "Spec: {}", "line 4", "\"spec\""),
        ("metallb.io/v1beta1", "BGPAdvertisement", "spec: {localpref: 7}", "line 4", "localPref"),
        ("metallb.io/v1beta1", "BGPAdvertisement", "spec: {aggregationLengthv6: 64}", "line 4", "aggregationLengthV6"),
        ("metallb.io/v1beta1", "BGPAdvertisement", "spec: {community: [a]}", "line 4", "communities"),
        ("metallb.io/v1beta1", "BFDProfile", "spec: {recieveInterval: 300}", "line 4", "receiveInterval"),
        ("metallb.io/v1beta1", "BFDProfile", "spec: {minimumTTL: 250}", "line 4", "minimumTtl"),
        ("metallb.io/v1beta1", "Community", "spec: {communities: [{name: a, values: '1:2'}]}", "line 4", "value"),
        (
            "metallb.io/v1beta2",
            "BGPPeer",
            "spec: {myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, myAsn: 3}",
            "line 4",
            "myASN",
        ),
        (
            "metallb.io/v1beta2",
            "BGPPeer",
            "spec: {myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, holdtime: 90s}",
            "line 4",
            "holdTime",
        ),
        (
            "metallb.io/v1beta2",
            "BGPPeer",
            "spec: {myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, bfdprofile: a}",
            "line 4",
            "bfdProfile",
        ),
        (
            "metallb.io/v1beta2",
            "BGPPeer",
            "spec: {myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, passwordSecret: {nam: a}}",
            "line 4",
            "\"name\"",
        ),
        (
            "metallb.io/v1beta1",
            "BGPPeer",
            "spec: {myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, passwordSecret: {name: a}}",
            "line 4",
            "v1beta2 has it",
        ),
        (
            "metallb.io/v1beta1",
            "BGPPeer",
            "spec: {myASN: 1, peerASN: 2, peerAddress: 10.0.0.1, vrf: red}",
            "line 4",
            "v1beta2 has it",
        ),
        ("v1", "Service", "spec: {type: LoadBalancer, LoadBalancerIP: 10.0.0.1}", "line 4", "loadBalancerIP"),
        ("v1", "Service", "spec: {type: LoadBalancer, loadBalancerIPs: 10.0.0.1}", "line 4", "loadBalancerIP"),
        (
            "v1",
            "Service",
            "spec: {type: LoadBalancer, externalTrafficpolicy: Local}",
            "line 4",
            "externalTrafficPolicy",
        ),
        ("v1", "Service", "spec: {type: LoadBalancer, ports: [{port: 80, targetport: 8080}]}", "line 4", "targetPort"),
        ("v1", "Service", "spec: {type: LoadBalancer, selectors: {app: web}}", "line 4", "selector"),
        ("v1", "Service", "type: LoadBalancer", "line 4", "spec.type"),
        ("v1", "Node", "spec: {podCidr: 10.0.0.0/24}", "line 4", "podCIDR"),
        ("v1", "Secret", "stringdata: {password: x}", "line 4", "stringData"),
        ("discovery.k8s.io/v1", "EndpointSlice", "addressType: IPv4\nendpoint: []", "line 5", "endpoints"),
        (
            "discovery.k8s.io/v1",
            "EndpointSlice",
            "addressType: IPv4\nendpoints:\n- addresses: [10.0.0.1]\n  nodename: n1",
            "line 7",
            "nodeName",
        ),
    ];
    for (version, kind, rest, line, nearest) in rows {
        let text = object(version, kind, rest);
        let strict = said(&text, Strictness::Strict);
        let found = strict.iter().any(|said| {
            said.starts_with("Error") && said.contains("f.yaml") && said.contains(line) && said.contains(nearest)
        });
        assert!(found, "{text}{strict:?}");
        if nearest != "spec.addresses" {
            let lenient = said(&text, Strictness::Lenient);
            assert!(lenient.iter().all(|said| said.starts_with("Warning")) && !lenient.is_empty(), "{text}{lenient:?}");
        }
        if version.starts_with("metallb.io") && nearest != "spec.addresses" {
            assert_eq!(said(&text, Strictness::Stored), Vec::<String>::new(), "{text}");
        }
    }
}

#[test]
fn value_outside_of_its_list_or_range_is_an_error_with_the_values() {
    let rows = [
        (
            "Service",
            "spec: {externalTrafficPolicy: local}",
            "expected Cluster or Local, found \"local\": did you mean \"Local\"?",
        ),
        ("Service", "spec: {ports: [{port: 80, protocol: udp}]}", "did you mean \"UDP\"?"),
        ("Service", "spec: {ports: [{port: 80, protocol: HTTP}]}", "expected TCP, UDP or SCTP, found \"HTTP\""),
        ("Service", "spec: {ipFamilies: [ipv6]}", "did you mean \"IPv6\"?"),
        ("Service", "spec: {ipFamilyPolicy: requireDualStack}", "did you mean \"RequireDualStack\"?"),
        ("Service", "spec: {type: Loadbalancer}", "did you mean \"LoadBalancer\"?"),
        ("Service", "spec: {sessionAffinity: clientIP}", "did you mean \"ClientIP\"?"),
        ("Service", "spec: {ports: [{port: 70000}]}", "expected a number from 1 to 65535, found 70000"),
        ("Service", "spec: {ports: [{port: 0}]}", "expected a number from 1 to 65535, found 0"),
        ("Service", "spec: {ports: [{port: -1}]}", "found -1"),
    ];
    for (kind, rest, expected) in rows {
        let text = object("v1", kind, rest);
        let strict = said(&text, Strictness::Strict);
        assert!(
            strict.len() == 1 && strict[0].starts_with("Error") && strict[0].contains(expected),
            "{text}{strict:?}"
        );
        assert!(said(&text, Strictness::Lenient)[0].starts_with("Warning"), "{text}");
    }
    let peer = "spec: {myASN: 1, dynamicASN: Internal, peerAddress: 10.0.0.1}";
    let strict = said(&object("metallb.io/v1beta2", "BGPPeer", peer), Strictness::Strict);
    assert!(strict[0].contains("did you mean \"internal\"?"), "{strict:?}");
    let slice = "addressType: ipv4\nendpoints: []";
    let strict = said(&object("discovery.k8s.io/v1", "EndpointSlice", slice), Strictness::Strict);
    assert!(strict[0].contains("did you mean \"IPv4\"?"), "{strict:?}");
}

#[test]
fn all_wrong_types_of_an_object_are_reported_with_field_line_and_remedy() {
    let peer = "spec:\n  myASN: 64512\n  peerASN: 64513\n  peerAddress: 10.0.0.2\n  holdTime: 90\n  peerPort: \"179\"";
    let found = said(&object("metallb.io/v1beta2", "BGPPeer", peer), Strictness::Strict);
    let expected = [
        "Error BGPPeer/metallb-system/x spec.holdTime: f.yaml: document 1, line 8: expected a duration such as \
         \"90s\", \
         found the number 90",
        "Error BGPPeer/metallb-system/x spec.peerPort: f.yaml: document 1, line 9: expected a number, found the text \
         \"179\": write it without quotes",
    ];
    assert_eq!(found, expected);
    let rows = [
        (
            "metallb.io/v1beta1",
            "IPAddressPool",
            "spec: {addresses: 10.0.0.0/28}",
            "expected a list, found the text \"10.0.0.0/28\"",
        ),
        (
            "metallb.io/v1beta1",
            "IPAddressPool",
            "spec: {addresses: [10]}",
            "spec.addresses[0]: f.yaml: document 1, line 4: expected a text",
        ),
        ("metallb.io/v1beta1", "IPAddressPool", "spec: {addresses: [null]}", "found nothing"),
        (
            "metallb.io/v1beta1",
            "IPAddressPool",
            "spec: {addresses: [10.0.0.0/28], autoAssign: \"false\"}",
            "without quotes",
        ),
        (
            "metallb.io/v1beta1",
            "IPAddressPool",
            "spec: {}",
            "spec.addresses: f.yaml: document 1, line 4: the field is missing",
        ),
        ("metallb.io/v1beta1", "IPAddressPool", "", "spec: f.yaml: document 1, line 1: the field is missing"),
        ("metallb.io/v1beta1", "BGPAdvertisement", "spec: {localPref: high}", "expected a number"),
        ("metallb.io/v1beta1", "BGPAdvertisement", "spec: {aggregationLength: 99999999999}", "32 bits"),
        ("metallb.io/v1beta1", "BFDProfile", "spec: {echoMode: 1}", "expected true or false, found the number 1"),
        ("metallb.io/v1beta1", "Community", "spec: {communities: {a: '1:2'}}", "expected a list, found a mapping"),
        ("v1", "Service", "spec: {ports: 80}", "expected a list, found the number 80"),
        ("v1", "Service", "spec: {ports: [80]}", "spec.ports[0]"),
        ("v1", "Service", "spec: {selector: [app]}", "expected a mapping of fields, found a list"),
        ("v1", "Service", "spec: {ports: [{port: http}]}", "expected a number"),
        ("v1", "Service", "spec: {ports: [{port: 80.5}]}", "expected a whole number"),
        ("v1", "Service", "spec: {loadBalancerIP: 10}", "expected a text"),
        ("v1", "Service", "spec: LoadBalancer", "expected a mapping of fields"),
    ];
    for (version, kind, rest, expected) in rows {
        let text = object(version, kind, rest);
        let found = said(&text, Strictness::Strict);
        assert!(found.iter().any(|said| said.starts_with("Error") && said.contains(expected)), "{text}{found:?}");
        // What cannot be read is an error however it is read.
        assert!(said(&text, Strictness::Lenient).iter().any(|said| said.starts_with("Error")), "{text}");
    }
    let label = "apiVersion: v1\nkind: Node\nmetadata:\n  name: node\n  labels:\n    rack: 7\n";
    let found = said(label, Strictness::Strict);
    assert!(found[0].contains("metadata.labels.rack") && found[0].contains("line 6"), "{found:?}");
}

#[test]
fn text_that_is_no_object_is_reported_in_clear_words() {
    let rows = [
        (
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: off}\n",
            "metadata.name of the IPAddressPool is false",
        ),
        ("apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: 123}\n", "is 123, not a text"),
        (
            "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nspec: {}\n",
            "an object without metadata.name: IPAddressPool",
        ),
        ("apiVersion: metallb.io/v1beta1\nmetadata: {name: a}\n", "an object without kind"),
        ("{\"kind\": \"Node\", \"apiVersion\": \"v1\", \"kind\": \"Node\"}", "duplicate key \"kind\""),
        ("{\"kind\": \"Node\",\n \"metadata\": {\"name\": \"a\", \"name\": \"b\"}}", "line 2: duplicate key \"name\""),
        ("kind: Node\nkind: Node\n", "duplicate"),
        ("spec:\n  {{- if .Values.a }}\n  a: {{ .Values.b }}\n", "helm template"),
        ("NAME   AUTO\na      true\n", "not an object with apiVersion and kind"),
        ("- a\n- b\n", "not an object with apiVersion and kind"),
    ];
    for (text, expected) in rows {
        let found = said(text, Strictness::Strict);
        assert!(found.len() == 1 && found[0].contains(expected) && found[0].contains("File/f.yaml"), "{text}{found:?}");
        assert_eq!(found[0].matches("f.yaml").count(), 1, "the file is named once: {found:?}");
    }
}

#[test]
fn object_of_no_concern_is_skipped_quietly() {
    let texts = [
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [a.yaml]\n",
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n",
        "controller:\n  image: {repository: a}\nspeaker: {enabled: true}\n",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {anything: [1]}\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kube-proxy}\ndata: {config: 'mode: ipvs'}\n",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: other}\nextra: 1\n",
        "apiVersion: v1\nkind: List\nitems: null\n",
        "apiVersion: v1\nkind: Pod\nspec: {containers: 5}\n",
        "# a comment\n---\n",
    ];
    for text in texts {
        assert_eq!(said(text, Strictness::Strict), Vec::<String>::new(), "{text}");
    }
    let accepted = [
        ("metallb.io/v1beta1", "IPAddressPool", "spec: {addresses: [10.0.0.0/28]}\nstatus: {}"),
        (
            "metallb.io/v1beta1",
            "IPAddressPool",
            "spec: {addresses: [10.0.0.0/28]}\nstatus: {assignedIPv4: 1, later: 2}",
        ),
        ("metallb.io/v1beta1", "L2Advertisement", "status: {}"),
        ("metallb.io/v1beta2", "BGPPeer", "spec: {myASN: 1, peerASN: 2, peerAddress: 10.0.0.1}\nstatus: {}"),
        (
            "v1",
            "Service",
            "spec: {allocateLoadBalancerNodePorts: false, trafficDistribution: PreferClose}\nstatus: {later: 1}",
        ),
        (
            "v1",
            "Service",
            "spec: {externalTrafficPolicy: '', ports: [{port: 80, targetPort: http}, {port: 81, targetPort: 8}]}",
        ),
        ("v1", "Node", "status: {capacity: {cpu: '4', memory: 1Gi}, nodeInfo: {}, later: {}}"),
        ("v1", "Secret", "type: Opaque\ndata: {password: eA==}"),
    ];
    for (version, kind, rest) in accepted {
        assert_eq!(said(&object(version, kind, rest), Strictness::Strict), Vec::<String>::new(), "{kind} {rest}");
    }
    let newer = "apiVersion: v1\nkind: Service\nmetadata: {name: x, uid: abc}\nspec: {fieldOfTomorrow: 1}\n";
    assert_eq!(said(newer, Strictness::Strict), Vec::<String>::new(), "a server accepted it");
}

#[test]
fn lines_that_end_in_cr_alone_are_lines() {
    let (world, problems, _) = read(&pool("a").replace('\n', "\r"));
    assert_eq!((world.resources.pools.len(), problems), (1, vec![]));
}

#[test]
fn unknown_annotation_is_a_problem_of_its_object() {
    let text = "apiVersion: v1\nkind: Service\nmetadata:\n  name: x\n  annotations:\n    a: b\n    \
                metallb.universe.tf/loadBalancerIps: 10.0.0.9\n";
    let found = said(text, Strictness::Strict);
    assert_eq!(
        found,
        ["Error Service/default/x metadata.annotations[metallb.universe.tf/loadBalancerIps]: f.yaml: document 1, \
             line 7: \
          unknown annotation \"metallb.universe.tf/loadBalancerIps\" has no effect: did you mean \
          \"metallb.io/loadBalancerIPs\"?"]
    );
    assert!(said(text, Strictness::Lenient)[0].starts_with("Warning"));
    let pool = "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\n\
                metadata: {name: p, annotations: {metallb.io/adress-pool: a}}\nspec: {addresses: [10.0.0.0/28]}\n";
    assert_eq!(said(pool, Strictness::Strict).len(), 1);
}

#[test]
fn old_config_map_under_another_name_is_a_warning() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: metallb, namespace: metallb-system}\n\
                data:\n  config: |\n    address-pools:\n    - {name: c, protocol: layer2, addresses: [10.0.2.0/28]}\n";
    let found = said(text, Strictness::Strict);
    assert!(found.len() == 1 && found[0].starts_with("Warning") && found[0].contains("the name config"), "{found:?}");
}

#[test]
fn every_namespace_has_the_label_with_its_name() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: prod}\nspec: {type: LoadBalancer}\n";
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: prod, labels: {team: a}}\n";
    for text in [service.to_owned(), format!("{service}---\n{namespace}")] {
        let (world, problems, _) = read(&text);
        assert_eq!(problems, []);
        let labels = &world.cluster.namespaces[&metallb_core::model::NamespaceName::from("prod")].labels;
        assert_eq!(labels["kubernetes.io/metadata.name"], "prod", "{text}");
    }
}
