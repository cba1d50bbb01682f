#!/bin/sh
# Who may reach the gateway, as ufw rules: sudo deploy/firewall/ufw.sh 192.168.0.0/16 [NETWORK ...]
# Without an HTTPS front, set PORTS=5000,8080. It does not enable ufw: allow SSH first, then "ufw enable".
set -eu
[ $# -gt 0 ] || { echo "Name the networks that may call, such as 192.168.0.0/16" >&2; exit 2; }
for network; do
    ufw allow proto tcp from "$network" to any port "${PORTS:-443}" comment "Ollama Web API"
done
# Last, for everyone else: the first matching rule decides.
ufw deny proto tcp to any port 443,5000,8080,11434 comment "Ollama Web API"
ufw deny proto udp to any port 443 comment "Ollama Web API" # HTTP/3, which Caddy also speaks
