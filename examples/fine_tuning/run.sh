#!/usr/bin/env bash
# Fine-tuning: LeNet, trained to tell ten digits apart, learns with 50 images of a new task whether a digit is odd. The same net from
# nothing, with the same images and settings, stands beside it.
#
#   examples/fine_tuning/run.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source examples/find_poseidon.sh
files=examples/fine_tuning/files

examples/digits/train.sh
mkdir -p "$files"
images=examples/digits/images
awk 'NR <= 50 { print $1, $2 % 2 }' "$images/train.txt" > "$files/train.txt"
awk '{ print $1, $2 % 2 }' "$images/test.txt" > "$files/test.txt"
for part in train test; do
  "$poseidon" convert-images --gray --resize-width 28 --resize-height 28 --overwrite "$images" "$files/$part.txt" "$files/odd_${part}_lmdb"
done

"$poseidon" train --solver examples/fine_tuning/solver.prototxt --run-folder "$files/from_nothing" > "$files/from_nothing.txt"
"$poseidon" train --solver examples/fine_tuning/solver.prototxt --run-folder "$files/fine_tuned" \
  --weights examples/digits/snapshots/lenet_iter_600.caffemodel > "$files/fine_tuned.txt"
for way in from_nothing fine_tuned; do
  echo "$way: $(grep 'accuracy' "$files/$way.txt" | tail -1)"
done
