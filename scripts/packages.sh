#!/usr/bin/env bash
# Installs those of the named Debian packages that are missing, if it may: scripts/packages.sh frr curl …
# Prints what it could not install and goes on: whoever needs them says so.
set -euo pipefail

missing=()
for package in "$@"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "not root or no apt-get: what needs ${missing[*]} will not run"
  exit 0
fi
# A daemon that its package starts by itself would hold port 179 of this host: policy-rc.d says no.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
  echo "some packages could not be installed; what needs them will not run: ${missing[*]}"
