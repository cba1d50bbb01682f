#!/usr/bin/env bash
# Creates the certificates and the token of a relay and its clients, for the base URL https://RELAY[:PORT]:
#   deploy/tunnel/certificates.sh RELAY[:PORT] FOLDER
# FOLDER/relay is for the relay, FOLDER/client for the functions; FOLDER/ca.key stays with you.
# Running it again renews the certificates, and keeps the authority and the token.
set -euo pipefail
umask 077

AUTHORITY_DAYS=3650
CERTIFICATE_DAYS=730

[ $# -eq 2 ] || { echo "usage: $0 RELAY[:PORT] FOLDER" >&2; exit 2; }
authority=$1 relay=${1%:*} folder=$2
if [[ ! $authority =~ ^[A-Za-z0-9.-]+(:[0-9]+)?$ ]]; then
    echo "$authority is not a relay's name or IPv4 address" >&2
    exit 2
fi
if [[ $relay =~ ^[0-9.]+$ ]]; then name=IP:$relay; else name=DNS:$relay; fi
mkdir -p "$folder/relay" "$folder/client"
cd "$folder"

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

# request KEY SUBJECT: prints the request for a key's certificate
request() {
    openssl req -new -key "$1" -config <(
        printf '%s\n' '[req]' 'prompt = no' 'distinguished_name = subject' '[subject]' "CN = $2"
    )
}

# sign DAYS EXTENSIONS OPTION...: creates a certificate for the request on stdin
sign() {
    local days=$1 extensions=$2
    shift 2
    # Python 3.13 refuses a certificate without the two identifiers.
    openssl x509 -req -days "$days" -set_serial "0x$(openssl rand -hex 16)" "$@" -extfile <(
        printf '%s\n' "$extensions" 'subjectKeyIdentifier = hash' 'authorityKeyIdentifier = keyid'
    )
}

# certificate NAME SUBJECT EXTENSIONS: creates NAME.key and NAME.crt
certificate() {
    local usage='basicConstraints = critical, CA:FALSE'$'\n''keyUsage = critical, digitalSignature'
    key "$1.key"
    request "$1.key" "$2" | sign "$CERTIFICATE_DAYS" "$usage"$'\n'"$3" -CA ca.crt -CAkey ca.key >"$1.crt"
}

if [ ! -e ca.key ]; then
    key ca.new # before the pipe: both of its ends read it
    request ca.new "Authority of the tunnel by $relay" | sign "$AUTHORITY_DAYS" \
        'basicConstraints = critical, CA:TRUE'$'\n''keyUsage = critical, keyCertSign' \
        -signkey ca.new >ca.crt
    mv ca.new ca.key
fi
certificate relay/server "$relay" "subjectAltName = $name"$'\n''extendedKeyUsage = serverAuth'
certificate client/client 'Client of the tunnel' 'extendedKeyUsage = clientAuth'
cp ca.crt relay/
cp ca.crt client/

if [ ! -e relay/token.map ]; then
    printf '"%s" 1;\n' "$(openssl rand -hex 16)" >relay/token.map
fi
token=$(sed -n '$s/^"\(.*\)" 1;$/\1/p' relay/token.map)
quoted=$(sed 's/["$`\\]/\\&/g' <<<"$PWD") # for double quotes
cat >client/tunnel.env <<END
OLLAMA_BASE_URL=https://$authority
OLLAMA_HEADERS='{"X-Tunnel-Token":"$token"}'
OLLAMA_CA_FILE="$quoted/client/ca.crt"
OLLAMA_CLIENT_CERT="$quoted/client/client.crt"
OLLAMA_CLIENT_KEY="$quoted/client/client.key"
END
echo "created in $PWD: relay/ for the relay, client/ for its clients; keep ca.key to yourself" >&2
