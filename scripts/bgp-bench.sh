#!/bin/sh
# Measures the cost of announcing 100,000 routes: a dump to one receiver, a single route, a withdrawal of all, memory.
# One run compares metallb-bgp, BIRD, FRR and GoBGP. Results are published in docs/performance/bgp.md.
# Usage: bgp-bench.sh [metallb-bgp|bird|frr|gobgp ...]
#   Needs root, iproute2, the routers and two otherwise idle cores. PROFILE=release builds as for a release.
set -eu
cd "$(dirname "$0")/.."
profile=${PROFILE:-lab}
cargo build --quiet --profile "$profile" -p metallb-benches --example bgp_rate
echo "load before: $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) cores, kernel $(uname -r), profile $profile"
echo
"target/$profile/examples/bgp_rate" "$@" &
program=$!
# The program removes its namespaces itself, unless it is killed.
cleanup() {
  kill "$program" 2>/dev/null || true
  for namespace in "bgp-rate-$program-r" "bgp-rate-$program-a"; do
    for pid in $(ip netns pids "$namespace" 2>/dev/null); do kill -9 "$pid" 2>/dev/null || true; done
    ip netns delete "$namespace" 2>/dev/null || true
  done
  rm -rf "/tmp/bgp-rate-$program"-*
}
trap cleanup EXIT
trap 'exit 1' INT TERM
wait "$program"
echo "load after: $(cut -d' ' -f1-3 /proc/loadavg)"
