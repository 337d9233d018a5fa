"""Files of Caffe's older forms: read as they are, and rewritten by `poseidon upgrade-net` and `upgrade-solver`."""
import re

import pytest
from support import job

WRONG_INPUT = 3


def old_form(text):
    """The example's net as Caffe of 2014 had it: `layers`, enumerators for types, blobs_lr, no transform_param."""
    types = {"Data": "DATA", "Convolution": "CONVOLUTION", "Pooling": "POOLING", "InnerProduct": "INNER_PRODUCT", "ReLU": "RELU",
             "SoftmaxWithLoss": "SOFTMAX_LOSS", "Accuracy": "ACCURACY", "Dropout": "DROPOUT"}
    text = re.sub(r"(?m)^layer\b", "layers", text)
    text = re.sub(r'\btype: "(\w+)"', lambda found: f"type: {types[found[1]]}" if found[1] in types else found[0], text)
    text = re.sub(r"\bparam \{ lr_mult: (\S+) \}", r"blobs_lr: \1", text)
    scale = re.search(r"transform_param \{\s*(scale: \S+)\s*\}", text)
    assert scale and "lr_mult" not in text and text.count("layers") > 5, "the example's net has changed; change this with it"
    text = re.sub(r"transform_param \{[^}]*\}", "", text)
    return re.sub(r"data_param \{", "data_param { " + scale[1] + " ", text)


@pytest.fixture
def digest(lenet):
    """net -> SHA-256 of the arrays after ten iterations on it"""
    def train(net):
        done = lenet.train(lenet.solver(net), 2, "--iterations", 10, "--dtype", "float64", "--scheme", "ps")
        return done.report["parameters_digest"]
    return train


def test_a_net_of_the_old_form_trains_as_the_present_one(lenet, digest):
    assert digest(lenet.net(16, "old.prototxt", edit=old_form)) == digest(lenet.net(16))


@pytest.mark.parametrize("link", [None, "upgrade_net_proto_text"])
def test_upgrade_net_writes_a_net_that_trains_alike(lenet, digest, link):
    old, new = lenet.net(16, "old.prototxt", edit=old_form), lenet.folder / "new.prototxt"
    if link:
        (lenet.folder / link).symlink_to(lenet.poseidon)
        done = job.run(lenet.folder / link, old, new).expect()
    else:
        done = job.run(lenet.poseidon, "upgrade-net", old, new).expect()
    assert "layers of the form `layers { type: CONVOLUTION }`" in done.out
    assert "layers" not in new.read_text() and "transform_param" in new.read_text()
    assert digest(new) == digest(old)
    assert "present form already" in job.run(lenet.poseidon, "upgrade-net", new, new).expect().out


def test_upgrade_net_takes_a_model_too(lenet):
    solver = lenet.solver(lenet.net(16), snapshot_after_train="true")
    model = lenet.train(solver, 1, "--iterations", 1).report["snapshots"][0]["model"]
    (lenet.folder / "upgrade_net_proto_binary").symlink_to(lenet.poseidon)
    done = job.run(lenet.folder / "upgrade_net_proto_binary", model, lenet.folder / "new.caffemodel").expect()
    assert "present form already" in done.out
    # Written again, byte for byte.
    assert (lenet.folder / "new.caffemodel").read_bytes() == open(model, "rb").read()


def test_upgrade_solver_writes_the_type_as_text(lenet):
    old = lenet.solver(lenet.net(16), type=None, solver_type="NESTEROV")
    new = lenet.folder / "new_solver.prototxt"
    done = job.run(lenet.poseidon, "upgrade-solver", old, new).expect()
    assert "had solver_type, upgraded" in done.out
    assert 'type: "Nesterov"' in new.read_text() and "solver_type" not in new.read_text()


def test_mistakes_are_told_in_a_sentence(lenet):
    wrong = lenet.folder / "wrong.prototxt"
    wrong.write_text("layers {\n  layer { name: 'a' type: 'cnv' }\n}\n")
    done = job.run(lenet.poseidon, "upgrade-net", wrong, lenet.folder / "new").expect(WRONG_INPUT)
    assert done.err.startswith(f'poseidon: {wrong}:2:21: there is no type "cnv"') and done.err.count("\n") == 1
    assert not (lenet.folder / "new").exists()
