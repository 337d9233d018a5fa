"""Embed: the rows that a batch touches travel, and all workers train as one does with the dense gradient."""
import re

import lmdb
import pytest
from support import caffe_files, job

WORDS, COLUMNS, STEPS = 500, 16, 3
RECORDS = 48


@pytest.fixture
def words(lenet):
    """A data base whose images are sentences of STEPS words, with a class each."""
    with lmdb.open(str(lenet.folder / "words_lmdb"), map_size=1 << 24) as data_base, data_base.begin(write=True) as transaction:
        for record in range(RECORDS):
            sentence = bytes((record * 37 + step * 11) % 90 for step in range(STEPS))
            transaction.put(b"%08d" % record, caffe_files.encoded_datum((STEPS, 1, 1), sentence, record % 4))

    def solver(batch, **settings):
        net = lenet.folder / f"words-{batch}.prototxt"
        net.write_text(f"""
layer {{ name: "data" type: "Data" top: "words" top: "label" data_param {{ source: "{lenet.folder}/words_lmdb" backend: LMDB batch_size: {batch} }} }}
layer {{ name: "embed" type: "Embed" bottom: "words" top: "vectors"
  embed_param {{ input_dim: {WORDS} num_output: {COLUMNS} weight_filler {{ type: "gaussian" std: 0.5 }} bias_filler {{ type: "constant" value: 0.1 }} }} }}
layer {{ name: "ip" type: "InnerProduct" bottom: "vectors" top: "scores" inner_product_param {{ num_output: 4 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }}
""")
        return lenet.solver(net, f"words-{batch}-solver.prototxt", **{"base_lr": 0.1, "max_iter": 20, **settings})
    return solver


def layer(done, name):
    return next(entry for entry in done.report["layers"] if entry["name"] == name)


def distinct_words(first, batch):
    """How many words the records [first, first + batch) have, each counted once."""
    return len({(record % RECORDS * 37 + step * 11) % 90 for record in range(first, first + batch) for step in range(STEPS)})


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("settings", [{}, {"iter_size": 2, "clip_gradients": 0.5}, {"type": '"Adam"', "momentum": 0.9, "delta": 1e-8, "base_lr": 0.01}],
                         ids=["sgd", "iter_size", "adam"])
def test_rows_train_as_the_dense_gradient_does(lenet, words, workers, settings):
    """Momentum and decay also of rows that were not touched, as in Caffe: every bit is the same as with ps."""
    one = lenet.train(words(8, **settings), 1, "--dtype", "float64")
    flags = (workers, "--dtype", "float64", "--threads", 1)
    dense = lenet.train(words(8 // workers, **settings), *flags, "--scheme", "auto,embed=ps,ip=ps")
    rows = lenet.train(words(8 // workers, **settings), *flags, "--scheme", "auto,ip=ps")
    assert layer(dense, "embed")["scheme"] == "ps" and layer(rows, "embed")["scheme"] == "rows"
    assert job.losses(rows) == pytest.approx(job.losses(one), rel=1e-9)
    assert job.losses(rows) == pytest.approx(job.losses(dense), rel=1e-12)
    assert "equal on all workers" in rows.out


def test_touched_rows_are_what_travels(lenet, words):
    """To the byte: a size, and for each word of the batch its number and its numbers; the bias, and nothing else, by ps."""
    batch, workers, iterations = 4, 2, 6
    done = lenet.train(words(batch, max_iter=iterations), workers, "--scheme", "auto,ip=ps")
    entry = layer(done, "embed")
    assert entry["scheme"] == "rows"
    for worker in entry["by_worker"]:
        own = [distinct_words((iteration * workers + worker["rank"]) * batch, batch) for iteration in range(iterations)]
        assert worker["bytes_sent"] == pytest.approx(sum(8 + touched * (8 + 4 * COLUMNS) for touched in own) / iterations + 4 * COLUMNS)
    dense = lenet.train(words(batch, max_iter=iterations), workers, "--scheme", "ps")
    assert entry["bytes_sent"] < 0.1 * layer(dense, "embed")["bytes_sent"]


def test_a_small_table_travels_whole(lenet, words):
    solver = words(4)
    text = (lenet.folder / "words-4.prototxt").read_text()
    (lenet.folder / "words-4.prototxt").write_text(re.sub("input_dim: 500", "input_dim: 90", text).replace("batch_size: 4", "batch_size: 40"))
    assert layer(lenet.train(solver, 2), "embed")["scheme"] == "ps"


def test_a_snapshot_goes_on_with_rows(lenet, words):
    solver = words(4, snapshot=10)
    whole = lenet.train(solver, 2, "--scheme", "auto,ip=ps")
    rest = lenet.train(solver, 2, "--scheme", "auto,ip=ps", "--snapshot", whole.report["snapshots"][0]["state"])
    assert rest.report["parameters_digest"] == whole.report["parameters_digest"]
