#!/usr/bin/env bash
# Fetches the files of a list into a folder, and keeps none whose checksum is another than the list's.
#
#   fetch.sh LIST FOLDER
#
# LIST has a line for each file: its MD5 (md5sum writes it), its name, and the address of its folder. Files that are there
# and whole are not fetched again; one that broke off is gone on with.
#
# Environment: POSEIDON_MIRROR, the address of a folder to take instead of the list's (https://..., or file:///... for a copy of your own).
set -euo pipefail

if [ $# -ne 2 ]; then
  sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
  exit 2
fi
list="$1"
folder="$2"
command -v curl > /dev/null || { echo "fetch.sh: curl is missing; install it, or put the files of $list into $folder yourself" >&2; exit 1; }

is_whole() { echo "$1  $2" | md5sum --check --status 2> /dev/null; }

mkdir -p "$folder"
while read -r sum name address; do
  case "$sum" in "" | \#*) continue ;; esac
  file="$folder/$name"
  if is_whole "$sum" "$file"; then continue; fi
  from="${POSEIDON_MIRROR:-$address}/$name"
  echo "fetching $from"
  if ! curl --fail --location --continue-at - --retry 3 --connect-timeout 20 --no-progress-meter --output "$file.part" "$from"; then
    echo "fetch.sh: $from cannot be fetched. Put $name into $folder yourself, or say with POSEIDON_MIRROR where it is" >&2
    exit 1
  fi
  if ! is_whole "$sum" "$file.part"; then
    rm -f "$file.part"
    echo "fetch.sh: what $from gives is not $name of $list (another MD5 than $sum); it was thrown away" >&2
    exit 1
  fi
  mv "$file.part" "$file"
done < "$list"
