#!/usr/bin/env bash
# What 1,000 created Services cost a controller: CPU, writes, and the time from creation to address.
#
#   scripts/controller-bench.sh                    the release build of this tree
#   scripts/controller-bench.sh OTHER [OTHER ...]  other binaries too, in turns, three rounds
#
# Needs the binaries of scripts/kube-assets.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

KUBEBUILDER_ASSETS=$(scripts/kube-assets.sh)
export KUBEBUILDER_ASSETS
cargo build --quiet --release -p metallb-operator
binaries=("$PWD/target/release/metallb" "$@")
for round in 1 2 3; do
  for binary in "${binaries[@]}"; do
    printf 'round %s, %s: ' "$round" "$binary"
    METALLB_BINARY=$binary cargo test --quiet -p metallb-operator --test api_attacks -- --ignored --nocapture \
      bench_controller_serves_1000_services | grep -o 'REPORT .*'
  done
done
