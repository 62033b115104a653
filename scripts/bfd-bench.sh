#!/bin/sh
# What BFD costs and how fast it detects: two processes in two network namespaces joined by a veth pair.
# Usage: bfd-bench.sh PATH-OF-bfd_load [SECONDS]
set -eu
program=$1
seconds=${2:-10}
a=mlb-$$a b=mlb-$$b
peers=
cleanup() {
  for peer in $peers; do kill -CONT "$peer" 2>/dev/null || true; kill "$peer" 2>/dev/null || true; done
  ip netns delete "$a" 2>/dev/null || true
  ip netns delete "$b" 2>/dev/null || true
}
trap cleanup EXIT
trap 'exit 1' INT TERM
ip netns add "$a"
ip netns add "$b"
ip -n "$a" link add veth0 type veth peer name veth0 netns "$b"
# All addresses are behind one next hop, so the neighbour table stays small; nothing forwards, so the TTL stays 255.
for side in "$a:0:1:2:8" "$b:8:2:1:0"; do
  IFS=: read -r name third own other there <<END
$side
END
  for block in 0 1 2 3; do
    for host in $(seq 0 255); do echo "address add 10.20.$((third + block)).$host/32 dev lo"; done
  done | ip -n "$name" -batch -
  ip -n "$name" link set lo up
  ip -n "$name" link set veth0 up
  ip -n "$name" address add 10.21.0.$own/24 dev veth0
  ip -n "$name" route add 10.20.$there.0/22 via 10.21.0.$other
done

load() { # COUNT INTERVAL
  ip netns exec "$b" "$program" 10.20.8.1 10.20.0.1 "$1" "$2" $((seconds + 6)) >/dev/null &
  peers=$!
  echo "## $1 sessions, $2 ms x 3"
  ip netns exec "$a" "$program" 10.20.0.1 10.20.8.1 "$1" "$2" "$seconds"
  wait "$peers" || true
  peers=
}

detect() { # INTERVAL TRIALS
  ip netns exec "$b" "$program" 10.20.8.1 10.20.0.1 1 "$1" 600 >/dev/null &
  peer=$!
  ip netns exec "$a" "$program" 10.20.0.1 10.20.8.1 1 "$1" 600 >"/tmp/$a.out" &
  watcher=$!
  peers="$peer $watcher"
  sleep 6
  : >"/tmp/$b.out"
  for trial in $(seq "$2"); do
    sleep "3.0$((trial * 37 % 100))"
    stopped=$(date +%s%6N)
    kill -STOP "$peer"
    sleep 0.5
    down=$(grep down "/tmp/$a.out" | tail -1 | cut -d' ' -f2)
    kill -CONT "$peer"
    echo $((down - stopped)) >>"/tmp/$b.out"
  done
  kill "$peer" "$watcher"
  peers=
  echo "## detection, $1 ms x 3, $2 trials, microseconds"
  sort -n "/tmp/$b.out" | awk '{ v[NR] = $1 } END { printf "min %d p50 %d max %d\n", v[1], v[int((NR + 1) / 2)], v[NR] }'
  rm -f "/tmp/$a.out" "/tmp/$b.out"
}

load 1 50
load 1000 300
detect 50 12
detect 10 12
