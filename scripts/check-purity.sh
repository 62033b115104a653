#!/usr/bin/env bash
# Proves that the leaf crates decide and encode without effects: no runtime, no sockets, no Kubernetes in their dependency
# trees, no leaf importing another, and each crate builds alone. Checks the module order inside the operator too.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=0
refuse() { # refuse CRATE FLAGS PATTERN
  local found
  found=$(cargo tree -p "$1" $2 -e normal --prefix none 2>/dev/null | awk '{print $1}' | sort -u | grep -xE "$3" || true)
  if [ -n "$found" ]; then
    printf 'purity: %s %s must not depend on: %s\n' "$1" "$2" "$(echo "$found" | tr '\n' ' ')"
    failed=1
  fi
}
effects='tokio|kube|kube-.*|k8s-openapi|socket2|nix|rustix|libc|mio|tracing-subscriber|anyhow|reqwest|hyper'
refuse metallb-core "" "$effects|metallb-l2|metallb-bgp|tracing"
refuse metallb-l2 --no-default-features "$effects|metallb-core|metallb-bgp"
refuse metallb-bgp --no-default-features "$effects|metallb-core|metallb-l2"
# Membership is nested in the operator's directory and still stands below it: no operator, no Kubernetes, no runtime of its own.
refuse metallb-membership --no-default-features "$effects|metallb-operator|metallb-bgp|tracing"
refuse metallb-membership "" "kube|kube-.*|k8s-openapi|hyper|axum|mio|clap|prometheus|anyhow|metallb-operator|metallb-bgp"

for crate in metallb-core metallb-l2 metallb-bgp metallb-membership; do
  cargo check --quiet -p "$crate" || failed=1
done
for crate in metallb-l2 metallb-bgp metallb-membership; do
  cargo check --quiet -p "$crate" --no-default-features || failed=1
done

# Inside the operator, a module imports only modules below it. One line per module: its name, then what it may import.
order='
sys:
client:
api:
metrics:
telemetry:
exclusion:
source: sys api
index: api source
announcer: sys metrics exclusion source
sink: sys api client source announcer
process: sys client metrics exclusion source
controller: sys api client metrics source index sink process
speaker: sys api client metrics exclusion source index announcer sink process
standalone: sys metrics exclusion source announcer sink process
cli: api telemetry source sink process controller speaker standalone
main:
lib:
'
operator=metallb-operator/src
for path in "$operator"/*.rs; do
  module=$(basename "$path" .rs)
  if ! grep -q "^$module:" <<<"$order"; then
    printf 'purity: the operator module %s has no place in the order\n' "$module"
    failed=1
    continue
  fi
  allowed=" $module $(sed -n "s/^$module: *//p" <<<"$order") "
  # Tests build their facts from manifests, so their files may import any module.
  files=$(find "$path" "${path%.rs}" -name '*.rs' ! -name tests.rs 2>/dev/null || true)
  for import in $(cat $files | grep -oP '\bcrate::\K[a-z_]+' | sort -u); do
    if [[ "$allowed" != *" $import "* ]]; then
      printf 'purity: the operator module %s must not import %s\n' "$module" "$import"
      failed=1
    fi
  done
done

[ "$failed" = 0 ] && echo "purity: the leaf crates are pure and build alone, the modules of the operator are in order"
exit "$failed"
