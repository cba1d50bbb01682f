#!/usr/bin/env bash
# Calls the API with curl: the models, a whole answer, a stream. deploy/clients/README.md describes its settings.
set -euo pipefail
url=${OLLAMA_WEB_API_URL:-http://127.0.0.1:5000}
message=${1:-안녕하세요!}

# The key comes from a pipe: every user of a machine can read the command lines on it.
# --fail-with-body shows the server's error text, and makes curl exit with 22.
ask() {
    curl --silent --show-error --fail-with-body --max-time 330 \
        --header @<(printf 'Authorization: Bearer %s' "${OLLAMA_WEB_API_KEY:-}") "$@"
}

# A message is JSON, so quotes, backslashes and line ends must be escaped.
body=$(python3 -c 'import json, sys; print(json.dumps({"message": sys.argv[1]}))' "$message")

ask "$url/api/models"
echo
ask "$url/api/chat" --header 'Content-Type: application/json' --data "$body"
echo

# --no-buffer prints each line as it arrives. The last one says whether the answer is complete.
ask "$url/api/chat/stream" --no-buffer --header 'Content-Type: application/json' --data "$body" |
    {
        while IFS= read -r line || [[ $line ]]; do
            printf '%s\n' "$line"
            last=$line
        done
        if [[ ${last-} != *'"done":true'* || $last == '{"success":false,'* ]]; then
            echo 'The answer is not complete' >&2
            exit 1
        fi
    }
