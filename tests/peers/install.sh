#!/usr/bin/env bash
# Installs the servers that the tests start for themselves on the loopback address, and leaves none of them running,
# the MicroPython in which the files of deploy/esp32 are tested, and the checker of Flux.
set -euo pipefail
packages=(bc chromium cpio cron docker-compose graphite-carbon graphite-web influxdb mosquitto nginx-light prometheus qemu-system-x86 systemd victoria-metrics xz-utils)
command -v apt-get >/dev/null || { echo "make peers knows Debian only; elsewhere install: ${packages[*]}" >&2; exit 1; }
missing=()
for package in "${packages[@]}"; do dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package"); done
command -v npm >/dev/null || missing+=(nodejs npm)
here=$(cd "$(dirname "$0")" && pwd)
install_for_node() { # FOLDER NAME
    cd "$here/$1"
    [ package-lock.json -nt node_modules/.package-lock.json ] || return 0
    npm ci --ignore-scripts --no-audit --no-fund --silent
    echo "installed: $2 for Node"
}
install_all_for_node() {
    install_for_node ../deploy/micropython MicroPython
    install_for_node flux "the checker of Flux"
}
[ ${#missing[@]} -eq 0 ] && { install_all_for_node; echo "all peers are installed"; exit 0; }
as_root=(); [ "$(id -u)" -eq 0 ] || as_root=(sudo)
# Debian starts a daemon as soon as it is installed; the tests start their own, so none may run.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod +x "$policy"
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
echo "installed: ${missing[*]}"
install_all_for_node
