"""What Caffe's notebooks do, in our own words and on the digits: classify, learn LeNet, operate on nets."""
import pathlib

import numpy as np
import pytest
from PIL import Image
from support.pycaffe import caffe, write

L, P = caffe.layers, caffe.params


def lenet_layers(n):
    """Behind n.data."""
    filler = dict(type="xavier")
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=20, weight_filler=filler)
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.conv2 = L.Convolution(n.pool1, kernel_size=5, num_output=50, weight_filler=filler)
    n.pool2 = L.Pooling(n.conv2, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.fc1 = L.InnerProduct(n.pool2, num_output=100, weight_filler=filler)
    n.relu1 = L.ReLU(n.fc1, in_place=True)
    n.score = L.InnerProduct(n.relu1, num_output=10, weight_filler=filler)


def lenet(source, batch):
    n = caffe.NetSpec()
    n.data, n.label = L.Data(batch_size=batch, backend=P.Data.LMDB, source=str(source), transform_param=dict(scale=1 / 255), ntop=2)
    lenet_layers(n)
    n.loss = L.SoftmaxWithLoss(n.score, n.label)
    return n.to_proto()


@pytest.fixture(scope="module")
def learned(digits, tmp_path_factory):
    """A solver whose net has learned the digits, with its folder and its curves."""
    folder = tmp_path_factory.mktemp("lenet")
    message = caffe.proto.caffe_pb2.SolverParameter(
        train_net=write(folder, str(lenet(digits / "digits_train_lmdb", 64)), "train.prototxt"),
        test_net=[write(folder, str(lenet(digits / "digits_test_lmdb", 90)), "test.prototxt")], test_iter=[4], test_interval=500, base_lr=0.01,
        momentum=0.9, weight_decay=5e-4, lr_policy="inv", gamma=1e-4, power=0.75, max_iter=10000, random_seed=831486,
        snapshot_prefix=str(folder / "lenet"), type="SGD", solver_mode=caffe.proto.caffe_pb2.SolverParameter.CPU)
    solver = caffe.get_solver(write(folder, str(message), "solver.prototxt"))
    losses, accuracies = [], []
    for iteration in range(120):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
        if iteration == 0:  # the first batch, scored by hand
            solver.test_nets[0].forward(start="conv1")
        if iteration % 40 == 39:
            right = 0
            for _ in range(4):
                solver.test_nets[0].forward()
                right += sum(solver.test_nets[0].blobs["score"].data.argmax(1) == solver.test_nets[0].blobs["label"].data)
            accuracies.append(right / 360)
    return solver, folder, losses, accuracies


def test_lenet_learns_the_digits(learned):
    solver, _, losses, accuracies = learned
    assert [(name, blob.data.shape) for name, blob in solver.net.blobs.items()] == [
        ("data", (64, 1, 28, 28)), ("label", (64,)), ("conv1", (64, 20, 24, 24)), ("pool1", (64, 20, 12, 12)), ("conv2", (64, 50, 8, 8)),
        ("pool2", (64, 50, 4, 4)), ("fc1", (64, 100)), ("score", (64, 10)), ("loss", ())]
    assert {name: (blobs[0].data.shape, blobs[1].data.shape) for name, blobs in solver.net.params.items()}["fc1"] == ((100, 800), (100,))
    assert abs(losses[0] - np.log(10)) < 0.5 and np.mean(losses[-10:]) < 0.3
    assert accuracies[-1] > 0.9
    assert np.any(solver.net.params["conv1"][0].diff[:, 0] != 0)  # the update, as the notebook shows it


@pytest.fixture(scope="module")
def deploy(learned):
    """The learned net without data and loss, and its weights."""
    solver, folder, _, _ = learned
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[10, 1, 28, 28]))
    lenet_layers(n)
    n.prob = L.Softmax(n.score)
    solver.net.save(folder / "learned.caffemodel")
    return write(folder, str(n.to_proto()), "deploy.prototxt"), str(folder / "learned.caffemodel")


