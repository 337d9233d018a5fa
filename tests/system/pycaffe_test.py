"""poseidon.caffe: every name of pycaffe that scripts use, against NumPy written out here."""
import gc
import subprocess
import sys
import weakref

import h5py
import numpy as np
import pytest
from support import job
from support.pycaffe import DEPLOY_NET, PACKAGES, SMALL_NET, caffe, write


def correlate(images, filters, bias):
    """Caffe's Convolution with stride 1, in plain loops over the window."""
    _, _, height, width = images.shape
    _, _, kernel_height, kernel_width = filters.shape
    out = np.zeros((len(images), len(filters), height - kernel_height + 1, width - kernel_width + 1))
    for y in range(kernel_height):
        for x in range(kernel_width):
            window = images[:, :, y:y + out.shape[2], x:x + out.shape[3]]
            out += np.einsum("nchw,oc->nohw", window, filters[:, :, y, x])
    return out + bias[:, None, None]


def softmax(scores):
    powers = np.exp(scores - scores.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def expected(params, data, label):
    """{blob: values} of SMALL_NET; conv after its ReLU."""
    conv = np.maximum(correlate(data, *params["conv"]), 0)
    scores = conv.reshape(len(data), -1) @ params["ip"][0].T + params["ip"][1]
    loss = -np.log(softmax(scores)[range(len(data)), label.astype(int)]).mean()
    return {"conv": conv, "scores": scores, "loss": loss}


def values(net):
    return {name: [blob.data.copy() for blob in blobs] for name, blobs in net.params.items()}


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def small(tmp_path, rng):
    """SMALL_NET in float64 with random inputs."""
    net = caffe.Net(write(tmp_path, SMALL_NET), caffe.TRAIN, dtype="float64")
    net.blobs["data"].data[...] = rng.standard_normal((2, 3, 6, 5))
    net.blobs["label"].data[...] = [3, 0]
    return net


def test_a_net_shows_what_it_is_made_of(small):
    assert small.name == "small"
    assert list(small.blobs) == small._blob_names == ["data", "label", "conv", "scores", "loss"]
    assert list(small.params) == ["conv", "ip"]
    assert list(small._layer_names) == list(small.layer_dict) == ["in", "conv", "relu", "ip", "loss"]
    assert [layer.type for layer in small.layers] == ["Input", "Convolution", "ReLU", "InnerProduct", "SoftmaxWithLoss"]
    assert small.inputs == ["data", "label"] and small.outputs == ["loss"]
    assert small.bottom_names["loss"] == ["scores", "label"] and small.top_names["in"] == ["data", "label"]
    assert small.blob_loss_weights == {"data": 0, "label": 0, "conv": 0, "scores": 0, "loss": 2}
    assert small.layer_dict["conv"].blobs[0] is small.params["conv"][0]


def test_a_blob_shows_its_extents(small):
    blob = small.blobs["data"]
    assert tuple(blob.shape) == blob.data.shape == blob.diff.shape == (2, 3, 6, 5)
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (2, 3, 6, 5, 180)
    label = small.blobs["label"]
    assert (label.num, label.channels, label.height, label.width, label.count) == (2, 1, 1, 1, 2)
    assert blob.data.dtype == np.float64
    with pytest.raises(caffe.ConfigError, match="cannot have the shape"):
        blob.reshape(2, -1)


def test_arrays_share_the_engines_memory(small):
    kept = small.blobs["scores"].data
    small.forward()
    assert np.any(kept != 0) and np.array_equal(kept, small.blobs["scores"].data)
    weight = small.params["ip"][0].data
    weight[...] = 0
    small.params["ip"][1].data[...] = 7
    small.forward()
    assert np.all(kept == 7)
    del small
    assert np.all(kept == 7) and np.all(weight == 0)


def test_forward_computes_the_net(small):
    out = small.forward()
    wanted = expected(values(small), small.blobs["data"].data, small.blobs["label"].data)
    assert list(out) == ["loss"]
    for name, numbers in wanted.items():
        assert np.allclose(small.blobs[name].data, numbers, rtol=0, atol=1e-12), name


def numeric_gradient(loss, array):
    """Central differences of loss() by every element of `array`, which is changed in place."""
    gradient = np.zeros_like(array)
    for place in np.ndindex(array.shape):
        before = array[place]
        array[place] = before + 1e-6
        above = loss()
        array[place] = before - 1e-6
        gradient[place] = (above - loss()) / 2e-6
        array[place] = before
    return gradient


def test_backward_yields_the_gradients_of_all_blobs(tmp_path, small, rng):
    net = caffe.Net(write(tmp_path, SMALL_NET + "force_backward: true", "forced.prototxt"), caffe.TRAIN, dtype="float64")
    net.share_with(small)
    data, label = rng.standard_normal((2, 3, 6, 5)), np.array([3.0, 0.0])
    net.forward(data=data, label=label)
    diffs = net.backward(diffs=["conv", "scores"])
    assert list(diffs) == ["data", "label", "conv", "scores"]
    params = values(net)

    def loss():
        return 2 * expected(params, data, label)["loss"]
    for name, arrays in params.items():
        for blob, array in zip(net.params[name], arrays):
            assert np.allclose(blob.diff, numeric_gradient(loss, array), atol=1e-7), name
    assert np.allclose(diffs["data"], numeric_gradient(loss, data), atol=1e-7)
    errors = softmax(net.blobs["scores"].data)
    errors[range(2), label.astype(int)] -= 1
    assert np.allclose(diffs["scores"], 2 * errors / 2, atol=1e-12)
    # ReLU works in place, so the blob's gradient is in the end that of the convolution, as in Caffe.
    of_conv = (diffs["scores"] @ params["ip"][0]).reshape(net.blobs["conv"].shape)
    assert np.allclose(diffs["conv"], of_conv * (correlate(data, *params["conv"]) > 0), atol=1e-12)
    assert np.all(diffs["label"] == 0)


def test_gradients_of_parameters_add_up_until_they_are_cleared(small):
    small.forward()
    small.backward()
    once = small.params["conv"][0].diff.copy()
    small.backward()
    assert np.allclose(small.params["conv"][0].diff, 2 * once, atol=1e-12) and np.any(once != 0)
    small.clear_param_diffs()
    assert np.all(small.params["conv"][0].diff == 0)


def test_a_deploy_net_is_differentiated_from_what_is_given(tmp_path, rng):
    net = caffe.Net(write(tmp_path, DEPLOY_NET), caffe.TEST, dtype="float64")
    data = rng.standard_normal((2, 3, 6, 5))
    net.forward(data=data)
    wanted = np.zeros((2, 5))
    wanted[:, 1] = 1
    found = net.backward(prob=wanted)["data"].copy()
    params = values(net)

    def chosen():
        conv = np.maximum(correlate(data, *params["conv"]), 0)
        return softmax(conv.reshape(2, -1) @ params["ip"][0].T + params["ip"][1])[:, 1].sum()
    assert np.allclose(found, numeric_gradient(chosen, data), atol=1e-8)


def test_a_blob_of_several_readers_gets_the_sum_of_their_gradients(tmp_path):
    net = caffe.Net(write(tmp_path, """
        layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 3 } } }
        layer { name: "double" type: "Power" bottom: "x" top: "double" power_param { scale: 2 } }
        layer { name: "square" type: "Power" bottom: "x" top: "square" power_param { power: 2 } }"""), caffe.TEST, dtype="float64")
    net.forward(x=[1, 2, 3])
    for _ in range(2):  # the second one does not add to the first
        diff = net.backward(double=np.ones(3), square=np.ones(3))["x"]
        assert np.allclose(diff, [2 + 2, 2 + 4, 2 + 6], atol=1e-12)


def test_passes_may_begin_and_end_between_layers(small):
    small.forward()
    before = small.blobs["loss"].data.copy()
    small.blobs["scores"].data[...] = 0
    out = small.forward(start="loss")
    assert np.allclose(out["loss"], np.log(5), atol=1e-12) and before != out["loss"]
    out = small.forward(blobs=["scores"], end="conv")
    assert list(out) == ["conv", "scores"] and np.all(out["scores"] == 0)
    assert out["conv"].min() < 0  # the ReLU has not run
    assert list(small.forward(end="ip")) == ["scores"]
    small.forward()
    small.blobs["scores"].diff[...] = 1
    small.clear_param_diffs()
    diffs = small.backward(start="ip", end="ip")
    assert list(diffs) == ["conv"]
    assert np.allclose(diffs["conv"].reshape(2, -1), np.tile(small.params["ip"][0].data.sum(0), (2, 1)), atol=1e-12)
    assert np.allclose(small.params["ip"][1].diff, 2) and np.all(small.params["conv"][0].diff == 0)


def test_forward_all_takes_any_number_of_records(tmp_path, rng):
    net = caffe.Net(write(tmp_path, DEPLOY_NET), caffe.TEST, dtype="float64")
    data = rng.standard_normal((5, 3, 6, 5))
    out = net.forward_all(data=data, blobs=["conv"])
    params = values(net)
    conv = np.maximum(correlate(data, *params["conv"]), 0)
    assert np.allclose(out["conv"], conv, atol=1e-12)
    assert np.allclose(out["prob"], softmax(conv.reshape(5, -1) @ params["ip"][0].T + params["ip"][1]), atol=1e-12)
    top = rng.standard_normal((5, 5))
    outs, diffs = net.forward_backward_all(data=data, prob=top, diffs=["scores"])
    assert np.allclose(outs["prob"], out["prob"]) and diffs["data"].shape == data.shape
    dots = (top * out["prob"]).sum(1, keepdims=True)
    assert np.allclose(diffs["scores"], out["prob"] * (top - dots), atol=1e-12)


def test_inputs_may_be_reshaped(tmp_path, rng):
    net = caffe.Net(write(tmp_path, DEPLOY_NET), caffe.TEST)
    net.blobs["data"].reshape(7, 3, 6, 5)
    net.reshape()
    assert net.blobs["prob"].shape == (7, 5) and net.blobs["conv"].shape == (7, 4, 4, 3)
    data = rng.standard_normal((7, 3, 6, 5)).astype(np.float32)
    assert net.forward(data=data)["prob"].shape == (7, 5)
    net.blobs["data"].reshape(1, 3, 9, 9)
    with pytest.raises(RuntimeError, match='"ip"'):
        net.forward()
    assert net.forward(end="conv")["conv"].shape == (1, 4, 7, 7)


def test_weights_are_saved_copied_and_shared(tmp_path, small):
    small.save(tmp_path / "small.caffemodel")
    file = write(tmp_path, DEPLOY_NET, "deploy.prototxt")
    for net in (caffe.Net(file, str(tmp_path / "small.caffemodel"), caffe.TEST),
                caffe.Net(file, caffe.TEST, weights=str(tmp_path / "small.caffemodel"))):
        assert np.array_equal(net.params["conv"][0].data, small.params["conv"][0].data.astype(np.float32))
    other = caffe.Net(file, caffe.TEST, dtype="float64")
    other.copy_from(tmp_path / "small.caffemodel")
    assert np.array_equal(other.params["ip"][0].data, small.params["ip"][0].data)
    other.share_with(small)
    small.params["ip"][0].data[...] = 0.5
    assert np.all(other.params["ip"][0].data == 0.5)
    other.forward()
    assert np.allclose(other.blobs["scores"].data, 0.5 * other.blobs["conv"].data.reshape(2, -1).sum(1, keepdims=True)
                       + small.params["ip"][1].data, atol=1e-12)
    with open(tmp_path / "small.caffemodel", "rb") as model:
        message = caffe.proto.caffe_pb2.NetParameter.FromString(model.read())
    stored = {layer.name: layer for layer in message.layer}["conv"].blobs[0]
    assert np.array_equal(caffe.io.blobproto_to_array(stored), values_of_file(tmp_path, "conv"))


def test_weights_in_hdf5_are_caffes(tmp_path, small):
    """As Caffe lays them out, read and written by h5py; and read back in every bit, by whichever name."""
    file = tmp_path / "small.caffemodel.h5"
    small.save_hdf5(file)
    with h5py.File(file, "r+") as model:
        for layer, arrays in values(small).items():
            stored = model["data"][layer]
            assert sorted(stored) == ["0", "1"]
            assert all(np.array_equal(stored[str(number)], array) for number, array in enumerate(arrays))
        model["data/ip/1"][...] = np.arange(len(model["data/ip/1"]))
    net = write(tmp_path, DEPLOY_NET, "deploy.prototxt")
    by_weights = caffe.Net(net, caffe.TEST, weights=str(file), dtype="float64")
    others = [caffe.Net(net, caffe.TEST, dtype="float64") for _ in range(2)]
    others[0].load_hdf5(file)
    others[1].copy_from(file)
    for other in (by_weights, *others):
        assert np.array_equal(other.params["conv"][0].data, small.params["conv"][0].data)
        assert other.params["ip"][1].data.tolist() == list(range(len(other.params["ip"][1].data)))
    small.save(tmp_path / "small.caffemodel")
    with pytest.raises(caffe.ConfigError, match="small.caffemodel is no HDF5 file"):
        small.load_hdf5(tmp_path / "small.caffemodel")
    with pytest.raises(caffe.ConfigError, match="none.h5"):
        small.load_hdf5("none.h5")
    with pytest.raises(OSError, match="no/such"):
        small.save_hdf5("no/such/folder.caffemodel.h5")


def values_of_file(folder, layer):
    net = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST, weights=str(folder / "small.caffemodel"), dtype="float64")
    return net.params[layer][0].data


