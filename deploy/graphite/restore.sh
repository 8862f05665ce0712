#!/usr/bin/env bash
# Puts a backup of whisper files back: deploy/graphite/restore.sh ARCHIVE.tar.gz WHISPER_FOLDER
#
# Stop carbon first, and run this as carbon's own user (Debian: sudo -u _graphite). A series that is not there comes back
# as it was. One that is there keeps all that it has, and what it lacks is filled in from the backup.
set -euo pipefail

usage="usage: $0 ARCHIVE.tar.gz WHISPER_FOLDER"
archive=${1:?$usage}
whisper=${2:?$usage}
[ -f "$archive" ] || { echo "there is no $archive" >&2; exit 2; }
fill=$(command -v whisper-fill || command -v whisper-fill.py) || { echo "whisper-fill is missing; Debian: apt install python3-whisper" >&2; exit 2; }
mkdir -p "$whisper"
whisper=$(realpath "$whisper")
work=$(mktemp -d "$whisper/.restore-XXXXXX")
trap 'rm -rf "$work"' EXIT
tar --extract --gzip --file "$archive" --directory "$work"
cd "$work/whisper"
back=0
filled=0
while IFS= read -r -d '' file; do
    if [ -e "$whisper/$file" ]; then
        "$fill" "$file" "$whisper/$file"
        filled=$((filled + 1))
    else
        mkdir -p "$whisper/$(dirname "$file")"
        cp --preserve=timestamps "$file" "$whisper/$file"
        back=$((back + 1))
    fi
done < <(find . -type f -name '*.wsp' -print0)
echo "$whisper: $back series are back, $filled were filled up"
