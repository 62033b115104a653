#!/usr/bin/env python3
"""Writes a large cluster as `kubectl get -A -o yaml` (or `-o json`) prints it, for measuring `metallb plan`.

    scripts/cluster-dump.py --nodes 5000 --services 10000 --format json >cluster.json
    scripts/cluster-dump.py --nodes 5000 --services 10000 --pods 25000 --format yaml >cluster.yaml

Every Service has an EndpointSlice with three endpoints; a third are `externalTrafficPolicy: Local`, half hold an address in
their status. Three pools (IPv4 /16, /20 and IPv6 /112) are announced by L2; the small one by BGP to two peers of ten nodes.
Equal arguments give equal output.
"""
import argparse
import json
import sys

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--nodes", type=int, default=5000)
parser.add_argument("--services", type=int, default=10000)
parser.add_argument("--pods", type=int, default=0, help="objects that mean nothing to metallb")
parser.add_argument("--format", choices=["json", "yaml"], default="yaml")
args = parser.parse_args()


def meta(name, namespace=None, **more):
    result = {"creationTimestamp": "2026-01-0%dT08:%02d:%02dZ" % (hash_of(name) % 9 + 1, hash_of(name) % 60, hash_of(name) % 59)}
    result.update(more)
    result["name"] = name
    if namespace:
        result["namespace"] = namespace
    result["resourceVersion"] = str(100000 + hash_of(name))
    result["uid"] = "%08x-5f0c-4a49-9a9b-%012x" % (hash_of(name), hash_of(name))
    return result


def hash_of(text):
    value = 0
    for character in text:
        value = (value * 31 + ord(character)) % 99991
    return value


