#!/usr/bin/env bash
# Runs each benchmark once, builds the fuzz targets, and runs the examples of the core and the embedder outside the workspace.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo bench -p metallb-benches --profile lab --quiet -- --test
cargo check --manifest-path fuzz/Cargo.toml --quiet
for example in embed_allocator elect plan_a_change; do
  cargo run --profile lab --quiet -p metallb-core --example "$example"
done
cargo run --manifest-path examples/embed/Cargo.toml --quiet
