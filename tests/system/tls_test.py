"""`--tls`: encrypted links change nothing of the result, and cannot be had by half of a job."""
import pathlib

import pytest
from support import job

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_encrypted_links_give_the_same_bits(lenet):
    solver = lenet.solver(lenet.net(16), max_iter=10)
    digests = [lenet.train(solver, 2, "--scheme", "ps,ip1=sfb,ip2=adam", *flags).report["parameters_digest"] for flags in ([], ["--tls"])]
    assert digests[0] == digests[1]


def replay(poseidon, folder, *flags):
    return job.run(poseidon, "replay", "--model", ROOT / "examples/models/lenet.json", "--images-per-second", 100_000, "--batch", 8,
                   "--workers", 3, "--iterations", 3, "--warm-up", 0, "--run-folder", folder, *flags)


def test_a_replay_over_encrypted_links_ends_well(poseidon, tmp_path):
    replay(poseidon, tmp_path, "--tls").expect()


@pytest.mark.parametrize("worker, flags, sentence", [
    (1, [], "the other side speaks without TLS, and this one with it"),
    (0, ["--tls"], "the other side speaks TLS, and this one without it"),
], ids=["with it", "without it"])
def test_a_worker_that_speaks_otherwise_is_told_so(poseidon, tmp_path, worker, flags, sentence):
    # The command repeats the launcher's flags, but a worker by another launcher may know nothing of them.
    start = tmp_path / "start"
    start.write_text(f'#!/bin/sh\ncommand=$1; shift; for word; do shift; [ "$word" = --tls ] || set -- "$@" "$word"; done\n'
                     f'POSEIDON_TLS={worker} exec "$command" "$@"\n')
    start.chmod(0o755)
    done = replay(poseidon, tmp_path, "--start", start, *flags).expect(3)
    assert f"{sentence}: give --tls to all processes of a job, or to none" in done.err
