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

packages=(frr bird2 gobgpd openbgpd exabgp nftables iproute2 iputils-arping ndisc6 conntrack curl python3)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
if [ "$install" = 1 ] && [ "${#missing[@]}" -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    # A daemon that the package starts by itself would hold port 179 of this host: policy-rc.d says no.
    policy=/usr/sbin/policy-rc.d
    [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod +x "$policy" && made_policy=1; }
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
      echo "some packages could not be installed; the tests that need them will be skipped: ${missing[*]}"
    [ -z "${made_policy:-}" ] || rm -f "$policy"
  else
    echo "not root or no apt-get: tests that need ${missing[*]} will be skipped"
  fi
fi

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
    grep -E '^(test |test result|failures:|error|SKIPPED|     Running|   Doc-tests)|panicked'
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
echo "skipped for a missing part: $(grep -c '^SKIPPED ' "$log")"
grep '^SKIPPED ' "$log" | sort -u || true
exit "$status"
