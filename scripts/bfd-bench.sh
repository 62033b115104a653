#!/bin/sh
# Measures the processor time and the detection time of BFD: two processes in two network namespaces with a veth pair.
# Usage: bfd-bench.sh PATH-OF-bfd_load [SECONDS [TRIALS]]
set -eu
program=${1:?the path of bfd_load}
seconds=${2:-10}
trials=${3:-60}
a=mlb-$$a b=mlb-$$b
peers=
cleanup() {
  for peer in $peers; do kill -CONT "$peer" 2>/dev/null || true; kill "$peer" 2>/dev/null || true; done
  rm -rf "/tmp/$a.frr"
  ip netns delete "$a" 2>/dev/null || true
  ip netns delete "$b" 2>/dev/null || true
}
trap cleanup EXIT
trap 'exit 1' INT TERM
ip netns add "$a"
ip netns add "$b"
ip -n "$a" link add veth0 type veth peer name veth0 netns "$b"
# All addresses have one next hop, so that the neighbour table stays small. No router is involved, so the TTL stays 255.
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

floor() { # INTERVAL
  ip netns exec "$b" "$program" floor 10.20.8.1 10.20.0.1 "$1" $((seconds + 6)) >/dev/null &
  peers=$!
  echo "## the same packets by a bare loop, $1 ms"
  ip netns exec "$a" "$program" floor 10.20.0.1 10.20.8.1 "$1" "$seconds"
  wait "$peers" || true
  peers=
}

# FRR's daemon with one session to bfd_load.
frr() { # INTERVAL
  [ -x /usr/lib/frr/bfdd ] || { echo "## FRR is not installed"; return; }
  home=/tmp/$a.frr
  mkdir "$home"
  chown frr:frr "$home"
  for daemon in zebra bfdd; do
    set -- "$1" --vty_socket "$home" -z "$home/zserv.api" -i "$home/$daemon.pid" -A 127.0.0.1 -f /dev/null
    [ "$daemon" = zebra ] || set -- "$@" --bfdctl "$home/bfdd.sock"
    interval=$1
    shift
    ip netns exec "$a" "/usr/lib/frr/$daemon" "$@" >/dev/null 2>&1 &
    peers="$peers $!"
    bfdd=$!
    set -- "$interval"
    until [ -S "$home/$daemon.vty" ]; do sleep 0.1; done
  done
  vtysh -d bfdd --vty_socket "$home" -c "configure terminal" -c bfd \
    -c "peer 10.21.0.2 local-address 10.21.0.1 interface veth0" \
    -c "transmit-interval $1" -c "receive-interval $1" -c "detect-multiplier 3"
  ip netns exec "$b" "$program" 10.21.0.2 10.21.0.1 1 "$1" $((seconds + 10)) >/dev/null &
  peers="$peers $!"
  until vtysh -d bfdd --vty_socket "$home" -c "show bfd peers" | grep -q "Status: up"; do sleep 0.2; done
  sleep 3
  busy() { cat /proc/"$bfdd"/task/*/schedstat | awk '{ all += $1 } END { printf "%d", all / 1000 }'; }
  before=$(busy)
  sleep "$seconds"
  echo "## FRR's bfdd, one session, $1 ms x 3"
  echo "$(($(busy) - before)) $seconds" | awk '{ printf "processor time of all its threads: %d us of %d s, %.3f %% of a core\n", $1, $2, $1 / $2 / 10000 }'
  for peer in $peers; do kill "$peer" 2>/dev/null || true; done
  wait
  peers=
  rm -rf "$home"
}

# The result is the delay after the last packet plus the detection time. The time from the stop depends on the age of
# the last packet. tcpdump records when the last packet arrived.
detect() { # INTERVAL TRIALS
  ip netns exec "$b" "$program" 10.20.8.1 10.20.0.1 1 "$1" 3600 >/dev/null &
  peer=$!
  ip netns exec "$a" "$program" watch 10.20.0.1 10.20.8.1 "$1" 3600 >"/tmp/$a.out" &
  watcher=$!
  ip netns exec "$a" tcpdump -i veth0 -Q in -tt -n -l udp port 3784 >"/tmp/$a.seen" 2>/dev/null &
  capture=$!
  peers="$peer $watcher $capture"
  sleep 6
  : >"/tmp/$b.out"
  for trial in $(seq "$2"); do
    sleep "2.5$((10 + trial * 37 % 90))"
    : >"/tmp/$a.seen"
    sleep 0.2
    stopped=$(date +%s%6N)
    kill -STOP "$peer"
    sleep 0.5
    down=$(grep down "/tmp/$a.out" | tail -1 | cut -d' ' -f2)
    last=$(tail -1 "/tmp/$a.seen" | tr '\0' ' ' | awk '{ print $1 }' | tr -d .)
    kill -CONT "$peer"
    echo $((down - stopped)) $((last + $1 * 3000 - stopped)) $((down - last - $1 * 3000)) >>"/tmp/$b.out"
  done
  kill "$peer" "$watcher" "$capture"
  peers=
  echo "## detection, $1 ms x 3, $2 trials, microseconds: all of them"
  echo "from the stop | the protocol's floor in this trial | above it"
  cat "/tmp/$b.out"
  # On a busy machine a late packet may end the session before the stop.
  awk '$3 >= 0' "/tmp/$b.out" >"/tmp/$b.good"
  echo "$(awk '$3 < 0' "/tmp/$b.out" | wc -l) trials in which the session had failed before are left out below"
  for column in 1:"from the stop" 2:"the floor" 3:"above the floor"; do
    cut -d' ' -f"${column%%:*}" "/tmp/$b.good" | sort -n | awk -v what="${column#*:}" \
      '{ v[NR] = $1 } END { printf "%s: min %d p50 %d p90 %d max %d\n", what, v[1], v[int((NR + 1) / 2)], v[int(NR * 0.9)], v[NR] }'
  done
  rm -f "/tmp/$a.out" "/tmp/$a.seen" "/tmp/$b.out" "/tmp/$b.good"
}

load 1 50
floor 50
frr 50
load 1000 300
load 1000 50
detect 50 "$trials"
detect 10 "$trials"
