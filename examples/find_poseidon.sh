# For the scripts of the examples, which source it: sets `poseidon` to the command. That is $POSEIDON, else build/bin/poseidon of this
# source tree, else the one in PATH.
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
poseidon="${POSEIDON:-$root/build/bin/poseidon}"
if [ -z "${POSEIDON:-}" ] && [ ! -x "$poseidon" ]; then
  poseidon="$(command -v poseidon || true)"
fi
if [ -z "$poseidon" ] || ! command -v "$poseidon" > /dev/null; then
  echo "$(basename "$0"): there is no command poseidon in $root/build/bin; build it (scripts/setup), or set POSEIDON" >&2
  exit 1
fi
