#!/usr/bin/env bash
# Makes the digits' data bases and trains LeNet on them, unless both are there already: examples/digits/snapshots/lenet_iter_600.caffemodel.
# Half a minute on two cores. Other examples go on from there.
#
#   examples/digits/train.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source examples/find_poseidon.sh

examples/digits/create_lmdb.sh
if [ -e examples/digits/snapshots/lenet_iter_600.caffemodel ]; then
  echo "examples/digits/snapshots: LeNet is trained already"
else
  "$poseidon" train --solver examples/digits/lenet_solver.prototxt
fi
