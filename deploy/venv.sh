# Sourced by start.sh and test.sh in the project's root; sets up .venv from the lock files.

source deploy/python.sh

# writable PATH: exit with one line unless PATH is writable
writable() {
    [ -w "$1" ] || stop "cannot write to $1, where packages must be installed; use your own copy"
}

if [ -e .venv ] && ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    writable "$PWD"
    echo "the Python that .venv uses is gone: setting it up again" >&2
    rm -rf .venv
fi
if [ ! -e .venv ]; then
    writable "$PWD"
    "$python" -m venv .venv || {
        rm -rf .venv
        stop "\"$python -m venv\" failed; on Debian and Ubuntu: apt install python3-venv"
    }
fi

# install LOCKFILE: install its packages, checked against their hashes, unless already done
install() {
    local done=".venv/${1//\//-}"
    cmp -s "$1" "$done" && return
    writable "$PWD/.venv"
    echo "Installing $1 ..." >&2
    .venv/bin/python -m pip install --disable-pip-version-check --require-hashes --no-deps \
        --only-binary :all: -r "$1" >&2 ||
        stop "cannot install $1. Is the package index reachable? PIP_INDEX_URL names a mirror;" \
            "PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER installs from a folder of wheels that" \
            "\"pip download\" made elsewhere"
    cp "$1" "$done"
}

# install_engine: install the built-in model, and the libgomp that it needs if the system has none
install_engine() {
    install core/engine/requirements.txt
    if [ "$(uname)" = Linux ] && ! .venv/bin/python -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null; then
        install core/engine/libgomp.txt
        # The wheel has it under another name than the one the engine looks for.
        ln -sf "$(cd .venv/lib && echo python3*/site-packages/pykdtree.libs/libgomp-*)" .venv/lib/libgomp.so.1
        export LD_LIBRARY_PATH="$PWD/.venv/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
    fi
}
