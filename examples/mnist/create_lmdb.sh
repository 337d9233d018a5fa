#!/usr/bin/env bash
# Fetches MNIST (11 MB) and makes mnist_train_lmdb and mnist_test_lmdb of it, in the folder of this script.
#
#   create_lmdb.sh
#
# Environment: POSEIDON, the command poseidon (default: build/bin/poseidon of this source tree, else the one in PATH);
# POSEIDON_MIRROR, as examples/fetch.sh has it.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../find_poseidon.sh"

"$here/../fetch.sh" "$here/files.md5" "$here/files"
for part in train:train test:t10k; do
  for file in images-idx3 labels-idx1; do
    gzip --decompress --stdout "$here/files/${part#*:}-$file-ubyte.gz" > "$here/files/${part#*:}-$file-ubyte"
  done
  rm -rf "$here/mnist_${part%:*}_lmdb"
  "$poseidon" convert-mnist "$here/files/${part#*:}-images-idx3-ubyte" "$here/files/${part#*:}-labels-idx1-ubyte" "$here/mnist_${part%:*}_lmdb"
done
