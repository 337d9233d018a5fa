"""Layers written in Python: within poseidon.caffe, and within the commands."""
import json
import os
import re
import shutil
import sys
import sysconfig

import numpy as np
import pytest
from support import job
from support.pycaffe import caffe, write

EXAMPLE = job.ROOT / "examples/python_layer"
WRONG_INPUT = 3

CLASSES = """
import caffe
import numpy as np

class Twice(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        top[0].data[...] = 2 * bottom[0].data
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = 2 * top[0].diff

class Weighted(caffe.Layer):  # y = w x with a trained w for each column
    def setup(self, bottom, top):
        self.blobs.add_blob(bottom[0].shape[1])
        self.blobs[0].data[...] = 0.5
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        top[0].data[...] = self.blobs[0].data * bottom[0].data
    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum(0)
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff * self.blobs[0].data

class Told(caffe.Layer):
    def setup(self, bottom, top):
        self.seen = [self.param_str, self.name, self.phase, self.rank, self.size, self.type]
    def reshape(self, bottom, top):
        top[0].reshape(3)
    def forward(self, bottom, top):
        top[0].data[...] = self.first_record, self.records, self.iteration
    def backward(self, top, propagate_down, bottom):
        pass

class Failing(Twice):
    def forward(self, bottom, top):
        if "forward" in self.param_str:
            int("seven")
        super().forward(bottom, top)
    def backward(self, top, propagate_down, bottom):
        raise ZeroDivisionError("on purpose")

class Unfinished(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape(1)

class Greedy(Twice):
    def reshape(self, bottom, top):
        top[0].reshape(-1)

class NoLayer:
    pass
"""
LINE_OF_SEVEN = CLASSES[:CLASSES.index("seven")].count("\n") + 1


@pytest.fixture(scope="module", autouse=True)
def import_caffe():
    """Classes say `import caffe`, as they did for Caffe; modules of the examples are forgotten afterwards."""
    caffe.install()
    yield
    for name in ("caffe", "classes_of_test", "layers"):
        sys.modules.pop(name, None)


@pytest.fixture
def net(tmp_path):
    """text -> a net in float64, with the classes beside its prototxt"""
    def make(text, phase=caffe.TRAIN, name="net.prototxt"):
        (tmp_path / "classes_of_test.py").write_text(CLASSES)
        sys.modules.pop("classes_of_test", None)
        path = list(sys.path)
        try:
            return caffe.Net(write(tmp_path, text, name), phase, dtype="float64")
        finally:
            sys.path[:] = path
    return make


def python(name, bottoms="", more="", settings=""):
    return f'layer {{ name: "{name.lower()}" type: "Python" {bottoms} top: "y" {more} ' \
           f'python_param {{ module: "classes_of_test" layer: "{name}" {settings} }} }}\n'


INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }\n'


def test_a_layer_computes_what_its_class_says(net):
    made = net(INPUT + python("Twice", 'bottom: "x"') + 'layer { name: "square" type: "Power" bottom: "y" top: "z" power_param { power: 2 } }')
    x = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(made.forward(x=x)["z"], 4 * x**2)
    assert np.array_equal(made.backward(z=np.ones((2, 3)))["x"], 8 * x)
    assert type(made.layers[1]).__name__ == "Twice" and made.layer_dict["twice"] is made.layers[1]
    made.blobs["x"].reshape(4, 3)
    assert made.forward()["z"].shape == (4, 3)


def test_a_layer_works_in_place(net):
    made = net(INPUT + python("Twice", 'bottom: "x"').replace('top: "y"', 'top: "x"'))
    assert np.array_equal(made.forward(x=np.ones((2, 3)))["x"], np.full((2, 3), 2))


def test_a_layer_trains_arrays_of_its_own(net, tmp_path):
    loss = 'layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "x" top: "loss" }'
    made = net(INPUT + python("Weighted", 'bottom: "x"') + loss)
    weight, = made.params["weighted"]
    assert np.array_equal(weight.data, [0.5, 0.5, 0.5])
    x = np.array([[1.0, 2, 3], [4, 5, 6]])
    made.forward(x=x)
    made.backward()
    # Of sum (w x - x)² / (2 · 2 records), by w.
    assert np.allclose(weight.diff, (-0.5 * x * x).sum(0) / 2, atol=1e-12)
    made.backward()
    assert np.allclose(weight.diff, (-0.5 * x * x).sum(0), atol=1e-12)
    weight.data[...] = 3
    assert np.allclose(made.forward(x=x, blobs=["y"])["y"], 3 * x)
    made.save(tmp_path / "m.caffemodel")
    again = net(INPUT + python("Weighted", 'bottom: "x"') + loss, name="again.prototxt")
    again.copy_from(tmp_path / "m.caffemodel")
    assert np.array_equal(again.forward(x=x, blobs=["y"])["y"], 3 * x)
    data = INPUT.replace('"Input"', '"DummyData"').replace("input_param { shape { dim: 2 dim: 3 } }",
                                                         "dummy_data_param { shape { dim: 2 dim: 3 } data_filler { value: 2 } }")
    trained = write(tmp_path, data + python("Weighted", 'bottom: "x"') + loss, "trained.prototxt")
    solver = caffe.SGDSolver(write(tmp_path, f'net: "{trained}" base_lr: 0.5 lr_policy: "fixed" max_iter: 1', "solver.prototxt"), dtype="float64")
    solver.step(1)
    # By w the loss has the gradient -0.5 x² (2 records of it, over 2), which the rate halves.
    assert np.allclose(solver.net.params["weighted"][0].data, 0.5 + 0.5 * 0.5 * 2 * 2, atol=1e-12)


