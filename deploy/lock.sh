#!/usr/bin/env bash
# Updates the lock files with uv (pipx install uv): deploy/lock.sh [--upgrade]
set -euo pipefail
cd "$(dirname "$0")/.."
lock() { uv pip compile --quiet --no-header --universal --python-version 3.11 --generate-hashes "$@"; }

lock "$@" pyproject.toml --output-file requirements.txt
lock "$@" pyproject.toml --group test --constraint requirements.txt --output-file tests/requirements.txt
lock "$@" --group engine --no-deps --output-file core/engine/requirements.txt
lock "$@" --group libgomp --no-deps --output-file core/engine/libgomp.txt
lock "$@" --group clients --output-file tests/clients/v1/requirements.txt
