#!/usr/bin/env bash
# What a trained net knows, used for something else: the 500 numbers of LeNet's last hidden layer, for all digits, and a classifier that
# was never trained at all: each test image is what its nearest training image is.
#
#   examples/features/run.sh [WORKERS]
#
# The rows are in the order of the data, whatever the number of workers.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source examples/find_poseidon.sh
workers="${1:-2}"

examples/digits/train.sh
# Both data bases as TEST data, so that each record comes once: 8 batches of 45 are the 360 test images, 32 of 45 with 3 over the others.
mkdir -p examples/features/files
sed 's/digits_test_lmdb/digits_train_lmdb/' examples/digits/lenet_train_test.prototxt > examples/features/files/train_images.prototxt
for part in "train examples/features/files/train_images.prototxt 31" "test examples/digits/lenet_train_test.prototxt 8"; do
  read -r name model batches <<< "$part"
  "$poseidon" features --model "$model" --weights examples/digits/snapshots/lenet_iter_600.caffemodel --blobs data,ip1,label \
    --iterations "$batches" --workers "$workers" --out "examples/features/files/$name"
done
"${PYTHON:-python3}" examples/features/nearest.py examples/features/files
