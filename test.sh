#!/usr/bin/env bash
# Installs what is missing, then runs every check: all tests, one worker per core, or the tests that
# the arguments select (they go to pytest).
# REQUIRE_ALL_TESTS=1 turns a skipped test into a failure; .ci/run installs what the tests need.
set -euo pipefail
cd "$(dirname "$0")"
source deploy/venv.sh
install tests/requirements.txt
install_engine

.venv/bin/ruff check --quiet .
.venv/bin/ruff format --check --quiet .
.venv/bin/mypy
[ $# -gt 0 ] || set -- -n auto --dist loadfile
.venv/bin/python -m pytest "$@"
