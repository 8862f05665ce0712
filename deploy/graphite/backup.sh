#!/usr/bin/env bash
# Backs up Graphite's whisper files while carbon goes on writing: deploy/graphite/backup.sh WHISPER_FOLDER ARCHIVE.tar.gz
#
# Whisper changes its files in place, so a plain copy may have half of a change in it. Each file is copied until the copy
# is what the file still is. Status 3: some file never stood still for as long as that takes; all others are in the archive.
set -euo pipefail

usage="usage: $0 WHISPER_FOLDER ARCHIVE.tar.gz"
whisper=${1:?$usage}
archive=${2:?$usage}
[ -d "$whisper" ] || { echo "$whisper is no folder; Debian's is /var/lib/graphite/whisper" >&2; exit 2; }
archive=$(realpath -m "$archive")
mkdir -p "$(dirname "$archive")"
work=$(mktemp -d "$(dirname "$archive")/.whisper-backup-XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/whisper"

copied_whole() { # FILE COPY
    local before
    for _ in $(seq 20); do
        before=$(stat --format '%y %s' "$1") || return 1
        cp --preserve=timestamps "$1" "$2" || return 1
        cmp --silent "$1" "$2" && [ "$before" = "$(stat --format '%y %s' "$1")" ] && return
        sleep 0.05
    done
    rm -f "$2"
    return 1
}

cd "$whisper"
count=0
restless=()
while IFS= read -r -d '' file; do
    mkdir -p "$work/whisper/$(dirname "$file")"
    if copied_whole "$file" "$work/whisper/$file"; then count=$((count + 1)); else restless+=("$file"); fi
done < <(find . -type f -name '*.wsp' -print0)
[ "$count" -gt 0 ] || { echo "there is no whisper file in $whisper" >&2; exit 1; }
tar --create --gzip --file "$work/archive" --directory "$work" whisper
gzip --test "$work/archive"
chmod 600 "$work/archive"
mv "$work/archive" "$archive"
echo "$archive: $count series, $(du -h "$archive" | cut -f 1)"
[ ${#restless[@]} -eq 0 ] || { printf 'not in it, it never stood still: %s\n' "${restless[@]}" >&2; exit 3; }
