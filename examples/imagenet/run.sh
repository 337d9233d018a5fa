#!/usr/bin/env bash
# ImageNet (ILSVRC 2012), from its images to a net in training: data bases, mean image, prototxt, training. What is there is not made again.
#
#   examples/imagenet/run.sh NET IMAGES [--files FOLDER] [--batch B] [-- FLAGS OF poseidon train]
#
#   NET             alexnet, googlenet or resnet-50 with their papers' solvers, or another that examples/nets/nets.py writes, with AlexNet's
#   IMAGES          a folder with train/CLASS/*.JPEG and val/CLASS/*.JPEG; classes are numbered in the order of their names. Where val/ has
#                   no folders of classes, IMAGES/val.txt has a line "FILE NUMBER" for each image
#   --files FOLDER  where everything goes that is made (default: examples/imagenet/files): 25 GB for all of ImageNet
#   --batch B       images of one worker in an iteration (default 32)
#
#   examples/imagenet/run.sh alexnet /data/ilsvrc2012 -- --hosts gpu1,gpu2,gpu3,gpu4,gpu5,gpu6,gpu7,gpu8
#
# The images must be asked for at https://image-net.org. Environment: POSEIDON, as for the other examples.
set -euo pipefail

usage() { sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }
fail() { echo "run.sh: $1" >&2; exit "${2:-1}"; }

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
files="$root/examples/imagenet/files"
batch=32
places=()
while [ $# -gt 0 ]; do
  case "$1" in
    --files | --batch)
      [ $# -ge 2 ] || fail "$1 needs a value" 2
      [ "$1" = --files ] && files="$2" || batch="$2"
      shift
      ;;
    --)
      shift
      break
      ;;
    -h | --help)
      usage
      exit 0
      ;;
    -*) fail "there is no flag $1; --help shows them, and those of poseidon train come after --" 2 ;;
    *) places+=("$1") ;;
  esac
  shift
done
[ ${#places[@]} -eq 2 ] || { usage >&2; exit 2; }
net="${places[0]}"
images="${places[1]%/}"
source "$root/examples/find_poseidon.sh"
for part in train val; do
  [ -d "$images/$part" ] || fail "there is no folder $images/$part; $images must have train/ and val/"
done

mkdir -p "$files"
files="$(cd "$files" && pwd)"
# A list with the images of the folders of classes, numbered as train/ has them.
list_of() {
  (cd "$images/train" && find -L . -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | LC_ALL=C sort) > "$files/classes.txt"
  (cd "$images/$1" && find -L . -mindepth 2 -maxdepth 2 -type f -printf '%P\n' | LC_ALL=C sort) |
    awk -F/ -v classes="$files/classes.txt" 'BEGIN { while ((getline name < classes) > 0) number[name] = count++ }
      !($1 in number) { print "run.sh: " $0 " is of a class that train/ does not have" > "/dev/stderr"; exit 1 }
      { print $0, number[$1] }'
}
if [ -e "$images/val.txt" ]; then cp "$images/val.txt" "$files/val.txt"; else list_of val > "$files/val.txt"; fi
list_of train > "$files/train.txt"
for part in train val; do
  [ -s "$files/$part.txt" ] || fail "there are no images under $images/$part"
  if [ ! -e "$files/${part}_lmdb" ]; then
    shuffle=""
    [ "$part" = val ] || shuffle=--shuffle
    "$poseidon" convert-images --resize-width 256 --resize-height 256 --encode-type jpg $shuffle "$images/$part" "$files/$part.txt" "$files/${part}_lmdb"
  fi
done
[ -e "$files/mean.binaryproto" ] || "$poseidon" image-mean "$files/train_lmdb" "$files/mean.binaryproto"

"$root/examples/nets/nets.py" "$net" --train "$files/train_lmdb" --test "$files/val_lmdb" --mean "$files/mean.binaryproto" --batch "$batch" \
  > "$files/$net.prototxt"
settings="$root/examples/imagenet/${net}_settings.prototxt"
[ -e "$settings" ] || settings="$root/examples/imagenet/alexnet_settings.prototxt"
mkdir -p "$files/snapshots"
{
  echo "net: \"$files/$net.prototxt\""
  echo "snapshot_prefix: \"$files/snapshots/$net\""
  cat "$settings"
} > "$files/${net}_solver.prototxt"
exec "$poseidon" train --solver "$files/${net}_solver.prototxt" "$@"
