#!/usr/bin/env bash
# Fetches CIFAR-10 (170 MB) and makes cifar10_train_lmdb, cifar10_test_lmdb and mean.binaryproto of it, in the folder of this script.
#
#   create_lmdb.sh
#
# Environment: POSEIDON, the command poseidon (default: build/bin/poseidon of this source tree, else the one in PATH);
# POSEIDON_MIRROR, as examples/fetch.sh has it.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../find_poseidon.sh"

"$here/../fetch.sh" "$here/files.md5" "$here/files"
tar --extract --gzip --file "$here/files/cifar-10-binary.tar.gz" --directory "$here/files"
rm -rf "$here/cifar10_train_lmdb" "$here/cifar10_test_lmdb"
"$poseidon" convert-cifar "$here/files/cifar-10-batches-bin" "$here" lmdb
"$poseidon" image-mean "$here/cifar10_train_lmdb" "$here/mean.binaryproto"
