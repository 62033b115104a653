#!/usr/bin/env bash
# Fails if a crate declares a dependency whose name occurs in none of its sources. `cargo machete` does the same, but has to
# be compiled first; this takes a fraction of a second.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=0
for crate in metallb-core metallb-l2 metallb-bgp metallb-operator benches; do
  sources=()
  for directory in src tests examples benches build.rs; do
    [ ! -e "$crate/$directory" ] || sources+=("$crate/$directory")
  done
  dependencies=$(awk '/^\[/ { inside = /^\[(dev-|build-)?dependencies\]/ } inside && /^[a-z]/ { sub(/[ .=].*/, ""); print }' \
    "$crate/Cargo.toml" | sort -u)
  for dependency in $dependencies; do
    grep -rqwE --include='*.rs' "${dependency//-/_}" "${sources[@]}" && continue
    echo "unused dependency: $crate/Cargo.toml: $dependency"
    failed=1
  done
done
[ "$failed" = 0 ] && echo "unused dependencies: none"
exit "$failed"
