#!/usr/bin/env bash
# What membership costs and how soon it finds the dead, for clusters of many sizes, in virtual time (`sim_members_…`): the table in
# docs/failover.md. Neither root nor a network is needed.
#
#   scripts/membership-table.sh [members...]     5 20 100 1000 5000 unless said otherwise; the largest one takes two hours and 8 GiB, less
#                                                with METALLB_SIM_SECONDS=6 in the environment (30 of each weather unless said otherwise)
set -euo pipefail
cd "$(dirname "$0")/.."

METALLB_SIM_MEMBERS="${*:-5 20 100 1000 5000}" METALLB_SIM_SECONDS=${METALLB_SIM_SECONDS:-30} \
  cargo test --profile lab -p metallb-membership --test sim sim_members -- --nocapture |
  grep '^|'
