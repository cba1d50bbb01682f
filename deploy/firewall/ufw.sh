#!/bin/sh
# Who reaches the gateway, as rules of ufw: sudo deploy/firewall/ufw.sh 192.168.0.0/16 [NETWORK ...]
# Without an HTTPS front: PORTS=5000,8080 before it. ufw itself is not switched on: allow SSH first, then "ufw enable".
set -eu
[ $# -gt 0 ] || { echo "Name the networks that may call, such as 192.168.0.0/16" >&2; exit 2; }
for network; do
    ufw allow proto tcp from "$network" to any port "${PORTS:-443}" comment "Ollama Web API"
done
# Behind the networks, so that it is the rest: the first rule that fits decides.
ufw deny proto tcp to any port 443,5000,8080,11434 comment "Ollama Web API"
