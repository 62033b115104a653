#!/usr/bin/env bash
# Many trials of every failover case (`lab_failover`), and a table of what the client saw: the longest time from one answered
# request to the next, at one request every 5 ms; how late the client itself was at worst; and for how long a third host, which asks
# every 2 ms who has the address, was answered by two. No API server runs, so that none can help.
#
#   scripts/failover-bench.sh [trials] [nodes...]      20, and 3 and 5, unless said otherwise; needs root, prints Markdown
set -euo pipefail
cd "$(dirname "$0")/.."

export METALLB_FAILOVER_TRIALS=${1:-20}
shift || true
METALLB_FAILOVER_REPORT=$(mktemp)
export METALLB_FAILOVER_REPORT
trap 'rm -f "$METALLB_FAILOVER_REPORT"' EXIT

for nodes in "${@:-3 5}"; do
  for METALLB_FAILOVER_NODES in $nodes; do
    export METALLB_FAILOVER_NODES
    : >"$METALLB_FAILOVER_REPORT"
    # The operator is not optimised in the profile that labs use.
    cargo test --profile lab --config 'profile.lab.package.metallb-operator.opt-level=2' -p metallb-operator --test lab_failover -- \
      --include-ignored --test-threads=1 --nocapture ${METALLB_FAILOVER_CASES:-lab_failover} >&2
    echo
    echo "$METALLB_FAILOVER_NODES nodes, $METALLB_FAILOVER_TRIALS trials of each case, load average $(cut -d' ' -f1-3 /proc/loadavg)"
    echo
    echo "| case | family | gap p50 | gap p99 | gap max | client late at worst | requests lost, p50 / max | two owners p50 / max | on the way back: gap p99, lost max, two owners max |"
    echo "|---|---|---|---|---|---|---|---|---|"
    python3 - "$METALLB_FAILOVER_REPORT" <<'PY'
import collections, math, sys

cases = collections.defaultdict(lambda: collections.defaultdict(list))
for line in open(sys.argv[1]):
    case, what, family, gap, lost, pause, two = line.rstrip("\n").split("\t")
    cases[case, family][what].append((int(gap) / 1000, int(lost), int(pause) / 1000, int(two)))


def percentile(values, share):
    values = sorted(values)
    return values[max(0, math.ceil(share * len(values)) - 1)]


for (case, family), what in cases.items():
    gaps, lost, pauses, two = zip(*what["fail"])
    back_gaps, back_lost, _, back_two = zip(*what["back"])
    print(
        f"| {case} | {family} | {percentile(gaps, .5):.0f} ms | {percentile(gaps, .99):.0f} ms | {max(gaps):.0f} ms "
        f"| {max(pauses):.0f} ms | {percentile(lost, .5)} / {max(lost)} | {percentile(two, .5)} / {max(two)} ms "
        f"| {percentile(back_gaps, .99):.0f} ms, {max(back_lost)}, {max(back_two)} ms |"
    )
PY
  done
done
