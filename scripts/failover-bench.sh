#!/usr/bin/env bash
# Many trials of every failover case (`lab_failover`), and a table of what the client saw: the longest time from one answered
# request to the next, at one request every 5 ms, IPv4 and IPv6 together.
#
#   scripts/failover-bench.sh [trials] [nodes]      20 and 3 unless said otherwise; needs root, prints Markdown
set -euo pipefail
cd "$(dirname "$0")/.."

export METALLB_FAILOVER_TRIALS=${1:-20} METALLB_FAILOVER_NODES=${2:-3}
METALLB_FAILOVER_REPORT=$(mktemp)
export METALLB_FAILOVER_REPORT
trap 'rm -f "$METALLB_FAILOVER_REPORT"' EXIT

cargo test --profile lab -p metallb-operator --test lab_failover -- --test-threads=1 --nocapture lab_failover >&2

echo "$METALLB_FAILOVER_NODES nodes, $METALLB_FAILOVER_TRIALS trials of each case, load average $(cut -d' ' -f1-3 /proc/loadavg)"
echo
echo "| case | gap p50 | gap p99 | gap max | requests lost, p50 / max | on the way back: gap p99, lost max |"
echo "|---|---|---|---|---|---|"
python3 - "$METALLB_FAILOVER_REPORT" <<'PY'
import collections, math, sys

cases = collections.defaultdict(lambda: collections.defaultdict(list))
for line in open(sys.argv[1]):
    case, what, _family, gap, lost = line.rstrip("\n").split("\t")
    cases[case][what].append((int(gap) / 1000, int(lost)))


def percentile(values, share):
    values = sorted(values)
    return values[max(0, math.ceil(share * len(values)) - 1)]


for case, what in cases.items():
    gaps, lost = zip(*what["fail"])
    back_gaps, back_lost = zip(*what["back"])
    print(
        f"| {case} | {percentile(gaps, .5):.0f} ms | {percentile(gaps, .99):.0f} ms | {max(gaps):.0f} ms "
        f"| {percentile(lost, .5)} / {max(lost)} | {percentile(back_gaps, .99):.0f} ms, {max(back_lost)} |"
    )
PY
