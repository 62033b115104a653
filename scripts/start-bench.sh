#!/usr/bin/env bash
# How long from the start of a speaker to its first ARP answer for an address it owns: alone, and as a member whose only other member does
# not answer, which is waited for. A client asks every millisecond.
#
#   cargo build --release -p metallb-operator && scripts/start-bench.sh [binary] [starts]      needs root
set -euo pipefail
cd "$(dirname "$0")/.."

binary=$(realpath "${1:-target/release/metallb}")
starts=${2:-50}
work=$(mktemp -d)
prefix=start$$
cleanup() {
  for end in node client; do ip netns delete "$prefix-$end" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

mkdir "$work/manifests"
cat >"$work/manifests/all.yaml" <<'YAML'
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: pool, namespace: metallb-system}
spec: {addresses: [192.168.10.100/32]}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: all, namespace: metallb-system}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {type: LoadBalancer, ports: [{port: 80, protocol: TCP}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
endpoints: [{addresses: [10.0.0.1], nodeName: node-1, conditions: {ready: true}}]
YAML

for end in node client; do ip netns add "$prefix-$end"; done
ip -n "$prefix-node" link add eth0 type veth peer name eth0 netns "$prefix-client"
for end in node client; do ip -n "$prefix-$end" link set lo up && ip -n "$prefix-$end" link set eth0 up; done
ip -n "$prefix-node" address add 192.168.10.1/24 dev eth0
# Carrier and addresses are there before the first start.
sleep 2

cat >"$work/measure.py" <<'PYTHON'
import socket, subprocess, sys, time

namespace, binary, work, starts = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
more = sys.argv[5:]
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
wire.bind(("eth0", 0x0806))
us = wire.getsockname()[4]
vip = socket.inet_aton("192.168.10.100")
arp = bytes([8, 6, 0, 1, 8, 0, 6, 4, 0])
question = b"\xff" * 6 + us + arp + bytes([1]) + us + socket.inet_aton("192.168.10.9") + bytes(6) + vip
command = ["ip", "netns", "exec", namespace, binary, "standalone", "--manifests", work + "/manifests", "--node-name", "node-1"]
times = []
for number in range(starts):
    wire.setblocking(False)
    while True:
        try:
            wire.recv(128)
        except BlockingIOError:
            break
    wire.settimeout(0.001)
    state = f"{work}/state-{number}.json"
    start = time.monotonic()
    with open(work + "/log", "w") as log:
        speaker = subprocess.Popen(command + ["--state", state] + more, stdout=log, stderr=log)
    while True:
        if time.monotonic() - start > 10:
            sys.exit("no answer in ten seconds:\n" + open(work + "/log").read())
        wire.send(question)
        try:
            frame = wire.recv(128)
        except TimeoutError:
            continue
        # An answer to us, not an announcement.
        if frame[:6] == us and frame[20:22] == b"\0\2" and frame[28:32] == vip:
            break
    times.append((time.monotonic() - start) * 1000)
    speaker.kill()
    speaker.wait()
times.sort()
at = lambda part: times[min(len(times) - 1, len(times) * part // 100)]
print(f"p50 {at(50):.0f} ms, p99 {at(99):.0f} ms, max {times[-1]:.0f} ms ({starts} starts)")
PYTHON

measure() {
  printf '%s: ' "$1"
  ip netns exec "$prefix-client" python3 "$work/measure.py" "$prefix-node" "$binary" "$work" "$starts" "${@:2}"
}
measure "alone"
measure "as a member whose only other member does not answer" --ml-bindaddr 192.168.10.1 --join 192.168.10.2
echo "load average $(cut -d' ' -f1-3 /proc/loadavg)"
