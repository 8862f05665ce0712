#!/usr/bin/env bash
# Locks every requirements/*.in with hashes, for every platform at once, so that one package has one version in all of them.
set -euo pipefail
cd "$(dirname "$0")"
together=$(mktemp)
trap 'rm -f "$together"' EXIT
compile() { uv pip compile --quiet --universal --python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links "$@"; }
compile --upgrade --no-annotate ./*.in --output-file "$together"
for wanted in ./*.in; do
    compile --generate-hashes --constraint "$together" "$wanted" --output-file "${wanted%.in}.txt"
    sed -i "s#$together#the common lock#" "${wanted%.in}.txt"
done
