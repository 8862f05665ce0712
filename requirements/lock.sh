#!/usr/bin/env bash
# Locks every requirements/*.in with hashes, for every platform at once, so that one package has one version in all of
# them. What is locked keeps its version, unless the script is called with --upgrade.
set -euo pipefail
cd "$(dirname "$0")"
together=$(mktemp)
trap 'rm -f "$together"' EXIT
compile() { uv pip compile --quiet --universal --python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links "$@"; }
# page.in is locked without what its packages would import: only the files that they carry are used.
others=(); for wanted in ./*.in; do [ "$wanted" = ./page.in ] || others+=("$wanted"); done
[ "${1:-}" = --upgrade ] || cat ./*.txt > "$together"
compile "$@" --no-annotate "${others[@]}" --output-file "$together"
for wanted in "${others[@]}"; do
    compile --generate-hashes --constraint "$together" "$wanted" --output-file "${wanted%.in}.txt"
    sed -i "s#$together#the common lock#" "${wanted%.in}.txt"
done
compile "$@" --generate-hashes --no-deps page.in --output-file page.txt
