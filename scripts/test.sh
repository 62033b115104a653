#!/usr/bin/env bash
# The README's test command: installs what the tests need, runs all of them, and says what was skipped and why.
#
#   scripts/test.sh            everything
#   scripts/test.sh --no-install   do not install Debian packages
#
# Tests that need root, a network namespace or a real router print one line "SKIPPED <test>: <missing part>" and are counted.
set -euo pipefail
cd "$(dirname "$0")/.."

install=1
[ "${1:-}" = --no-install ] && install=0

[ "$install" = 0 ] || scripts/packages.sh frr bird2 gobgpd openbgpd exabgp nftables iproute2 iputils-arping ndisc6 conntrack \
  curl python3 openssl faketime

if assets=$(scripts/kube-assets.sh); then
  export KUBEBUILDER_ASSETS=$assets
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
# Protocol timers want an optimised build; labs share the host's cores, so they run one after another.
run() {
  local code
  cargo test --workspace --profile lab --no-fail-fast "$@" 2>&1 | tee -a "$log" |
    grep -E '^(test |test result|failures:|error|SKIPPED|REPORT|     Running|   Doc-tests)|panicked'
  code=${PIPESTATUS[0]}
  [ "$code" = 0 ] || status=1
}
set +e
echo "== without privileges =="
run -- --skip lab_ --skip api_
echo "== labs and API server =="
run --tests -- --test-threads=1 --nocapture lab_ api_
set -e

echo
echo "== summary =="
awk '/^test result:/ { passed += $4; failed += $6; ignored += $8 } END { printf "passed %d, failed %d, ignored %d\n", passed, failed, ignored }' "$log"
# With one thread the name of the test stands before its first line.
skipped=$(grep -oE '(^|\.\.\. )SKIPPED .*' "$log" | sed 's/^\.\.\. //' | sort -u || true)
echo "skipped for a missing part: $(grep -c . <<<"$skipped")"
printf '%s\n' "$skipped"
exit "$status"
