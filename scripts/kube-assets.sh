#!/usr/bin/env bash
# Provides the real control-plane binaries that the api_* and lab_* tests run against, and prints their directory.
#
#   export KUBEBUILDER_ASSETS=$(scripts/kube-assets.sh)
#
# An existing KUBEBUILDER_ASSETS with kube-apiserver and etcd wins. Otherwise the binaries are built from their Go
# modules and cached under ${XDG_CACHE_HOME:-$HOME/.cache}/metallb-rs/kube-assets/VERSION; a second call is instant.
# Exit 3 means "cannot be provided here" (no Go toolchain, no module proxy): callers skip those tests and say so.
set -euo pipefail

kubernetes_version=v1.34.4
staging_version=v0.34.4
etcd_version=v3.6.14

say() { printf 'kube-assets: %s\n' "$*" >&2; }

have_required() { [ -x "$1/kube-apiserver" ] && [ -x "$1/etcd" ]; }

if [ -n "${KUBEBUILDER_ASSETS:-}" ] && have_required "$KUBEBUILDER_ASSETS"; then
  printf '%s\n' "$KUBEBUILDER_ASSETS"
  exit 0
fi

cache="${XDG_CACHE_HOME:-$HOME/.cache}/metallb-rs/kube-assets/$kubernetes_version-etcd-$etcd_version"
complete() { have_required "$cache" && [ -x "$cache/kube-proxy" ] && [ -x "$cache/kubectl" ]; }

if complete; then
  printf '%s\n' "$cache"
  exit 0
fi
if ! command -v go >/dev/null 2>&1; then
  say "no Go toolchain and no KUBEBUILDER_ASSETS: the tests that need a kube-apiserver will be skipped"
  exit 3
fi

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9 # two test runs on one machine must not build the same binary twice
if complete; then
  printf '%s\n' "$cache"
  exit 0
fi

work=$(mktemp -d)
trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT
export CGO_ENABLED=0 GOFLAGS=-mod=mod GOTOOLCHAIN="${GOTOOLCHAIN:-local}"

# build DIR PACKAGE NAME LDFLAGS: into a temporary name first, so that a half-written binary is never taken for a whole one.
build() {
  say "building $3 (once, then cached)"
  (cd "$1" && go build -trimpath -ldflags "-s -w $4" -o "$cache/.$3.tmp" "$2") >&2
  mv "$cache/.$3.tmp" "$cache/$3"
}

build_etcd() {
  local dir="$work/etcd"
  mkdir -p "$dir"
  cat >"$dir/go.mod" <<MOD
module assets

go 1.25

require go.etcd.io/etcd/server/v3 $etcd_version
MOD
  cat >"$dir/tools.go" <<'GO'
//go:build tools

package assets

import _ "go.etcd.io/etcd/server/v3"
GO
  (cd "$dir" && go mod tidy) >&2
  build "$dir" go.etcd.io/etcd/server/v3 etcd ""
}

# k8s.io/kubernetes replaces its staging modules by local folders, which exist only inside its repository: the wrapper
# module maps each of them to the published module of the same release.
build_kubernetes() {
  local dir="$work/kubernetes" upstream flags minor
  mkdir -p "$dir"
  upstream=$(cd "$work" && go mod download -json "k8s.io/kubernetes@$kubernetes_version" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
  {
    printf 'module assets\n\ngo 1.25\n\nrequire k8s.io/kubernetes %s\n\nreplace (\n' "$kubernetes_version"
    sed -n 's#^[[:space:]]*\(k8s.io/[a-z0-9-]*\) => ./staging/src/.*#\1#p' "$upstream" | sort -u |
      while read -r module; do printf '\t%s => %s %s\n' "$module" "$module" "$staging_version"; done
    printf ')\n'
  } >"$dir/go.mod"
  cat >"$dir/tools.go" <<'GO'
//go:build tools

package assets

import (
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-proxy"
	_ "k8s.io/kubernetes/cmd/kubectl"
)
GO
  (cd "$dir" && go mod tidy) >&2
  minor=${kubernetes_version#v1.}
  flags="-X k8s.io/component-base/version.gitVersion=$kubernetes_version -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=${minor%%.*}"
  for name in kube-apiserver kube-proxy kubectl; do
    [ -x "$cache/$name" ] || build "$dir" "k8s.io/kubernetes/cmd/$name" "$name" "$flags"
  done
}

[ -x "$cache/etcd" ] || build_etcd || { say "etcd could not be built"; exit 3; }
build_kubernetes || { say "kube-apiserver could not be built"; exit 3; }
printf '%s\n' "$cache"
