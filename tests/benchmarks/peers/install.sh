#!/usr/bin/env bash
# Puts the gateways that the benchmark compares with into build/peers, each with its own packages.
set -euo pipefail
cd "$(dirname "$0")/../../.."
mkdir -p build/peers
"${PYTHON:-python3}" -m venv build/peers/litellm
build/peers/litellm/bin/python -m pip install --quiet --disable-pip-version-check \
    --only-binary :all: 'litellm[proxy]==1.110.2'
npm install --prefix build/peers --no-audit --no-fund --ignore-scripts @portkey-ai/gateway@1.15.2
