#!/usr/bin/env bash
# Gives series that are there already the rules of this folder: deploy/graphite/apply-rules.sh WHISPER_FOLDER
#
# Carbon looks at storage-schemas.conf and storage-aggregation.conf only when it makes a file. Stop carbon first, make a
# backup, and run this as carbon's own user (Debian: sudo -u _graphite). Files that follow the rules are left alone.
set -euo pipefail

whisper=${1:?"usage: $0 WHISPER_FOLDER"}
here=$(cd "$(dirname "$0")" && pwd)
cd "$whisper"
command -v whisper-resize >/dev/null || { echo "whisper-resize is missing; Debian: apt install python3-whisper" >&2; exit 2; }

# As carbon reads its files: the first section whose pattern fits.
rule() { # FILE SERIES KEY
    awk -v series="$2" -v key="$3" '
        /^pattern[ \t]*=/ { sub(/^[^=]*=[ \t]*/, ""); fits = series ~ $0 }
        $1 == key && fits { sub(/^[^=]*=[ \t]*/, ""); print; exit }' "$here/$1"
}

changed=0
while IFS= read -r -d '' file; do
    series=${file#./}
    series=${series%.wsp}
    series=${series//\//.}
    retentions=$(rule storage-schemas.conf "$series" retentions)
    method=$(rule storage-aggregation.conf "$series" aggregationMethod)
    factor=$(rule storage-aggregation.conf "$series" xFilesFactor)
    [ -n "$retentions" ] && [ -n "$method" ] || continue
    wanted=$(mktemp --dry-run --suffix=.wsp)
    whisper-create --xFilesFactor="$factor" --aggregationMethod="$method" "$wanted" ${retentions//,/ } >/dev/null
    if [ "$(whisper-info "$wanted")" != "$(whisper-info "$file")" ]; then
        whisper-resize --nobackup --xFilesFactor="$factor" --aggregationMethod="$method" "$file" ${retentions//,/ } >/dev/null
        changed=$((changed + 1))
    fi
    rm -f "$wanted"
done < <(find . -type f -name '*.wsp' -print0)
echo "$changed series follow the rules of $here now"