def test_an_image_file_is_classified(learned, deploy, digits, tmp_path):
    lists = (digits / "images/test.txt").read_text().splitlines()[:20]
    net = caffe.Net(*deploy, caffe.TEST)
    net.blobs["data"].reshape(1, 1, 28, 28)
    transformer = caffe.io.Transformer({"data": net.blobs["data"].data.shape})
    transformer.set_transpose("data", (2, 0, 1))
    right = 0
    for line in lists:
        name, label = line.split()
        image = caffe.io.load_image(str(digits / "images" / name), color=False)
        net.blobs["data"].data[...] = transformer.preprocess("data", image)
        prob = net.forward()["prob"]
        assert prob.shape == (1, 10) and prob.sum() == pytest.approx(1, abs=1e-5)
        right += prob[0].argmax() == int(label)
    assert right >= 17
    classifier = caffe.Classifier(*deploy, image_dims=(28, 28))
    name, label = lists[0].split()
    gray = np.asarray(Image.open(digits / "images" / name).convert("L"), np.float32)[:, :, None] / 255
    assert classifier.predict([gray], oversample=False).shape == (1, 10)


def test_filters_are_set_by_hand(deploy):
    """net surgery: what is written into parameters is what the net computes with."""
    net = caffe.Net(*deploy, caffe.TEST)
    image = np.random.default_rng(0).random((10, 1, 28, 28)).astype(np.float32)
    net.forward(data=image)
    sharpened = net.blobs["conv1"].data.copy()
    net.params["conv1"][1].data[0] += 1
    net.forward(data=image)
    assert np.allclose(net.blobs["conv1"].data[:, 0], sharpened[:, 0] + 1, atol=1e-5)
    assert np.array_equal(net.blobs["conv1"].data[:, 1:], sharpened[:, 1:])
    ksobel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], np.float32)
    net.params["conv1"][0].data[0, 0] = np.pad(ksobel, 1)
    net.forward(data=image)
    inner = image[:, 0]
    edges = sum(ksobel[y, x] * inner[:, 1 + y:25 + y, 1 + x:25 + x] for y in range(3) for x in range(3))
    assert np.allclose(net.blobs["conv1"].data[:, 0], edges + net.params["conv1"][1].data[0], atol=1e-4)


def test_a_classifier_becomes_fully_convolutional(deploy):
    """net surgery: inner products are convolutions over all of their input, and then larger images make maps of scores."""
    n = caffe.NetSpec()
    n.data = L.Input(shape=dict(dim=[1, 1, 36, 40]))
    lenet_layers(n)
    n.fc1 = L.Convolution(n.pool2, num_output=100, kernel_size=4, name="fc1-conv")
    n.relu1 = L.ReLU(n.fc1, in_place=True)
    n.score = L.Convolution(n.relu1, num_output=10, kernel_size=1, name="score-conv")
    text = str(n.to_proto())
    file, weights = deploy
    net = caffe.Net(file, weights, caffe.TEST)
    full = caffe.Net(write(pathlib.Path(file).parent, text, "full.prototxt"), weights, caffe.TEST)
    for name in ("fc1", "score"):
        full.params[f"{name}-conv"][0].data.flat = net.params[name][0].data.flat
        full.params[f"{name}-conv"][1].data[...] = net.params[name][1].data
    image = np.random.default_rng(1).random((1, 1, 36, 40)).astype(np.float32)
    maps = full.forward(data=image)["score"]
    assert maps.shape == (1, 10, 3, 4)
    windows = np.concatenate([image[:, :, 4 * y:4 * y + 28, 4 * x:4 * x + 28] for y in range(3) for x in range(4)])
    scores = net.forward_all(data=windows, blobs=["score"])["score"]
    assert np.allclose(maps[0].reshape(10, 12).T, scores, atol=1e-4)
