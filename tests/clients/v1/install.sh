#!/usr/bin/env bash
# Makes build/clients: a Python environment with the clients whose packages differ from this project's.
set -euo pipefail
cd "$(dirname "$0")/../../.."
"${PYTHON:-python3}" -m venv build/clients
build/clients/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
    --no-deps --only-binary :all: -r tests/clients/v1/requirements.txt
