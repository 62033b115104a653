#!/usr/bin/env bash
# Builds the API documentation; a warning is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
