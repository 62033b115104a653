#!/bin/sh
# How fast ARP requests are answered, what a burst for 10,000 addresses takes, what a flood and idling cost. The kernel, a program that only
# turns frames around, a plain responder, one in Go (where Go is there) and the driver in one run; the lines it prints stand in
# docs/performance/l2.md.
# Usage: l2-bench.sh [kernel] [awake] [echo] [go] [plain] [driver] [work] [burst] [flood] [idle]
#   all without any (needs root, iproute2 and two cores, best with nothing else to do)
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/local/go/bin
if command -v go >/dev/null; then
  (cd scripts/l2-bench-go && go build -o ../../target/l2-bench-go .)
  export L2_BENCH_GO="$PWD/target/l2-bench-go"
fi
cargo build --quiet --profile lab -p metallb-l2 --example answer_rate
echo "load before: $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) cores, kernel $(uname -r)"
target/lab/examples/answer_rate "$@"
echo
echo "load after: $(cut -d' ' -f1-3 /proc/loadavg)"
