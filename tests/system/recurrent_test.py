"""Recurrent layers over several workers: streams are shared out, and what they carry from batch to batch goes on after a snapshot."""
import lmdb
import pytest
from support import caffe_files, job

CHANNELS, RECORDS, STREAMS = 4, 30, 4


@pytest.fixture
def sequences(lenet):
    """A function of the number of workers: a solver of a net that takes one step of its streams in each batch, so that all they know
    of what came before is what they carry. Dropout stands before and behind the LSTM."""
    with lmdb.open(str(lenet.folder / "steps_lmdb"), map_size=1 << 24) as data_base, data_base.begin(write=True) as transaction:
        for record in range(RECORDS):
            pixels = bytes((record * 53 + channel * 89) % 251 for channel in range(CHANNELS))
            transaction.put(b"%08d" % record, caffe_files.encoded_datum((CHANNELS, 1, 1), pixels, record % 3))

    def solver(workers, **settings):
        streams = STREAMS // workers
        net = lenet.folder / f"sequences-{workers}.prototxt"
        net.write_text(f"""
layer {{ name: "data" type: "Data" top: "pixels" top: "labels" transform_param {{ scale: 0.01 }}
  data_param {{ source: "{lenet.folder}/steps_lmdb" backend: LMDB batch_size: {streams} }} }}
layer {{ name: "steps" type: "Reshape" bottom: "pixels" top: "steps" reshape_param {{ shape {{ dim: 1 dim: -1 dim: {CHANNELS} }} }} }}
layer {{ name: "wanted" type: "Reshape" bottom: "labels" top: "wanted" reshape_param {{ shape {{ dim: 1 dim: -1 }} }} }}
layer {{ name: "cont" type: "DummyData" top: "cont" dummy_data_param {{ shape {{ dim: 1 dim: {streams} }} data_filler {{ value: 1 }} }} }}
layer {{ name: "drop1" type: "Dropout" bottom: "steps" top: "steps_kept" dropout_param {{ dropout_ratio: 0.3 }} }}
layer {{ name: "lstm" type: "LSTM" bottom: "steps_kept" bottom: "cont" top: "hidden" recurrent_param {{ num_output: 5 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "drop2" type: "Dropout" bottom: "hidden" top: "hidden" dropout_param {{ dropout_ratio: 0.3 }} }}
layer {{ name: "scores" type: "InnerProduct" bottom: "hidden" top: "scores" inner_product_param {{ num_output: 3 axis: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "wanted" top: "loss" softmax_param {{ axis: 2 }} }}
""")
        return lenet.solver(net, f"sequences-{workers}-solver.prototxt", **{"base_lr": 0.2, "max_iter": 16, **settings})
    return solver


@pytest.fixture
def one_worker(lenet, sequences):
    return job.losses(lenet.train(sequences(1), 1, "--dtype", "float64"))


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_with_some_streams_each_train_as_one_with_all(lenet, sequences, one_worker, workers):
    assert job.losses(lenet.train(sequences(workers), workers, "--dtype", "float64")) == pytest.approx(one_worker, rel=1e-9)


@pytest.mark.parametrize("before, after", [(2, 2), (4, 2), (1, 4)])
def test_sequences_go_on_after_a_snapshot(lenet, sequences, one_worker, before, after):
    """Also on another number of workers, and bit for bit on the same."""
    whole = lenet.train(sequences(before, snapshot=7), before, "--dtype", "float64", "--scheme", "ps", "--threads", 1)
    state = whole.report["snapshots"][0]["state"]
    rest = lenet.train(sequences(after), after, "--dtype", "float64", "--scheme", "ps", "--threads", 1, "--snapshot", state)
    assert job.losses(rest) == pytest.approx(one_worker[7:], rel=1e-9)
    if before == after:
        assert rest.report["parameters_digest"] == whole.report["parameters_digest"]