def test_levels_and_stages_choose_layers(tmp_path):
    text = DEPLOY_NET + """
        layer { name: "extra" type: "Power" bottom: "prob" top: "extra" include { stage: "more" min_level: 2 } }"""
    file = write(tmp_path, text)
    assert "extra" not in caffe.Net(file, caffe.TEST).layer_dict
    assert "extra" not in caffe.Net(file, caffe.TEST, stages=["more"]).layer_dict
    assert "extra" in caffe.Net(file, caffe.TEST, level=2, stages=["more"]).layer_dict


def test_memory_data_yields_what_a_script_gives(tmp_path):
    net = caffe.Net(write(tmp_path, """
        layer { name: "memory" type: "MemoryData" top: "data" top: "label"
                memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 } }"""), caffe.TEST)
    net.set_input_arrays(np.arange(12, dtype=np.float32).reshape(4, 1, 1, 3), np.array([5, 6, 7, 8], np.float32))
    for labels in ([5, 6], [7, 8], [5, 6]):
        assert net.forward()["label"].tolist() == labels
    assert net.blobs["data"].data.ravel().tolist() == [0, 1, 2, 3, 4, 5]


def test_mistakes_are_exceptions(tmp_path, small):
    with pytest.raises(caffe.ConfigError, match="nothing.prototxt"):
        caffe.Net("nothing.prototxt", caffe.TEST)
    with pytest.raises(caffe.ConfigError, match=r"net.prototxt:1:.*Imput.*Input"):
        caffe.Net(write(tmp_path, 'layer { name: "x" type: "Imput" top: "x" }'), caffe.TEST)
    with pytest.raises(RuntimeError, match="none.caffemodel"):
        small.copy_from("none.caffemodel")
    with pytest.raises(OSError, match="no/such"):
        small.save("no/such/folder.caffemodel")
    with pytest.raises(ValueError, match="no layer 'fc9'"):
        small.forward(start="fc9")
    with pytest.raises(ValueError, match="no blob 'fc9'"):
        small.forward(blobs=["fc9"])
    with pytest.raises(ValueError, match="inputs are"):
        small.forward(data=np.zeros((2, 3, 6, 5)))
    with pytest.raises(ValueError, match="outputs are"):
        small.backward(scores=np.zeros((2, 5)))
    with pytest.raises(ValueError, match="records"):
        small.forward(data=np.zeros((3, 3, 6, 5)), label=np.zeros(3))
    with pytest.raises(ValueError, match="no MemoryData"):
        small.set_input_arrays(np.zeros((1, 1, 1, 1)), np.zeros(1))
    with pytest.raises(caffe.ConfigError, match="cannot become"):
        small.params["ip"][0].reshape(1, 1)
    with pytest.raises(TypeError, match="phase"):
        caffe.Net(write(tmp_path, SMALL_NET))
    with pytest.raises(caffe.ConfigError, match="float16"):
        caffe.Net(write(tmp_path, SMALL_NET), caffe.TEST, dtype="float16")


