#!/usr/bin/env bash
# Installs what is missing, then serves the API on PORT and the chat page on WEB_PORT. The README lists the settings.
set -euo pipefail
cd "$(dirname "$0")"
if [ -z "${PYTHON:-}" ] && [ ! -e .venv ]; then # chats cost less on newer ones
    for version in 3.14 3.13 3.12; do
        if "python$version" -c 'import ensurepip' 2>/dev/null; then
            export PYTHON=python$version
            break
        fi
    done
fi
source deploy/python.sh
[ $# -eq 0 ] || stop "no arguments, please: settings are environment variables, as in PORT=5001 ./start.sh"

# Report problems before downloading or loading anything.
for port in "${PORT:-5000}" "${WEB_PORT:-8080}"; do
    problem=$("$python" -c 'import socket, sys
host, port = sys.argv[1:]
family = socket.AF_INET6 if ":" in host else socket.AF_INET
try:
    socket.create_server((host, int(port)), family=family).close()
except OSError as error:
    sys.exit(error.strerror.partition(" (")[0])
except (OverflowError, ValueError):
    sys.exit("it is not a number from 1 to 65535")' \
        "${HOST:-0.0.0.0}" "$port" 2>&1) || stop "cannot listen on port $port: $problem;" \
        "change HOST, PORT or WEB_PORT"
done
own_model=
if [ -z "${OLLAMA_BASE_URL:-}" ] && ! (exec 3<>/dev/tcp/127.0.0.1/11434) 2>/dev/null; then
    own_model=yes
    echo "no Ollama found: answering with the small built-in model smollm2:135m," \
        "which hardly speaks anything but English; set OLLAMA_BASE_URL to use your own" >&2
fi

source deploy/venv.sh
install requirements.txt
if [ "$own_model" ]; then
    install_engine
    export BUILT_IN_MODEL=true
fi

trap '' HUP  # the server handles it, once it can
exec .venv/bin/python -m handlers
