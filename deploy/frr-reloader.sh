#!/bin/sh
# Runs in the container `reloader` of upstream's FRR installs. The speaker holds the BGP sessions itself and gives FRR no
# configuration, so there is nothing to reload.
echo "FRR is not used: the speaker of this node holds the BGP sessions itself; nothing is reloaded"
trap 'exit 0' TERM INT
trap '' HUP
while :; do
  sleep 3600 &
  wait $!
done