def test_settings_of_the_process(tmp_path):
    caffe.set_mode_cpu()
    caffe.set_device(0)
    with pytest.raises(RuntimeError, match="CPU"):
        caffe.set_mode_gpu()
    assert caffe.__version__ == "1.0.0" and (caffe.TRAIN, caffe.TEST) == (0, 1)
    assert {"Convolution", "Python", "LSTM"} <= set(caffe.layer_type_list())
    file = write(tmp_path, SMALL_NET)
    try:
        nets = []
        for seed in (3, 3, 4):
            caffe.set_random_seed(seed)
            nets.append(caffe.Net(file, caffe.TEST).params["conv"][0].data)
    finally:
        caffe.set_random_seed(1)
    assert np.array_equal(nets[0], nets[1]) and not np.array_equal(nets[0], nets[2])
    with pytest.raises(ValueError, match="seed"):
        caffe.set_random_seed(-1)


def test_the_log_is_shown_when_it_is_asked_for():
    script = "import poseidon.caffe as caffe; caffe.init_log(); caffe.log('here it is')"
    done = subprocess.run([sys.executable, "-c", script], env=job.environment(PYTHONPATH=str(PACKAGES)), capture_output=True, text=True,
                          timeout=300, check=True)
    assert "here it is" in done.stderr


