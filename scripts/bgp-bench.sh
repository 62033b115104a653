#!/bin/sh
# What 100,000 routes cost whoever announces them: a dump to one receiver, one route more, withdrawing all, memory. Our speaker, BIRD, FRR and
# GoBGP in one run; the tables it prints stand in docs/performance/bgp.md.
# Usage: bgp-bench.sh [metallb-bgp|bird|frr|gobgp …]        (needs root, iproute2, the routers and two cores, best with nothing else to do)
# PROFILE=release builds as for a release, which takes minutes.
set -eu
cd "$(dirname "$0")/.."
profile=${PROFILE:-lab}
cargo build --quiet --profile "$profile" -p metallb-bgp --example bgp_rate
echo "load before: $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) cores, kernel $(uname -r), profile $profile"
echo
"target/$profile/examples/bgp_rate" "$@" &
program=$!
# The program cleans up after itself, unless it is killed.
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
