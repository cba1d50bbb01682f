#!/usr/bin/env bash
# Puts the gateways that the benchmark compares with into build/peers, each with its own packages.
set -euo pipefail
cd "$(dirname "$0")/../../.."
mkdir -p build/peers
"${PYTHON:-python3}" -m venv build/peers/litellm
build/peers/litellm/bin/python -m pip install --quiet --disable-pip-version-check \
    --only-binary :all: 'litellm[proxy]==1.106.12'
# With a newer @hono/node-server, which Portkey's own range allows, it answers every request for a
# stream with a 500, "TypeError: immutable" (Portkey-AI/gateway, issue 1389).
cat >build/peers/package.json <<'END'
{
  "private": true,
  "dependencies": {"@portkey-ai/gateway": "1.15.2"},
  "overrides": {"@hono/node-server": "1.13.8"}
}
END
npm install --prefix build/peers --no-audit --no-fund --ignore-scripts