def test_import_caffe_means_this_package():
    script = """
import poseidon.caffe
poseidon.caffe.install()
import caffe, caffe.io, sys
from caffe import layers as L, params as P
from caffe.proto import caffe_pb2
import caffe.proto.caffe_pb2
assert caffe is poseidon.caffe and caffe.io is sys.modules["poseidon.caffe.io"], caffe.io
assert caffe_pb2 is poseidon.caffe.proto.caffe_pb2 and P.Pooling.MAX == 0
assert caffe.Net is poseidon.caffe.Net and issubclass(caffe.Classifier, caffe.Net)
try:
    import caffe.nothing
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], env=job.environment(PYTHONPATH=str(PACKAGES)), capture_output=True,
                          text=True, timeout=300, check=False)
    assert done.returncode == 0 and "caffe.nothing" in done.stdout, done.stderr


# --- Solvers

LINE_NET = """
layer { name: "in" type: "DummyData" top: "x" top: "y"
        dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 }
                           data_filler { type: "constant" value: 0.5 } data_filler { type: "constant" value: 2 } } }
layer { name: "line" type: "InnerProduct" bottom: "x" top: "line" param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
        inner_product_param { num_output: 2 weight_filler { type: "gaussian" } bias_filler { type: "constant" value: 0.1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "line" bottom: "y" top: "loss" }
"""
RATE, DECAY, MU = 0.05, 0.01, 0.9
RULES = {  # (settings, update of (value, rate, gradient, history, iteration)): docs/training.md
    "SGD": f"momentum: {MU}",
    "Nesterov": f"momentum: {MU}",
    "AdaGrad": "delta: 1e-3",
    "RMSProp": "rms_decay: 0.8 delta: 1e-3",
    "AdaDelta": f"momentum: {MU} delta: 1e-3",
    "Adam": f"momentum: {MU} momentum2: 0.99 delta: 1e-3",
}


def updated(rule, rate, gradient, history, iteration):
    """The step of Caffe's solvers, written out."""
    first, second = history
    if rule == "SGD":
        first[...] = MU * first + rate * gradient
        return first.copy()
    if rule == "Nesterov":
        before = first.copy()
        first[...] = MU * first + rate * gradient
        return (1 + MU) * first - MU * before
    if rule == "AdaGrad":
        first += gradient**2
        return rate * gradient / (np.sqrt(first) + 1e-3)
    if rule == "RMSProp":
        first[...] = 0.8 * first + 0.2 * gradient**2
        return rate * gradient / (np.sqrt(first) + 1e-3)
    if rule == "AdaDelta":
        first[...] = MU * first + (1 - MU) * gradient**2
        step = gradient * np.sqrt((second + 1e-3) / (first + 1e-3))
        second[...] = MU * second + (1 - MU) * step**2
        return rate * step
    first[...] = MU * first + (1 - MU) * gradient
    second[...] = 0.99 * second + 0.01 * gradient**2
    correction = np.sqrt(1 - 0.99**(iteration + 1)) / (1 - MU**(iteration + 1))
    return rate * correction * first / (np.sqrt(second) + 1e-3)


def line_solver(folder, rule, more=""):
    net = write(folder, LINE_NET)
    return write(folder, f'net: "{net}" base_lr: {RATE} lr_policy: "fixed" weight_decay: {DECAY} max_iter: 6 {RULES[rule]} '
                         f'snapshot_prefix: "{folder}/snap/line" {more}\n', f"{rule}.prototxt")


def line_gradients(weight, bias):
    error = np.full((4, 3), 0.5) @ weight.T + bias - 2
    return error.T @ np.full((4, 3), 0.5) / 4, error.sum(0) / 4


@pytest.mark.parametrize("rule", RULES)
def test_each_solver_makes_caffes_steps(tmp_path, rule):
    solver = getattr(caffe, f"{rule}Solver")(line_solver(tmp_path, rule), dtype="float64")
    weight, bias = (blob.data.copy() for blob in solver.net.params["line"])
    histories = [(np.zeros_like(array), np.zeros_like(array)) for array in (weight, bias)]
    for iteration in range(4):
        of_weight, of_bias = line_gradients(weight, bias)
        steps = [updated(rule, RATE, of_weight + DECAY * weight, histories[0], iteration),
                 updated(rule, 2 * RATE, of_bias, histories[1], iteration)]
        weight, bias = weight - steps[0], bias - steps[1]
        assert solver.iter == iteration
        solver.step(1)
        for blob, array, step in zip(solver.net.params["line"], (weight, bias), steps):
            assert np.allclose(blob.data, array, rtol=0, atol=1e-12)
            assert np.allclose(blob.diff, step, rtol=0, atol=1e-12)  # as in Caffe, what was taken


def test_get_solver_takes_the_files_type(tmp_path):
    file = line_solver(tmp_path, "Adam", 'type: "Adam"')
    steps = []
    for solver in (caffe.get_solver(file), caffe.AdamSolver(file), caffe.SGDSolver(file)):
        solver.step(1)
        steps.append(solver.net.params["line"][0].data.copy())
    assert np.array_equal(steps[0], steps[1]) and not np.array_equal(steps[0], steps[2])
    assert solver.param.base_lr == pytest.approx(RATE) and solver.param.type == "Adam"


def test_an_own_loop_of_passes_and_updates_trains_as_step_does(tmp_path):
    file = line_solver(tmp_path, "SGD")
    stepped, own = caffe.SGDSolver(file, dtype="float64"), caffe.SGDSolver(file, dtype="float64")
    stepped.step(5)
    for _ in range(5):
        own.net.clear_param_diffs()
        own.net.forward()
        own.net.backward()
        own.apply_update()
    assert own.iter == 0
    for one, other in zip(stepped.net.params["line"], own.net.params["line"]):
        assert np.array_equal(one.data, other.data)


def test_a_solver_that_nobody_has_any_more_is_gone(tmp_path):
    solver = caffe.SGDSolver(line_solver(tmp_path, "SGD"))
    solver.add_callback(lambda: solver.iter)
    weight, gone = solver.net.params["line"][0].data, weakref.ref(solver)
    del solver
    gc.collect()
    assert gone() is None and weight.shape == (2, 3)


def test_callbacks_stand_around_the_gradients(tmp_path):
    solver = caffe.SGDSolver(line_solver(tmp_path, "SGD", "iter_size: 2"), dtype="float64")
    told = []
    solver.add_callback(lambda: told.append(("start", solver.iter, np.abs(solver.net.params["line"][0].diff).sum())),
                        lambda: told.append(("gradients", solver.net.params["line"][0].diff.copy())))
    weight, bias = (blob.data.copy() for blob in solver.net.params["line"])
    solver.step(2)
    assert [name for name, *_ in told] == ["start", "gradients"] * 2
    assert told[0][1:] == (0, 0) and told[2][1:] == (1, 0)
    # Of both batches; the update divides by iter_size.
    assert np.allclose(told[1][1], 2 * line_gradients(weight, bias)[0], atol=1e-12)

    def stop():
        raise KeyError("enough")
    solver.add_callback(stop)
    with pytest.raises(KeyError, match="enough"):
        solver.step(1)
    assert solver.iter == 2


def test_gradients_are_clipped_together_before_they_are_divided(tmp_path):
    """Two equal batches make an iteration: as in Caffe, the norm is that of their sum."""
    solver = caffe.SGDSolver(line_solver(tmp_path, "SGD", "iter_size: 2 clip_gradients: 0.25"), dtype="float64")
    weight, bias = (blob.data.copy() for blob in solver.net.params["line"])
    of_weight, of_bias = line_gradients(weight, bias)
    norm = np.sqrt(4 * ((of_weight**2).sum() + (of_bias**2).sum()))
    assert norm > 0.25
    solver.step(1)
    scale = 0.25 / norm
    assert np.allclose(solver.net.params["line"][0].data, weight - RATE * (scale * of_weight + DECAY * weight), rtol=0, atol=1e-12)
    assert np.allclose(solver.net.params["line"][1].data, bias - 2 * RATE * scale * of_bias, rtol=0, atol=1e-12)


def test_a_failed_iteration_changes_nothing(tmp_path):
    solver = caffe.SGDSolver(line_solver(tmp_path, "SGD"), dtype="float64")
    other = caffe.SGDSolver(line_solver(tmp_path, "SGD"), dtype="float64")
    fails = [True]

    def maybe():
        if fails.pop():
            raise RuntimeError("once")
        fails.append(False)
    solver.add_callback(lambda: None, maybe)
    with pytest.raises(RuntimeError, match="once"):
        solver.step(1)
    fails.append(False)
    before = [blob.data.copy() for blob in other.net.params["line"]]
    assert all(np.array_equal(blob.data, array) for blob, array in zip(solver.net.params["line"], before))
    other.step(1)
    solver.step(1)
    for one, another in zip(solver.net.params["line"], other.net.params["line"]):
        assert np.allclose(one.data, another.data, atol=1e-12)


def test_snapshots_are_written_and_gone_on_from(tmp_path):
    file = line_solver(tmp_path, "SGD")
    straight, first, second = (caffe.SGDSolver(file, dtype="float64") for _ in range(3))
    straight.solve()
    assert straight.iter == 6 and (tmp_path / "snap/line_iter_6.caffemodel").exists()
    first.step(3)
    state = first.snapshot()
    assert state == f"{tmp_path}/snap/line_iter_3.solverstate"
    second.restore(state)
    assert second.iter == 3
    second.solve()
    third = caffe.SGDSolver(file, dtype="float64")
    third.solve(state)
    for solver in (second, third):
        assert np.array_equal(straight.net.params["line"][0].data, solver.net.params["line"][0].data)


def test_only_passes_with_data_layers_take_records(lenet):
    net = caffe.Net(str(lenet.net(8)), caffe.TEST)
    batches = [net.forward(blobs=["label"])["label"].copy() for _ in range(2)]
    again = caffe.Net(str(lenet.net(8)), caffe.TEST)
    again.forward()
    again.forward(start="conv1")
    assert np.array_equal(again.forward(blobs=["label"])["label"], batches[1]) and not np.array_equal(*batches)


def test_a_solver_from_python_trains_as_the_command_does(lenet):
    solver = lenet.solver(lenet.net(8), test=True, test_iter=1, test_interval=5, max_iter=6, snapshot_after_train="true")
    model = lenet.train(solver, 1, "--dtype", "float64").report["snapshots"][0]["model"]
    trained = caffe.Net(str(lenet.folder / "net.prototxt"), caffe.TEST, weights=model, dtype="float64")
    ours = caffe.SGDSolver(str(solver), dtype="float64")
    assert len(ours.test_nets) == 1
    ours.step(6)
    for name, blobs in trained.params.items():
        for blob, other in zip(blobs, ours.net.params[name]):
            assert np.allclose(blob.data, other.data, rtol=0, atol=1e-12), name
    # The test nets compute with the trained arrays.
    assert np.shares_memory(ours.test_nets[0].params["conv1"][0].data, ours.net.params["conv1"][0].data)
    assert set(ours.test_nets[0].forward()) == {"accuracy", "loss"}
    assert ours.net.blobs["data"].shape == (8, 1, 28, 28) and ours.net.blobs["loss"].data.shape == ()


def test_ctrl_c_ends_a_training(tmp_path):
    script = f"""
import os, signal, threading
import poseidon.caffe as caffe
solver = caffe.SGDSolver({line_solver(tmp_path, "SGD")!r})
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    solver.step(10**9)
except KeyboardInterrupt:
    print("interrupted", solver.iter > 0)
"""
    done = subprocess.run([sys.executable, "-c", script], env=job.environment(PYTHONPATH=str(PACKAGES)), capture_output=True, text=True,
                          timeout=300, check=True)
    assert done.stdout == "interrupted True\n"


def test_mistakes_of_solvers_are_exceptions(tmp_path):
    with pytest.raises(caffe.ConfigError, match="nothing.prototxt"):
        caffe.SGDSolver("nothing.prototxt")
    with pytest.raises(caffe.ConfigError, match="momentum"):
        caffe.AdaGradSolver(line_solver(tmp_path, "SGD"))
    solver = caffe.SGDSolver(line_solver(tmp_path, "SGD"))
    with pytest.raises(RuntimeError, match="none.solverstate"):
        solver.restore("none.solverstate")


# --- Drawing

def test_draw_writes_pictures(tmp_path):
    from google.protobuf import text_format
    net = text_format.Parse(SMALL_NET, caffe.proto.caffe_pb2.NetParameter())
    caffe.draw.draw_net_to_file(net, str(tmp_path / "net.dot"), rankdir="TB", phase=caffe.TEST)
    assert "conv" in (tmp_path / "net.dot").read_text()
    assert b"conv" in caffe.draw.draw_net(net, ext="dot")
    with pytest.raises(RuntimeError, match="no/such"):
        caffe.draw.draw_net_to_file(net, "no/such/net.dot")


# --- How it is linked

def exported(library):
    names = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, timeout=300, check=True).stdout
    return {line.split()[-1].partition("@")[0] for line in names.splitlines()}


def test_no_function_of_protobuf_is_exported_twice():
    """libtorch has a protobuf of another version inside; the module takes the shared one (engines/caffe/python/CMakeLists.txt)."""
    linked = subprocess.run(["ldd", *PACKAGES.glob("poseidon/caffe/_engine*.so")], capture_output=True, text=True, timeout=300, check=True).stdout
    paths = {name: line.split()[2] for line in linked.splitlines() for name in ("libtorch_cpu.so", "libprotobuf.so") if name in line}
    common = exported(paths["libtorch_cpu.so"]) & exported(paths["libprotobuf.so"])
    readable = subprocess.run(["c++filt"], input="\n".join(sorted(common)), capture_output=True, text=True, timeout=300, check=True).stdout
    ours = [line for line in readable.splitlines() if "google::protobuf" in line]
    assert ours and all(line.startswith("std::") for line in ours), ours
