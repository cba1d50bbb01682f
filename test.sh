#!/usr/bin/env bash
# Sets up what is missing, and runs every check. Arguments go to pytest.
# REQUIRE_ALL_TESTS=1 makes a skipped test a failure; .ci/run installs what the tests want.
set -euo pipefail
cd "$(dirname "$0")"
source deploy/venv.sh
install tests/requirements.txt
install core/engine/requirements.txt

.venv/bin/ruff check --quiet .
.venv/bin/ruff format --check --quiet .
.venv/bin/mypy
.venv/bin/python -m pytest "$@"
