#!/usr/bin/env bash
# Makes the two data bases that the LeNet example trains and tests with: digits_train_lmdb (1,437 images) and digits_test_lmdb
# (360), 28 x 28 pixels, gray. It walks the path that your own images would take: files, a list, `poseidon convert-images`.
#
#   create_lmdb.sh [--force] [--seed N] [FOLDER]
#
#   --force   make them anew where they exist already
#   --seed N  another split into training and testing (default 1)
#   FOLDER    where they go (default: the folder of this script)
#
# Environment: POSEIDON, the command poseidon (default: build/bin/poseidon of this source tree, else the one in PATH);
# PYTHON (default: python3).
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
folder="$here"
force=""
seed=1
while [ $# -gt 0 ]; do
  case "$1" in
    --force) force=yes ;;
    --seed)
      [ $# -ge 2 ] || { echo "create_lmdb.sh: --seed needs a number" >&2; exit 2; }
      seed="$2"
      shift
      ;;
    -h | --help)
      sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
      exit 0
      ;;
    -*)
      echo "create_lmdb.sh: there is no flag $1; --help shows them" >&2
      exit 2
      ;;
    *) folder="$1" ;;
  esac
  shift
done

if [ -z "$force" ] && [ -e "$folder/digits_train_lmdb/data.mdb" ] && [ -e "$folder/digits_test_lmdb/data.mdb" ]; then
  echo "$folder: digits_train_lmdb and digits_test_lmdb exist already (--force makes them anew)"
  exit 0
fi

source "$here/../find_poseidon.sh"

mkdir -p "$folder"
"${PYTHON:-python3}" "$here/make_images.py" --seed "$seed" "$folder/images"
for part in train test; do
  "$poseidon" convert-images --gray --resize-width 28 --resize-height 28 --overwrite \
    "$folder/images" "$folder/images/$part.txt" "$folder/digits_${part}_lmdb"
done
