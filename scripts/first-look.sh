#!/usr/bin/env bash
# The main job in a minute, without Kubernetes: builds `metallb`, makes three hosts out of network namespaces (a client and two
# nodes on a bridge), runs `metallb standalone` on both nodes with the manifests of examples/first-look, and shows what the
# client sees. Needs Linux, root and Rust; installs Debian's iproute2, nftables, curl and python3 where they are missing; removes
# everything else that it made.
set -euo pipefail
cd "$(dirname "$0")/.."

[ "$(id -u)" = 0 ] || { echo "first-look: network namespaces need root: sudo scripts/first-look.sh"; exit 1; }
scripts/packages.sh iproute2 nftables curl python3
for program in ip nft curl python3 cargo; do
  command -v "$program" >/dev/null || { echo "first-look: $program is missing"; exit 1; }
done

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }

say "1. Build"
cargo build --quiet --profile lab -p metallb-operator
metallb=${CARGO_TARGET_DIR:-target}/lab/metallb
manifests=examples/first-look/manifests

say "2. Before anything runs: what would happen?"
"$metallb" plan -f "$manifests"

id="fl$$"
work=$(mktemp -d)
pids=()
cleanup() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
  for host in switch client kind-control-plane kind-worker; do ip netns delete "$id-$host" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

say "3. Three hosts on one bridge"
ip netns add "$id-switch"
ip -n "$id-switch" link add br0 type bridge
ip -n "$id-switch" link set br0 up
ports=0
host() { # host NAME IPV4 IPV6
  ports=$((ports + 1))
  ip netns add "$id-$1"
  ip -n "$id-$1" link set lo up
  ip -n "$id-$1" link add eth0 type veth peer name "port$ports" netns "$id-switch"
  ip -n "$id-$1" link set eth0 up
  ip -n "$id-switch" link set "port$ports" master br0 up
  ip -n "$id-$1" address add "$2/24" dev eth0
  ip -n "$id-$1" address add "$3/64" dev eth0 nodad
  printf '   %-20s %s %s  %s\n' "$1" "$2" "$3" "$(ip netns exec "$id-$1" cat /sys/class/net/eth0/address)"
}
host client 192.168.10.200 fc00:f853:ccd:e799::c8
host kind-control-plane 192.168.10.201 fc00:f853:ccd:e799::c9
host kind-worker 192.168.10.202 fc00:f853:ccd:e799::ca

say "4. metallb standalone on both nodes"
for node in kind-control-plane kind-worker; do
  ip netns exec "$id-$node" "$metallb" standalone --manifests "$manifests" --state "$work/$node.json" \
    --node-name "$node" --log-format text >"$work/$node.log" 2>&1 &
  pids+=($!)
done
for _ in $(seq 100); do
  vips=$("$metallb" status --state "$work/kind-control-plane.json" -o json 2>/dev/null |
    python3 -c 'import json,sys; print(*[ip for s in json.load(sys.stdin)["services"] for ip in s["ips"]])' 2>/dev/null || true)
  [ -n "$vips" ] && break
  sleep 0.1
done
[ -n "$vips" ] || { echo "first-look: no address was assigned"; cat "$work"/*.log; exit 1; }
"$metallb" status --state "$work/kind-control-plane.json"
read -r vip4 vip6 <<<"$vips"

# The data path that kube-proxy would be: the port of the Service goes to a backend on the node that receives it.
cat >"$work/backend.py" <<'PY'
import http.server, json, socket, sys
class Backend(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"pod_name": "metallb-demo", "host_name": sys.argv[1], "client_ip": self.client_address[0]}).encode() + b"\n"
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Server(("::", 8080), Backend).serve_forever()
PY
for node in kind-control-plane kind-worker; do
  ip netns exec "$id-$node" python3 "$work/backend.py" "$node" &
  pids+=($!)
  for _ in $(seq 100); do ip netns exec "$id-$node" curl --silent --output /dev/null http://127.0.0.1:8080/ && break; sleep 0.05; done
  ip netns exec "$id-$node" nft -f - <<NFT
table inet service {
  chain prerouting {
    type nat hook prerouting priority dstnat;
    ip daddr $vip4 tcp dport 18081 redirect to :8080
    ip6 daddr $vip6 tcp dport 18081 redirect to :8080
  }
}
NFT
done

say "5. The client's view"
client() { ip netns exec "$id-client" "$@"; }
for url in "http://$vip4:18081/" "http://[$vip6]:18081/"; do
  printf '   $ curl %s\n   ' "$url"
  client curl --silent --show-error --max-time 5 --retry 5 --retry-delay 1 --retry-all-errors "$url"
done
printf '   $ ip neighbour\n'
client ip neighbour show dev eth0 | grep -E "^($vip4|$vip6) " | sed 's/^/   /'

say "The addresses answer from kind-control-plane, as the L2Advertisement's nodeSelectors demand. Everything is removed now."
