#!/usr/bin/env bash
# Installs what is missing, then serves on HOST and PORT. The README lists the settings.
set -euo pipefail
cd "$(dirname "$0")"
source deploy/venv.sh
install requirements.txt

if [ -z "${OLLAMA_BASE_URL:-}" ] && ! (exec 3<>/dev/tcp/127.0.0.1/11434) 2>/dev/null; then
    echo "no Ollama found: answering with the small built-in model smollm2:135m;" \
        "set OLLAMA_BASE_URL to use your own" >&2
    install core/engine/requirements.txt
    # The engine prints its URL and exits with this process, whose id survives "exec".
    exec 3< <(exec .venv/bin/python -m core.engine --parent $$)
    read -r OLLAMA_BASE_URL <&3 || { echo "the built-in model did not start" >&2; exit 1; }
    exec 3<&-
    export OLLAMA_BASE_URL
fi

exec .venv/bin/python -m handlers
