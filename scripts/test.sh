#!/usr/bin/env bash
# Installs what the tests need, runs the tests, and lists the skipped ones with the reason.
#
#   scripts/test.sh                everything
#   scripts/test.sh unit           tests without privileges
#   scripts/test.sh labs           labs and API server tests, as root
#   scripts/test.sh --no-install   do not install Debian packages (may precede `unit` or `labs`)
#
# Labs and API server tests are ignored by a plain `cargo test`. Here they run; one that lacks a part all the same (root, a
# network namespace, a router) prints "SKIPPED <test>: <missing part>" and counts as ignored.
set -euo pipefail
cd "$(dirname "$0")/.."

install=1
if [ "${1:-}" = --no-install ]; then
  install=0
  shift
fi
part=${1:-all}
case $part in
  all | unit | labs) ;;
  *)
    echo "usage: scripts/test.sh [--no-install] [unit|labs]" >&2
    exit 2
    ;;
esac
[ "$part" != unit ] || install=0

[ "$install" = 0 ] || scripts/packages.sh frr bird2 gobgpd openbgpd exabgp nftables iproute2 iputils-arping ndisc6 conntrack \
  curl python3 openssl faketime

if [ "$part" != unit ] && assets=$(scripts/kube-assets.sh); then
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
if [ "$part" != labs ]; then
  echo "== without privileges =="
  run -- --skip lab_ --skip api_
fi
if [ "$part" != unit ]; then
  echo "== labs and API server =="
  run --tests -- --include-ignored --test-threads=1 --nocapture lab_ api_
fi
set -e

echo
echo "== summary =="
# With one thread the name of the test stands before its first line.
skipped=$(grep -oE '(^|\.\.\. )SKIPPED .*' "$log" | sed 's/^\.\.\. //' | sort -u || true)
lacking=$(grep -c . <<<"$skipped" || true)
awk -v lacking="$lacking" '
  /^test result:/ { passed += $4; failed += $6 }
  END { printf "passed %d, failed %d, ignored for a missing part %d\n", passed - lacking, failed, lacking }' "$log"
printf '%s\n' "$skipped"
exit "$status"
