#!/usr/bin/env bash
# VGG19 with ImageNet's 21,841 classes: 229 million parameters, nine tenths of them in three fully connected layers. What a cluster
# makes of it, with gradients sent as they are (ps) and as Poseidon would (auto): 2 to 32 nodes with links of 10 Gbit/s, each with a GPU
# that trains 34.6 images a second alone (the published figure for a Titan X).
#
#   examples/vgg19_22k/run.sh [FOLDER]
#
# Writes two charts and the net into FOLDER (default: examples/vgg19_22k/files).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source examples/find_poseidon.sh
folder="${1:-examples/vgg19_22k/files}"

mkdir -p "$folder"
examples/nets/nets.py vgg19-22k --batch 32 > "$folder/vgg19-22k.prototxt"
for scheme in ps auto; do
  echo "== gradients by $scheme"
  "$poseidon" plan --model examples/models/vgg19-22k.json --images-per-second 34.6 --batch 32 --nodes 2,4,8,16,32 --bandwidth 10Gbit \
    --scheme "$scheme" --plot "$folder/$scheme.png"
done
echo "the net, for data bases vgg19-22k_train_lmdb and vgg19-22k_test_lmdb: $folder/vgg19-22k.prototxt"
