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
"target/$profile/examples/bgp_rate" "$@"
echo "load after: $(cut -d' ' -f1-3 /proc/loadavg)"