def test_a_layer_is_told_of_its_place(net):
    made = net(python("Told", settings='param_str: "a b"'), caffe.TEST)
    assert made.layers[0].seen == ["a b", "told", caffe.TEST, 0, 1, "Python"]
    assert [made.forward()["y"].tolist() for _ in range(2)] == [[0, 3, 0], [3, 3, 1]]


@pytest.mark.parametrize("name, settings, words", [
    ("Failing", 'param_str: "forward"', ["net.prototxt:2", '"failing" (Python)', f"classes_of_test.py:{LINE_OF_SEVEN} in forward: ValueError", "'seven'"]),
    ("Nothing", "", ["has no class Nothing"]),
    ("NoLayer", "", ["classes_of_test.NoLayer is not derived from caffe.Layer"]),
    ("Unfinished", "", ["no method forward"]),
    ("Greedy", "", ["cannot have the shape"]),
])
def test_mistakes_name_layer_file_and_line(net, name, settings, words):
    with pytest.raises(caffe.ConfigError) as told:
        net(INPUT + python(name, 'bottom: "x"', settings=settings)).forward()
    assert all(word in str(told.value) for word in words), told.value


def test_mistakes_in_backward_and_in_modules_are_told(net, tmp_path):
    made = net(INPUT + python("Failing", 'bottom: "x"'))
    made.forward()
    with pytest.raises(caffe.ConfigError, match=r"classes_of_test.py:\d+ in backward: ZeroDivisionError: on purpose"):
        made.backward()
    (tmp_path / "broken_of_test.py").write_text("class Broken(:\n")
    for module, words in (("broken_of_test", r"cannot be loaded: .*broken_of_test.py:1: "), ("no_such_module", "No module named 'no_such_module'")):
        with pytest.raises(caffe.ConfigError, match=words):
            net(INPUT + python("Twice", 'bottom: "x"').replace("classes_of_test", module))


LOSSES = """
layer {{ name: "in" type: "Input" top: "a" top: "b" input_param {{ shape {{ dim: 3 dim: 2 dim: 2 }} }} }}
layer {{ name: "loss" type: {type} bottom: "a" bottom: "b" top: "loss" loss_weight: 3 {settings} }}
force_backward: true
"""


def test_the_examples_loss_has_the_values_and_gradients_of_our_own(tmp_path):
    shutil.copy(EXAMPLE / "layers.py", tmp_path)
    text = LOSSES.format(type='"Python"', settings='python_param { module: "layers" layer: "EuclideanLoss" }')
    nets = [caffe.Net(write(tmp_path, text, "ours.prototxt"), caffe.TRAIN, dtype="float64"),
            caffe.Net(write(tmp_path, LOSSES.format(type='"EuclideanLoss"', settings=""), "theirs.prototxt"), caffe.TRAIN, dtype="float64")]
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 2, 2))
    results = []
    for made in nets:
        loss = float(np.squeeze(made.forward(a=a, b=b)["loss"]))
        results.append((loss, made.backward()["a"].copy(), made.backward()["b"].copy()))
    for ours, theirs in zip(*results):
        assert np.allclose(ours, theirs, rtol=0, atol=1e-12)
    assert results[0][0] == pytest.approx(((a - b)**2).sum() / 6, abs=1e-12)

    def loss_at(array, place, step):
        array[place] += step
        value = float(np.squeeze(nets[0].forward(a=a, b=b)["loss"]))
        array[place] -= step
        return value
    for array, gradient in ((a, results[0][1]), (b, results[0][2])):
        for place in np.ndindex(array.shape):
            numeric = 3 * (loss_at(array, place, 1e-6) - loss_at(array, place, -1e-6)) / 2e-6
            assert abs(gradient[place] - numeric) < 1e-6


# --- Within the commands

@pytest.fixture
def line(tmp_path):
    """A factory of solvers on the example with this batch for each worker."""
    def make(batch, own_loss=False, **settings):
        text = (EXAMPLE / "net.prototxt").read_text()
        text, count = re.subn(r'"batch_size": 8', f'"batch_size": {batch}', text)
        assert count == 1, "the example's net has changed; change this with it"
        if own_loss:
            head, mark, loss = text.rpartition('  type: "Python"')
            text = head + '  type: "EuclideanLoss"' + re.sub(r"(?s)python_param \{.*?\}", "", loss)
            assert mark
        folder = tmp_path / f"batch-{batch}-{own_loss}"
        folder.mkdir(exist_ok=True)
        shutil.copy(EXAMPLE / "layers.py", folder)
        (folder / "net.prototxt").write_text(text)
        solver = re.sub(r"net: .*", f'net: "{folder}/net.prototxt"', (EXAMPLE / "solver.prototxt").read_text())
        solver += "".join(f"{name}: {value}\n" for name, value in settings.items())
        (folder / "solver.prototxt").write_text(solver)
        return folder / "solver.prototxt"
    return make


