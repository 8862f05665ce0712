#!/bin/sh
# Installs locks into an environment: install.sh .venv/bin/python FILE...
#
# Each package is held against its hash. Only on 32-bit ARM it is not: what runs there comes ready-made from piwheels,
# which builds it anew, so that its hashes are others; without it a Pi would have to compile Rust for hours. The versions
# are those of the lock all the same.
set -eu
python=$1
shift

if "$python" -c 'import platform, sys; sys.exit(not (sys.maxsize < 2**32 and platform.machine()[:3] in ("arm", "aar")))'
then
    echo "32-bit ARM: installing the versions of the lock, without their hashes" >&2
    plain=$(mktemp)
    trap 'rm -f "$plain"' EXIT
    bare() {
        sed -e '/^-r /d' -e '/^ *--hash=/d' -e 's/ *\\$//' "$1" >>"$plain"
        for inner in $(sed -n 's/^-r //p' "$1"); do bare "$inner"; done
    }
    for lock in "$@"; do bare "$lock"; done
    "$python" -m pip --disable-pip-version-check --quiet install --no-deps --prefer-binary -r "$plain"
else
    for lock in "$@"; do
        shift
        set -- "$@" -r "$lock"
    done
    "$python" -m pip --disable-pip-version-check --quiet install --no-deps --require-hashes "$@"
fi
