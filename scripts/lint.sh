#!/usr/bin/env bash
# All checks that run no tests: formatting, lints, documentation, module order, prose, dependencies.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s ==\n' "$*"; }

step "format"
cargo fmt --all --check
step "prose"
scripts/check-prose.sh
step "references from pages and tables to tests"
scripts/check-test-references.py
step "clippy"
cargo clippy --workspace --all-targets --quiet -- -D warnings
step "documentation"
scripts/docs.sh
step "purity of the leaf crates"
scripts/check-purity.sh
step "dependencies"
scripts/unused-dependencies.sh
command -v cargo-deny >/dev/null || cargo install cargo-deny --locked --quiet
cargo deny --log-level error check bans licenses sources
