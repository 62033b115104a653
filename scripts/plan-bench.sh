#!/usr/bin/env bash
# What the whole command `metallb plan` costs: 5,000 nodes and 10,000 Services as one JSON file, the same with 25,000 Pods among
# them as YAML, and what one node less would change. Prints wall clock, processor time and the largest memory of each run.
#
#   scripts/plan-bench.sh [PATH-OF-METALLB]     without a path it builds the release binary
set -euo pipefail
cd "$(dirname "$0")/.."

metallb=${1:-}
if [ -z "$metallb" ]; then
  cargo build --release -p metallb-operator --quiet
  metallb=target/release/metallb
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
scripts/cluster-dump.py --format json >"$work/cluster.json"
scripts/cluster-dump.py --format yaml --pods 25000 >"$work/cluster.yaml"
echo "cluster.json $(stat -c %s "$work/cluster.json") bytes, cluster.yaml $(stat -c %s "$work/cluster.yaml") bytes, load $(cut -d' ' -f1-3 /proc/loadavg)"

measure() {
  python3 - "$@" <<'PYTHON'
import resource, subprocess, sys, time
label, command = sys.argv[1], sys.argv[2:]
best = None
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.DEVNULL)
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert done.returncode in (0, 2), done.returncode
    best = min(best, (wall, cpu)) if best else (wall, cpu)
print(f"{label:40} {best[0]:6.2f} s wall {best[1]:6.2f} s cpu {after.ru_maxrss / 1024:7.0f} MiB at most so far")
PYTHON
}
measure "plan, JSON, 5,000 x 10,000" "$metallb" plan -f "$work/cluster.json" -o json
measure "plan, JSON, one node less" "$metallb" plan -f "$work/cluster.json" -o json --without-node worker-0007
measure "explain one Service" "$metallb" explain -f "$work/cluster.json" team-001/service-00001
measure "plan, YAML, 50,000 objects" "$metallb" plan -f "$work/cluster.yaml" -o json