def node(number):
    name = "worker-%04d" % number
    labels = {
        "beta.kubernetes.io/arch": "amd64",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "rack": "rack-%d" % (number // 40),
        "bgp": "yes" if number < 10 else "no",
    }
    conditions = [
        {
            "lastHeartbeatTime": "2026-01-01T08:00:00Z",
            "lastTransitionTime": "2026-01-01T08:00:00Z",
            "message": "kubelet is posting ready status",
            "reason": "KubeletReady",
            "status": status,
            "type": kind,
        }
        for kind, status in [("NetworkUnavailable", "False"), ("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False"), ("Ready", "True")]
    ]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": meta(name, labels=labels, annotations={"node.alpha.kubernetes.io/ttl": "0", "volumes.kubernetes.io/controller-managed-attach-detach": "true"}),
        "spec": {"podCIDR": "10.%d.%d.0/24" % (number // 256, number % 256)},
        "status": {
            "addresses": [{"address": "172.16.%d.%d" % (number // 256, number % 256), "type": "InternalIP"}, {"address": name, "type": "Hostname"}],
            "allocatable": {"cpu": "32", "ephemeral-storage": "101430960Ki", "memory": "131900160Ki", "pods": "110"},
            "capacity": {"cpu": "32", "ephemeral-storage": "101430960Ki", "memory": "131900160Ki", "pods": "110"},
            "conditions": conditions,
            "images": [{"names": ["registry.example/app/%d:1.%d" % (image, image), "registry.example/app/%d@sha256:%064x" % (image, image)], "sizeBytes": 1000000 + image} for image in range(10)],
            "nodeInfo": {"architecture": "amd64", "kernelVersion": "6.1.0", "kubeletVersion": "v1.34.1", "operatingSystem": "linux", "osImage": "Debian GNU/Linux 12 (bookworm)"},
        },
    }


def service(number):
    name, namespace = "service-%05d" % number, "team-%03d" % (number % 200)
    both = number % 5 == 0
    families = ["IPv4", "IPv6"] if both else ["IPv4"]
    last_applied = json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}})
    status = {"loadBalancer": {}}
    if number % 2 == 1 and not both:
        status = {"loadBalancer": {"ingress": [{"ip": "10.%d.%d.%d" % (200, number // 256, number % 256), "ipMode": "VIP"}]}}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta(name, namespace, labels={"app": name, "tier": "web" if number % 3 else "api"}, annotations={"kubectl.kubernetes.io/last-applied-configuration": last_applied + "\n"}),
        "spec": {
            "allocateLoadBalancerNodePorts": True,
            "clusterIP": "10.96.%d.%d" % (number // 256, number % 256),
            "clusterIPs": ["10.96.%d.%d" % (number // 256, number % 256)] + (["fd00:96::%x" % (number + 1)] if both else []),
            "externalTrafficPolicy": "Local" if number % 3 == 0 else "Cluster",
            "internalTrafficPolicy": "Cluster",
            "ipFamilies": families,
            "ipFamilyPolicy": "RequireDualStack" if both else "SingleStack",
            "ports": [{"name": "http", "nodePort": 30000 + number % 2768, "port": 80, "protocol": "TCP", "targetPort": 8080}],
            "selector": {"app": name},
            "sessionAffinity": "None",
            "type": "LoadBalancer",
        },
        "status": status,
    }


def slice_of(number):
    name, namespace = "service-%05d" % number, "team-%03d" % (number % 200)
    endpoints = []
    for index in range(3):
        on = (number * 7 + index * 1231) % max(args.nodes, 1)
        endpoints.append(
            {
                "addresses": ["10.%d.%d.%d" % (on // 256, on % 256, number % 250 + 1)],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": "worker-%04d" % on,
                "targetRef": {"kind": "Pod", "name": "%s-%d" % (name, index), "namespace": namespace, "uid": "%08x-0000-4000-8000-%012x" % (number, index)},
            }
        )
    return {
        "addressType": "IPv4",
        "apiVersion": "discovery.k8s.io/v1",
        "endpoints": endpoints,
        "kind": "EndpointSlice",
        "metadata": meta(name + "-abcde", namespace, generateName=name + "-", labels={"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io", "kubernetes.io/service-name": name}),
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


def pod(number):
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta("pod-%05d" % number, "team-%03d" % (number % 200), labels={"app": "pod-%05d" % number}),
        "spec": {
            "containers": [{"image": "registry.example/app/1:1.1", "name": "main", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "two"}], "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}],
            "nodeName": "worker-%04d" % (number % max(args.nodes, 1)),
            "restartPolicy": "Always",
        },
        "status": {"phase": "Running", "podIP": "10.1.2.3", "conditions": [{"type": kind, "status": "True"} for kind in ["Initialized", "Ready", "ContainersReady", "PodScheduled"]]},
    }


def configuration():
    def ours(version, kind, name, spec):
        return {"apiVersion": "metallb.io/" + version, "kind": kind, "metadata": meta(name, "metallb-system"), "spec": spec}

    yield ours("v1beta1", "IPAddressPool", "wide", {"addresses": ["10.200.0.0/16"], "autoAssign": True})
    yield ours("v1beta1", "IPAddressPool", "six", {"addresses": ["fd00:200::/112"], "autoAssign": True})
    yield ours("v1beta1", "IPAddressPool", "edge", {"addresses": ["10.201.0.0/20"], "autoAssign": True, "serviceAllocation": {"serviceSelectors": [{"matchLabels": {"tier": "api"}}], "priority": 1}})
    yield ours("v1beta1", "L2Advertisement", "lan", {"ipAddressPools": ["wide", "six"]})
    yield ours("v1beta1", "BGPAdvertisement", "edge", {"ipAddressPools": ["edge"], "communities": ["64512:7"]})
    for number in (1, 2):
        yield ours("v1beta2", "BGPPeer", "tor-%d" % number, {"myASN": 64512, "peerASN": 64500 + number, "peerAddress": "172.31.0.%d" % number, "nodeSelectors": [{"matchLabels": {"bgp": "yes"}}]})


def objects():
    yield from configuration()
    for number in range(200):
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": meta("team-%03d" % number, labels={"kubernetes.io/metadata.name": "team-%03d" % number}), "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
    yield from map(node, range(args.nodes))
    yield from map(service, range(args.services))
    yield from map(slice_of, range(args.services))
    yield from map(pod, range(args.pods))


def yaml(value, indent, out):
    """Block style with two blanks, lists not indented, as kubectl's printer."""
    pad = " " * indent
    for key in sorted(value):
        item = value[key]
        if isinstance(item, dict) and item:
            out.append("%s%s:\n" % (pad, key))
            yaml(item, indent + 2, out)
        elif isinstance(item, list) and item:
            out.append("%s%s:\n" % (pad, key))
            for element in item:
                if isinstance(element, dict):
                    inner = []
                    yaml(element, indent + 2, inner)
                    inner[0] = pad + "- " + inner[0][indent + 2 :]
                    out.extend(inner)
                else:
                    out.append("%s- %s\n" % (pad, scalar(element)))
        elif isinstance(item, str) and item.endswith("\n"):
            out.append("%s%s: |\n%s  %s" % (pad, key, pad, item))
        else:
            out.append("%s%s: %s\n" % (pad, key, scalar(item)))


def scalar(value):
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return "{}" if isinstance(value, dict) else "[]"
    text = str(value)
    if isinstance(value, str) and (text[:1].isdigit() or text in ("yes", "no", "true", "false", "None", "True", "False", "")):
        return '"%s"' % text
    return text


if args.format == "json":
    sys.stdout.write('{\n    "apiVersion": "v1",\n    "items": [\n')
    for count, thing in enumerate(objects()):
        sys.stdout.write((",\n" if count else "") + json.dumps(thing, indent=4))
    sys.stdout.write('\n    ],\n    "kind": "List"\n}\n')
else:
    sys.stdout.write("apiVersion: v1\nitems:\n")
    for thing in objects():
        out = []
        yaml(thing, 2, out)
        out[0] = "- " + out[0][2:]
        sys.stdout.write("".join(out))
    sys.stdout.write('kind: List\nmetadata:\n  resourceVersion: ""\n')
