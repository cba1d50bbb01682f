# Sourced by start.sh and venv.sh in the project's root; finds a Python that is new enough.

# stop WORDS...: exit with one line on stderr
stop() {
    echo "$*" >&2
    exit 1
}

python=${PYTHON:-python3}
command -v "$python" >/dev/null || stop "no Python found at \"$python\"; install Python 3.11 or" \
    "newer, or set PYTHON to its path"
"$python" -c '' 2>/dev/null || stop "\"$python\" does not run; set PYTHON to a working Python 3.11 or newer"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    stop "Python 3.11 or newer is required; set PYTHON to its path if it is not \"python3\""
