"""Files in HDF5, with h5py for a second opinion: models, snapshots, data and features."""
import h5py
import numpy
import pytest
from support import job


KEEP = 'layer {{ name: "keep" type: "HDF5Output" bottom: "ip2" bottom: "label" hdf5_output_param {{ file_name: "{file}" }} }}\n'


def make_model(path, arrays, shared=()):
    """A model as Caffe lays it out: data/LAYER/NUMBER; `shared` are layers without arrays of their own."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        for layer, blobs in arrays.items():
            group = data.create_group(layer)
            for number, blob in enumerate(blobs):
                group.create_dataset(str(number), data=blob)
        for layer in shared:
            data.create_group(layer)


def lenet_arrays(path):
    with h5py.File(path) as file:
        return {layer: [group[str(number)][()] for number in range(len(group))] for layer, group in file["data"].items()}


@pytest.fixture
def trained(lenet):
    """A net, and its models of three iterations in both forms."""
    net = lenet.net(8)
    for form in ("HDF5", "BINARYPROTO"):
        lenet.train(lenet.solver(net, max_iter=3, snapshot_after_train="true", snapshot_format=form), 1)
    return net, lenet.folder / "snapshots/lenet_iter_3.caffemodel.h5"


def scores(lenet, net, weights):
    return job.run(lenet.poseidon, "test", "--model", net, "--weights", weights, "--iterations", 2, "--json", cwd=lenet.folder).expect().out


def test_a_snapshot_has_caffes_layout(lenet, trained):
    _, model = trained
    arrays = lenet_arrays(model)
    assert {layer: [blob.shape for blob in blobs] for layer, blobs in arrays.items()} == {
        "conv1": [(20, 1, 5, 5), (20,)], "conv2": [(50, 20, 5, 5), (50,)], "ip1": [(500, 800), (500,)], "ip2": [(10, 500), (10,)]}
    assert arrays["conv1"][0].dtype == numpy.float32
    with h5py.File(lenet.folder / "snapshots/lenet_iter_3.solverstate.h5") as state:
        assert state["iter"][()].tolist() == [3] and state["iter"].dtype == numpy.int32
        assert state["current_step"][()].tolist() == [0]
        assert state["learned_net"][()].decode() == str(model)
        assert sorted(state["history"], key=int) == [str(number) for number in range(8)]
        assert state["history/0"].shape == (20, 1, 5, 5)
        assert state["poseidon/dtype"][()] == b"float32"


def test_both_forms_hold_the_same_model(lenet, trained):
    net, model = trained
    assert scores(lenet, net, model) == scores(lenet, net, model.with_suffix(""))


def test_a_model_that_h5py_has_written_is_read(lenet, trained):
    net, model = trained
    arrays = lenet_arrays(model)
    arrays["of another net"] = [numpy.zeros(3)]
    other = lenet.folder / "written.h5"
    make_model(other, {layer: [blob.astype(numpy.float64) for blob in blobs] for layer, blobs in arrays.items()})
    assert scores(lenet, net, other) == scores(lenet, net, model)


def test_training_goes_on_from_an_hdf5_snapshot_with_another_number_of_workers(lenet):
    net, half = lenet.net(8), lenet.net(4, name="half.prototxt")
    settings = {"snapshot_after_train": "true", "snapshot_format": "HDF5"}
    straight = lenet.train(lenet.solver(net, max_iter=6, **settings), 1, "--dtype", "float64", "--threads", 1)
    lenet.train(lenet.solver(net, max_iter=3, **settings), 1, "--dtype", "float64", "--threads", 1)
    rest = lenet.train(lenet.solver(half, max_iter=6, **settings), 2, "--dtype", "float64", "--threads", 1,
                       "--snapshot", "snapshots/lenet_iter_3.solverstate.h5")
    assert job.losses(rest) == pytest.approx(job.losses(straight)[3:], rel=1e-9)


def test_convert_model_writes_and_reads_it(lenet, trained):
    _, model = trained
    for name in ("a.safetensors", "b.caffemodel.h5", "c.caffemodel", "d.h5"):
        job.run(lenet.poseidon, "convert-model", model, name, cwd=lenet.folder).expect()
        model = lenet.folder / name
    first, last = lenet_arrays(trained[1]), lenet_arrays(model)
    assert first.keys() == last.keys()
    for layer, blobs in first.items():
        assert all(numpy.array_equal(one, other) for one, other in zip(blobs, last[layer], strict=True))


def test_a_damaged_model_is_told(lenet, trained):
    net, model = trained
    whole = model.read_bytes()
    bad = lenet.folder / "bad.h5"
    bad.write_bytes(whole[:len(whole) // 2])
    done = job.run(lenet.poseidon, "test", "--model", net, "--weights", bad, "--iterations", 1, cwd=lenet.folder).expect(3)
    assert "bad.h5 is no HDF5 file, or it is truncated or damaged" in done.err


@pytest.fixture
def rows(lenet):
    """Forty images [1, 28, 28] with whole numbers for labels in two files, one of them compressed, and a net on them."""
    random = numpy.random.default_rng(5)
    for name, count, how in (("first.h5", 15, {}), ("second.h5", 25, {"compression": "gzip", "chunks": True})):
        with h5py.File(lenet.folder / name, "w") as file:
            labels = random.integers(0, 10, count)
            images = random.random((count, 1, 28, 28)) + labels[:, None, None, None] / 5
            file.create_dataset("data", data=images.astype(numpy.float32), **how)
            file.create_dataset("label", data=labels.astype(numpy.uint8), **how)
    (lenet.folder / "list.txt").write_text("first.h5\nsecond.h5\n")
    text = lenet.net(8).read_text()
    body = text[text.index('layer {\n  name: "conv1"'):]

    def net(batch, more=""):
        path = lenet.folder / f"rows{batch}.prototxt"
        path.write_text('layer { name: "rows" type: "HDF5Data" top: "data" top: "label" '
                        f'hdf5_data_param {{ source: "list.txt" batch_size: {batch} {more} }} }}\n' + body)
        return path
    return net


@pytest.mark.parametrize("more", ["", "shuffle: true"])
def test_workers_share_rows_out(lenet, rows, more):
    def train(batch, workers):
        done = lenet.train(lenet.solver(rows(batch, more), max_iter=12), workers, "--dtype", "float64", "--threads", 1)
        return job.losses(done)
    assert train(4, 2) == pytest.approx(train(8, 1), rel=1e-9)


def test_features_of_rows_are_rows_of_hdf5(lenet, rows, trained):
    net = rows(8)
    for form in ("hdf5", "npy"):
        job.run(lenet.poseidon, "features", "--model", net, "--weights", trained[1], "--blobs", "data,ip2", "--out", "out", "--iterations", 3,
                "--workers", 2, "--threads", 1, "--format", form, cwd=lenet.folder).expect()
    with h5py.File(lenet.folder / "out/data.h5") as written, h5py.File(lenet.folder / "first.h5") as first:
        assert written["data"].shape == (24, 1, 28, 28)
        assert numpy.array_equal(written["data"][:15], first["data"])
    with h5py.File(lenet.folder / "out/ip2.h5") as written:
        assert numpy.array_equal(written["ip2"], numpy.load(lenet.folder / "out/ip2.npy"))
    assert sorted(path.name for path in (lenet.folder / "out").iterdir()) == ["data.h5", "data.npy", "ip2.h5", "ip2.npy"]


def test_hdf5_output_keeps_what_a_test_computes(lenet, rows, trained):
    net = rows(8)
    net.write_text(net.read_text() + KEEP.format(file="kept.h5"))
    job.run(lenet.poseidon, "test", "--model", net, "--weights", trained[1], "--iterations", 5, cwd=lenet.folder).expect()
    with h5py.File(lenet.folder / "kept.h5") as kept, h5py.File(lenet.folder / "first.h5") as first:
        assert kept["data"].shape == (40, 10)
        assert numpy.array_equal(kept["label"][:15], first["label"])


def test_hdf5_output_that_meets_a_full_disk_ends_the_command(lenet, rows, trained):
    """Files may have 3 KiB: the rows have 1.6, the HDF5 file has more."""
    net = rows(8)
    net.write_text(net.read_text() + KEEP.format(file="kept.h5"))
    done = job.run("bash", "-c", 'ulimit -f 3; exec "$@"', "bash", lenet.poseidon, "test", "--model", net, "--weights", trained[1].with_suffix(""),
                   "--iterations", 5, cwd=lenet.folder).expect(5)
    assert 'layer "keep" (HDF5Output) has written nothing: cannot write kept.h5' in done.err and done.out == "", done.err
    assert not list(lenet.folder.glob("*kept.h5*"))


def test_hdf5_output_that_cannot_be_written_ends_a_training(lenet, rows):
    net = rows(4)
    net.write_text(net.read_text() + KEEP.format(file="kept.h5"))
    (lenet.folder / "kept.h5.1").mkdir()
    done = lenet.train(lenet.solver(net, max_iter=3), 2, code=5)
    assert 'layer "keep" (HDF5Output) has written nothing: cannot write kept.h5.1: it is a folder' in done.err, done.err


def test_a_leveldb_of_features_is_read_as_data(lenet, trained):
    net, model = trained
    job.run(lenet.poseidon, "features", "--model", net, "--weights", model, "--blobs", "ip1", "--out", "out", "--iterations", 2, "--format",
            "leveldb", cwd=lenet.folder).expect()
    reading = lenet.folder / "reading.prototxt"
    reading.write_text('layer { name: "rows" type: "Data" top: "data" data_param { source: "out/ip1_leveldb" batch_size: 45 } }\n')
    empty = lenet.folder / "empty.h5"
    make_model(empty, {}, shared=["rows"])
    for name, source in (("again", reading), ("out", net)):
        blobs = "data" if source == reading else "ip1"
        job.run(lenet.poseidon, "features", "--model", source, "--weights", empty if source == reading else model, "--blobs", blobs, "--out", name,
                "--iterations", 2, cwd=lenet.folder).expect()
    again, ip1 = numpy.load(lenet.folder / "again/data.npy"), numpy.load(lenet.folder / "out/ip1.npy")
    assert numpy.array_equal(again.reshape(ip1.shape), ip1)