def train(poseidon, folder, solver, workers, *flags, code=0, **extra):
    report = folder / "report.json"
    done = job.run(poseidon, "train", "--solver", solver, "--workers", workers, "--run-folder", folder / f"run-{workers}-{solver.parent.name}",
                   "--dtype", "float64", "--report", report, *flags, cwd=folder, **extra).expect(code)
    done.report = json.loads(report.read_text()) if code == 0 else None
    return done


def test_two_workers_train_as_one_does(poseidon, line, tmp_path):
    one = job.losses(train(poseidon, tmp_path, line(8), 1))
    two = job.losses(train(poseidon, tmp_path, line(4), 2, "--scheme", "ps"))
    own = job.losses(train(poseidon, tmp_path, line(8, own_loss=True), 1))
    assert len(one) == 100 and one[-1] < 1e-3 * one[0]
    assert np.allclose(one, two, rtol=1e-9, atol=1e-15) and np.allclose(one, own, rtol=1e-9, atol=1e-15)


def test_the_python_of_the_active_environment_is_taken(poseidon, line, tmp_path):
    """Here the one that the tests run in; a folder that is none is passed over."""
    environment = os.path.dirname(os.path.dirname(sys.executable))
    for folder in (environment, str(tmp_path / "none")):
        train(poseidon, tmp_path, line(8), 1, "--iterations", 2, VIRTUAL_ENV=folder)


SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


@pytest.mark.parametrize("script, words", [
    ("exit 1", "does not run"),
    ("echo .cpython-299-other.so; echo /lib/libpython2.99.so", "there is no module of Poseidon for"),
    (f"echo {SUFFIX}; echo", "has no shared libpython"),
    (f"echo {SUFFIX}; echo /nowhere/libpython.so", "/nowhere/libpython.so"),
])
def test_a_python_that_cannot_be_used_is_told(poseidon, line, tmp_path, script, words):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "bin/python").chmod(0o755)
    done = job.run(poseidon, "time", "--model", line(8).parent / "net.prototxt", cwd=tmp_path, VIRTUAL_ENV=str(tmp_path)).expect(WRONG_INPUT)
    assert words in done.err and 'layer "ramps" (Python) cannot run' in done.err


def test_modules_are_found_on_pythonpath_and_in_the_working_folder(poseidon, line, tmp_path):
    solver = line(8)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(solver.parent / "layers.py", elsewhere / "layers.py")
    train(poseidon, tmp_path, solver, 1, "--iterations", 2, PYTHONPATH=str(elsewhere))
    shutil.move(elsewhere / "layers.py", tmp_path / "layers.py")
    train(poseidon, tmp_path, solver, 1, "--iterations", 2)
    (tmp_path / "layers.py").unlink()
    done = train(poseidon, tmp_path, solver, 1, code=WRONG_INPUT)
    assert "No module named 'layers'" in done.err and 'layer "ramps" (Python)' in done.err


def test_an_exception_ends_the_job_with_file_and_line(poseidon, line, tmp_path):
    solver = line(4)
    classes = solver.parent / "layers.py"
    classes.write_text(classes.read_text().replace("self.distance =", "self.distance = [][self.iteration] +"))
    done = train(poseidon, tmp_path, solver, 2, code=WRONG_INPUT)
    assert re.search(r'net.prototxt:\d+:\d+: layer "loss" \(Python\) failed at .*layers.py:\d+ in forward: IndexError', done.err), done.err


def test_other_commands_run_python_layers(poseidon, line, tmp_path):
    net = line(8).parent / "net.prototxt"
    trained = train(poseidon, tmp_path, line(8, snapshot_prefix=f'"{tmp_path}/line"'), 1, "--iterations", 40, "--on-interrupt", "solver")
    assert trained.report is not None
    model = caffe_model(tmp_path, net)
    done = job.run(poseidon, "time", "--model", net, "--iterations", 2, "--json").expect()
    assert [layer["name"] for layer in json.loads(done.out)["layers"]] == ["ramps", "line", "loss"]
    done = job.run(poseidon, "test", "--model", net, "--weights", model, "--iterations", 3, "--json").expect()
    assert json.loads(done.out)["loss"] == pytest.approx(0, abs=1e-9)
    job.run(poseidon, "features", "--model", net, "--weights", model, "--blobs", "point", "--out", tmp_path / "out", "--iterations", 3,
            cwd=tmp_path).expect()
    points = np.load(tmp_path / "out/point.npy").ravel()
    assert np.allclose(points, (np.arange(24) * 0.618034) % 2 - 1, atol=1e-6)


def caffe_model(folder, net):
    """The line that the example's data lie on."""
    made = caffe.Net(str(net), caffe.TEST)
    made.params["line"][0].data[...] = 2
    made.params["line"][1].data[...] = -1
    made.save(folder / "line.caffemodel")
    return folder / "line.caffemodel"
