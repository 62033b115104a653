# Commands for contributors; `just` lists them. CONTRIBUTING.md shows the same commands without just.

_default:
    @just --list

# Formatting, lints, documentation, module order, prose, dependencies
check:
    scripts/lint.sh

# All tests: installs Debian packages, needs root for labs
test:
    scripts/test.sh

# One test by name, for example: just test-one metallb-l2 priority_tag
test-one crate name:
    cargo test -p {{crate}} {{name}}

# One lab by name, as root, for example: just lab metallb-l2 lab_driver
lab crate name:
    cargo test --profile lab -p {{crate}} {{name}} -- --include-ignored --test-threads=1 --nocapture

# One benchmark by name, for example: just bench l2_responder
bench name:
    cargo bench -p metallb-benches --bench {{name}}

# API documentation; warnings are errors
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
