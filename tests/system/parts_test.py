"""Data without a shared file system: worker k trains and tests on a part of its own, and all together on what one would."""
import pytest
from support import job

ITERATIONS = 12


@pytest.fixture
def parts(lenet):
    """A function of the number of workers: LeNet whose data bases are parts, dealt in turn."""
    def net(workers, batch):
        for phase in ("train", "test"):
            job.run(lenet.poseidon, "partition-data", "--turn", f"{lenet.digits}/digits_{phase}_lmdb", workers, f"parts-{workers}-{phase}",
                    cwd=lenet.folder).expect()

        def edit(text):
            for phase in ("train", "test"):
                text = text.replace(f'"{lenet.digits}/digits_{phase}_lmdb"', f'"{lenet.folder}/parts-{workers}-{phase}" shared_file_system: false')
            return with_draws(text)
        return lenet.net(batch, f"parts-{workers}.prototxt", edit=edit)
    return net


def with_draws(text):
    """Training images are mirrored and cropped by chance, and come to the net as large as they were."""
    changed = text.replace("scale: 0.00390625 }", "scale: 0.00390625 mirror: true crop_size: 24 }", 1)
    changed = changed.replace("scale: 0.00390625 }", "scale: 0.00390625 crop_size: 24 }", 1)
    assert changed.count("crop_size") == 2
    return changed


@pytest.fixture
def shared(lenet):
    """Losses and test scores of one worker with the global batch."""
    solver = lenet.solver(lenet.net(32, "shared.prototxt", edit=with_draws), "shared_solver.prototxt", test=True, max_iter=ITERATIONS, test_interval=6)
    return lenet.train(solver, 1, "--dtype", "float64").report


@pytest.mark.parametrize("workers", [2, 4])
def test_parts_train_as_the_whole_does(lenet, parts, shared, workers):
    """Mirrored and cropped alike, since draws are for a record's number in the whole; each test image counts once."""
    solver = lenet.solver(parts(workers, 32 // workers), test=True, max_iter=ITERATIONS, test_interval=6)
    done = lenet.train(solver, workers, "--dtype", "float64")
    assert job.losses(done) == pytest.approx([loss for _, loss in shared["train_loss"]], rel=1e-9)
    assert len(done.report["test"]) == 3
    for ours, theirs in zip(done.report["test"], shared["test"], strict=True):
        assert ours["accuracy"] == pytest.approx(theirs["accuracy"], rel=1e-12)
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-9)


def test_a_snapshot_goes_on_in_the_parts(lenet, parts):
    solver = lenet.solver(parts(2, 16), max_iter=ITERATIONS, snapshot=5)
    whole = lenet.train(solver, 2, "--scheme", "ps")
    rest = lenet.train(solver, 2, "--scheme", "ps", "--snapshot", whole.report["snapshots"][0]["state"])
    assert rest.report["train_loss"] == whole.report["train_loss"][5:]
    assert rest.report["parameters_digest"] == whole.report["parameters_digest"]


def test_a_part_that_is_missing_is_named_with_its_worker(lenet, parts):
    solver = lenet.solver(parts(2, 16), max_iter=ITERATIONS)
    done = lenet.train(solver, 3, code=3)
    assert 'layer "digits" (Data)' in done.err and "worker 2 reads its own part of the data" in done.err and "parts-2-train_2" in done.err, done.err
