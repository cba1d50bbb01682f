# Sourced by start.sh and test.sh in the project's root; sets up .venv from the lock files.

python=${PYTHON:-python3}
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "Python 3.11 or newer is required; set PYTHON to its path if it is not \"python3\"" >&2
    exit 1
fi
if [ ! -x .venv/bin/pip ] && ! "$python" -m venv .venv; then
    rm -rf .venv
    echo "\"$python -m venv\" failed; on Debian and Ubuntu: apt install python3-venv" >&2
    exit 1
fi

# install LOCKFILE: install its packages, checked against their hashes, unless already done
install() {
    local done=".venv/${1//\//-}"
    cmp -s "$1" "$done" && return
    echo "Installing $1 ..." >&2
    .venv/bin/python -m pip install --disable-pip-version-check --require-hashes --no-deps \
        --only-binary :all: -r "$1" >&2
    cp "$1" "$done"
}
