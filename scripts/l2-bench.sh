#!/bin/sh
# Measures ARP reply latency and throughput, a burst for 10,000 addresses, a flood, and an idle driver. One run compares
# the kernel, an echo program, a plain responder, one in Go (if Go is installed) and metallb-l2. Results are published
# in docs/performance/l2.md.
# Usage: l2-bench.sh [kernel] [awake] [echo] [go] [plain] [driver] [work] [burst] [flood] [idle]
#   Without arguments all parts run. Needs root, iproute2 and two otherwise idle cores.
set -eu
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/local/go/bin
if command -v go >/dev/null; then
  (cd scripts/l2-bench-go && go build -o ../../target/l2-bench-go .)
  export L2_BENCH_GO="$PWD/target/l2-bench-go"
fi
cargo build --quiet --profile lab -p metallb-benches --example l2_answer_rate
echo "load before: $(cut -d' ' -f1-3 /proc/loadavg), $(nproc) cores, kernel $(uname -r)"
target/lab/examples/l2_answer_rate "$@"
echo
echo "load after: $(cut -d' ' -f1-3 /proc/loadavg)"
