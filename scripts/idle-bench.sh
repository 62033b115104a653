#!/usr/bin/env bash
# What an idle speaker costs: five nodes that gossip, 1,000 addresses, no traffic. Prints memory, and per node and thread the share of a core and
# how often it runs.
#
#   cargo build --release -p metallb-operator && scripts/idle-bench.sh [binary] [seconds]      needs root
set -euo pipefail
cd "$(dirname "$0")/.."

binary=$(realpath "${1:-target/release/metallb}")
seconds=${2:-30}
work=$(mktemp -d)
prefix=idle$$
pids=()
cleanup() {
  [ "${#pids[@]}" = 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait 2>/dev/null || true
  for namespace in switch 1 2 3 4 5; do ip netns delete "$prefix-$namespace" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

mkdir "$work/manifests" "$work/keys"
echo "a secret of the measurement" >"$work/keys/secretkey"
{
  printf 'apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: pool, namespace: metallb-system}\n'
  printf 'spec: {addresses: [192.168.12.0/22]}\n---\n'
  printf 'apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {name: all, namespace: metallb-system}\n'
  for node in 1 2 3 4 5; do printf -- '---\napiVersion: v1\nkind: Node\nmetadata: {name: node-%s}\n' "$node"; done
  for service in $(seq 1000); do
    printf -- '---\napiVersion: v1\nkind: Service\nmetadata: {name: s%s, namespace: default}\n' "$service"
    printf 'spec: {type: LoadBalancer, ports: [{port: 80, protocol: TCP}]}\n---\napiVersion: discovery.k8s.io/v1\n'
    printf 'kind: EndpointSlice\nmetadata: {name: s%s-1, namespace: default, ' "$service"
    printf 'labels: {kubernetes.io/service-name: s%s}}\naddressType: IPv4\n' "$service"
    printf 'endpoints: [{addresses: [10.0.0.1], nodeName: node-1, conditions: {ready: true}}]\n'
  done
} >"$work/manifests/all.yaml"

ip netns add "$prefix-switch"
ip -n "$prefix-switch" link add br0 type bridge
ip -n "$prefix-switch" link set br0 up
for node in 1 2 3 4 5; do
  ip netns add "$prefix-$node"
  ip -n "$prefix-$node" link set lo up
  ip -n "$prefix-$node" link add eth0 type veth peer name "port$node" netns "$prefix-switch"
  ip -n "$prefix-$node" link set eth0 up
  ip -n "$prefix-switch" link set "port$node" up master br0
  ip -n "$prefix-$node" address add "192.168.10.$node/20" dev eth0
done
for node in 1 2 3 4 5; do
  ip netns exec "$prefix-$node" "$binary" standalone --manifests "$work/manifests" --state "$work/$node.json" \
    --node-name "node-$node" --ml-bindaddr "192.168.10.$node" --ml-secret-key-path "$work/keys" \
    --join 192.168.10.1,192.168.10.2,192.168.10.3,192.168.10.4,192.168.10.5 >"$work/$node.log" 2>&1 &
  pids+=($!)
done

# Nanoseconds that a thread ran, and how often it was given a core.
spent() { cut -d' ' -f1,3 "$1/schedstat"; }
share() { awk -v ns="$1" -v seconds="$seconds" 'BEGIN { printf "%.2f %%", ns / seconds / 1e7 }'; }
sleep 45 # the first announcements are repeated for five seconds, and once more after 35
declare -A ran woken
for pid in "${pids[@]}"; do
  for task in /proc/"$pid"/task/*; do read -r ran[$task] woken[$task] < <(spent "$task"); done
done
sleep "$seconds"
for pid in "${pids[@]}"; do
  all=0 threads=
  for task in /proc/"$pid"/task/*; do
    [ -n "${ran[$task]:-}" ] || continue
    read -r now wakeups < <(spent "$task")
    all=$((all + now - ${ran[$task]}))
    threads+=" $(cat "$task/comm") $(share $((now - ${ran[$task]}))) in $(((wakeups - ${woken[$task]}) / seconds))/s,"
  done
  printf '%s, CPU %s:%s\n' "$(awk '/VmRSS/ { printf "RSS %.1f MiB", $2 / 1024 }' "/proc/$pid/status")" "$(share "$all")" "${threads%,}"
done
echo "load average $(cut -d' ' -f1-3 /proc/loadavg)"
