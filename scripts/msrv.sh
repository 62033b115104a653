#!/usr/bin/env bash
# Checks each library that declares its own `rust-version` with exactly that toolchain. A separate target directory keeps the
# artifacts of the pinned toolchain.
set -euo pipefail
cd "$(dirname "$0")/.."

for manifest in metallb-*/Cargo.toml; do
  version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$manifest")
  [ -n "$version" ] || continue
  crate=$(dirname "$manifest")
  echo "== $crate with Rust $version =="
  rustup toolchain install "$version" --profile minimal --no-self-update >/dev/null
  CARGO_TARGET_DIR=target/msrv cargo "+$version" check --quiet --package "$crate" --lib --examples
done
