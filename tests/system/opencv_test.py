"""What OpenCV's dnn module, which reads Caffe's files with code of its own, computes with the models that we write, and what we compute
with a model that somebody else has written.

The nets are those of examples/nets/nets.py. Their fillers are livelier here, so that outputs differ from record to record and biases
take part, and a few steps of training give BatchNorm statistics that are not trivial. Set POSEIDON_TEST_ALL for the large ones.
"""
import dataclasses
import os
import random
import struct
import subprocess
import sys

import lmdb
import numpy
import pytest
from support import caffe_files, job

sys.path.insert(0, str(job.ROOT / "examples/nets"))
import nets  # noqa: E402

RECORDS = 4
MARGIN = 6  # images are so much larger than what a net crops from their middle
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Case:
    size: int                   # of what the net sees
    crop: bool = True           # otherwise the images are of that size
    channels: int = 3
    slow: bool = False


CASES = {
    "lenet": Case(28, crop=False, channels=1),
    "cifar10-quick": Case(32, crop=False),
    "cifar10-full": Case(32, crop=False),
    "cifar10-full-sigmoid-bn": Case(32, crop=False),
    "alexnet": Case(67, slow=True),
    "caffenet": Case(67),
    "googlenet": Case(224, slow=True),
    "vgg16": Case(32, slow=True),
    "resnet-50": Case(64),
    "squeezenet": Case(67),
    "fcn32s": Case(40, crop=False, slow=True),
}
SCALE = 1 / 128  # brings pixels to the size of what fillers are made for
MEANS = {1: [0], 3: [104, 117, 123]}


def images_of(case):
    """Large spots under fine noise, so that images differ for any kernel: whole numbers [records, channels, height, width]."""
    side = case.size + (MARGIN if case.crop else 0)
    draw = numpy.random.default_rng(5)
    spots = draw.integers(0, 192, (RECORDS, case.channels, side // 8 + 1, side // 8 + 1)).repeat(8, axis=2).repeat(8, axis=3)
    return (spots[:, :, :side, :side] + draw.integers(0, 64, (RECORDS, case.channels, side, side))).astype(numpy.uint8)


def write_data_bases(folder, images, label_images):
    draw = random.Random(7)
    shape = images.shape[1:]
    for phase in ("train", "test"):
        for name, channels in ((phase, shape[0]), (f"{phase}_labels", 1)):
            with lmdb.open(str(folder / f"{name}_lmdb"), map_size=1 << 28) as data_base, data_base.begin(write=True) as transaction:
                for number, image in enumerate(images):
                    pixels = image.tobytes() if name == phase else bytes(draw.randrange(5) for _ in range(shape[1] * shape[2]))
                    key = struct.pack(">I", number).hex().encode()
                    transaction.put(key, caffe_files.encoded_datum((channels, *shape[1:]), pixels, draw.randrange(10)))
            if not label_images:
                break


def enliven(net, case):
    """Weights that keep the size of what passes through, biases other than zero, and the same input for every net."""
    for layer in net.layers:
        if layer["type"] == "Data" and "data" in layer["top"]:
            kept = {key: value for key, value in layer.get("transform_param", {}).items() if key in ("crop_size", "mirror")}
            layer["transform_param"] = {**kept, "scale": SCALE, "mean_value": MEANS[case.channels]}
        for settings in [value for value in layer.values() if isinstance(value, dict)]:
            if settings.get("weight_filler") not in (None, {"type": "bilinear"}):
                settings["weight_filler"] = {"type": "msra"}
            if "bias_filler" in settings:
                settings["bias_filler"] = {"type": "uniform", "min": -0.2, "max": 0.2}
        if layer["type"] == "Scale":
            layer["scale_param"] = {"bias_term": True, "filler": {"type": "uniform", "min": 0.5, "max": 1},
                                    "bias_filler": {"type": "uniform", "min": -0.2, "max": 0.2}}


def train(poseidon, folder, net_text):
    """Three steps that change little; the model's file."""
    (folder / "train.prototxt").write_text(net_text)
    (folder / "solver.prototxt").write_text('net: "train.prototxt"\nbase_lr: 0.00001\nlr_policy: "fixed"\nmax_iter: 3\nsnapshot_prefix: "model"\n')
    job.run(poseidon, "train", "--solver", "solver.prototxt", "--run-folder", "run", cwd=folder).expect()
    return folder / "model_iter_3.caffemodel"


def ours(poseidon, folder, net_text, model, blobs):
    """{blob: array}, of all records."""
    (folder / "features.prototxt").write_text(net_text)
    job.run(poseidon, "features", "--model", "features.prototxt", "--weights", model, "--blobs", ",".join(blobs), "--iterations", 1, "--out", "out",
            cwd=folder).expect()
    return {name: numpy.load(folder / f"out/{name.replace('/', '_')}.npy") for name in blobs}


def opencvs(folder, deploy_text, model, images, blobs):
    (folder / "deploy.prototxt").write_text(deploy_text)
    numpy.save(folder / "images.npy", images.astype(numpy.float32))
    done = subprocess.run([sys.executable, job.ROOT / "tests/system/support/opencv_forward.py", "deploy.prototxt", model, "images.npy", "opencv.npz", *blobs],
                          cwd=folder, text=True, capture_output=True, timeout=job.SECONDS_MAX, check=False)
    assert done.returncode == 0, done.stderr
    return numpy.load(folder / "opencv.npz")


def compare(mine, theirs, probabilities):
    """Probabilities by their difference; scores, which have any size, by it in proportion to the largest score."""
    for name, value in mine.items():
        assert theirs[name].shape == value.shape
        # What is equal for all records, or zero, would agree whatever the weights are.
        assert numpy.ptp(value, axis=0).max() > (0.01 if name in probabilities else 0.01 * abs(value).max()), name
        scale = 1 if name in probabilities else abs(value).max()
        assert abs(theirs[name] - value).max() <= TOLERANCE * scale, name


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.skipif(case.slow and "POSEIDON_TEST_ALL" not in os.environ, reason="takes minutes"))
                                  for name, case in CASES.items()])
def test_opencv_computes_the_same_with_our_model(poseidon, tmp_path, name):
    case = CASES[name]
    images = images_of(case)
    write_data_bases(tmp_path, images, label_images=name == "fcn32s")
    options = {**{key: str(tmp_path / f"{key}_lmdb") for key in ("train", "test", "train_labels", "test_labels")},
               "batch": 2, "test_batch": RECORDS, "classes": 10, "crop": case.size if case.crop else None, "hidden": 256}
    net = nets.build(name, **options)
    enliven(net, case)
    model = train(poseidon, tmp_path, net.text())

    deploy = nets.build(name, **options, deploy=(RECORDS, case.channels, case.size, case.size))
    outputs = [layer for layer in deploy.layers if layer["type"] == "Softmax"]
    probabilities = [layer["top"][0] for layer in outputs]
    scores = [layer["bottom"][0] for layer in outputs]
    data = [layer for layer in net.layers if layer["type"] == "Data" and "data" in layer["top"]]
    from_data_base = nets.Net(name, net.options)
    from_data_base.layers = data + deploy.layers[1:]
    mine = ours(poseidon, tmp_path, from_data_base.text(), model, scores + probabilities)

    begin = MARGIN // 2 if case.crop else 0
    middle = images[:, :, begin:begin + case.size, begin:begin + case.size]
    seen = (middle.astype(numpy.float64) - numpy.reshape(MEANS[case.channels], (1, -1, 1, 1))) * SCALE
    compare(mine, opencvs(tmp_path, deploy.text(), model, seen, scores + probabilities), probabilities)


SEGMENTATION = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  convolution_param { num_output: 8 kernel_size: 3 pad: 10 weight_filler { type: "msra" } bias_filler { type: "uniform" min: -0.2 max: 0.2 } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "score_fr" type: "Convolution" bottom: "pool1" top: "score_fr"
  convolution_param { num_output: 5 kernel_size: 1 weight_filler { type: "msra" } bias_filler { type: "uniform" min: -0.2 max: 0.2 } } }
layer { name: "upscore" type: "Deconvolution" bottom: "score_fr" top: "upscore"
  convolution_param { num_output: 5 kernel_size: 4 stride: 2 weight_filler { type: "msra" } bias_filler { type: "uniform" min: -0.2 max: 0.2 } } }
layer { name: "pool2" type: "Pooling" bottom: "pool1" top: "pool2" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "score_pool2" type: "Convolution" bottom: "pool2" top: "score_pool2"
  convolution_param { num_output: 5 kernel_size: 1 weight_filler { type: "msra" } } }
layer { name: "upscore4" type: "Deconvolution" bottom: "score_pool2" top: "upscore4"
  convolution_param { num_output: 5 group: 5 bias_term: false kernel_size: 8 stride: 4 weight_filler { type: "bilinear" } } }
layer { name: "cropped4" type: "Crop" bottom: "upscore4" bottom: "data" top: "cropped4" crop_param { axis: 2 offset: 5 offset: 7 } }
layer { name: "cropped" type: "Crop" bottom: "upscore" bottom: "data" top: "cropped" crop_param { axis: 2 offset: 9 } }
layer { name: "score" type: "Eltwise" bottom: "cropped" bottom: "cropped4" top: "score" }
"""


def test_opencv_computes_the_same_segmentation(poseidon, tmp_path):
    """Whole images of scores: the layers of a fully convolutional net, with crops at several offsets, in a small one."""
    case = Case(23, crop=False)
    images = images_of(case)
    write_data_bases(tmp_path, images, label_images=True)

    def data(top, phase, source, transform):
        return (f'layer {{ name: "{top}" type: "Data" top: "{top}" include {{ phase: {phase} }} {transform}\n'
                f'  data_param {{ source: "{tmp_path}/{source}_lmdb" backend: LMDB batch_size: {RECORDS} }} }}\n')
    transform = f"transform_param {{ scale: {SCALE} mean_value: 104 mean_value: 117 mean_value: 123 }}"
    loss = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }\n'
    prob = 'layer { name: "prob" type: "Softmax" bottom: "score" top: "prob" }\n'
    model = train(poseidon, tmp_path, data("data", "TRAIN", "train", transform) + data("label", "TRAIN", "train_labels", "") + SEGMENTATION + loss)
    mine = ours(poseidon, tmp_path, data("data", "TEST", "test", transform) + SEGMENTATION + prob, model, ["score", "prob"])
    seen = (images.astype(numpy.float64) - numpy.reshape(MEANS[3], (1, -1, 1, 1))) * SCALE
    deploy = f'input: "data" input_shape {{ dim: {RECORDS} dim: 3 dim: 23 dim: 23 }}\n' + SEGMENTATION + prob
    compare(mine, opencvs(tmp_path, deploy, model, seen, ["score", "prob"]), ["prob"])


OLD_NET = """
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" blobs_lr: 1 blobs_lr: 2 convolution_param { num_output: 4 kernel_size: 3 stride: 2 group: 2 } }
layers { name: "relu" type: RELU bottom: "conv" top: "conv" }
layers { name: "ip" type: INNER_PRODUCT bottom: "conv" top: "ip" inner_product_param { num_output: 3 } }
layers { name: "prob" type: SOFTMAX bottom: "ip" top: "prob" }
"""


def old_blob(array, packed):
    """A BlobProto as it was before blobs had any number of axes: num, channels, height, width, and the numbers."""
    shape = (1,) * (4 - array.ndim) + array.shape
    numbers = array.astype("<f4").tobytes()
    sizes = b"".join(caffe_files.encoded(number, size) for number, size in zip((1, 2, 3, 4), shape))
    if packed:
        return sizes + caffe_files.encoded(5, numbers)
    return sizes + b"".join(bytes([5 << 3 | caffe_files.FIXED32]) + numbers[i:i + 4] for i in range(0, len(numbers), 4))


def old_model(layers, packed):
    """A NetParameter of V1 layers, [(name, type, bottom, top, [arrays])]."""
    model = caffe_files.encoded(1, "somebody's")
    for name, kind, bottom, top, arrays in layers:
        blobs = b"".join(caffe_files.encoded(6, old_blob(array, packed)) for array in arrays)
        model += caffe_files.encoded(2, b"".join(caffe_files.encoded(number, value) for number, value in ((2, bottom), (3, top), (4, name), (5, kind))) + blobs)
    return model


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "unpacked"])
def test_a_model_that_somebody_else_wrote_gives_their_outputs(poseidon, tmp_path, packed):
    """Encoded here by hand, as Caffe's of 2014 are; the outputs are worked out by NumPy, and by OpenCV."""
    draw = numpy.random.default_rng(3)
    weight, bias = draw.normal(size=(4, 1, 3, 3)), draw.normal(size=4)
    full_weight, full_bias = draw.normal(size=(3, 16)), draw.normal(size=3)
    weight, bias, full_weight, full_bias = (array.astype(numpy.float32) for array in (weight, bias, full_weight, full_bias))
    model = tmp_path / "theirs.caffemodel"
    model.write_bytes(old_model([("conv", 4, "data", "conv", [weight, bias]), ("ip", 14, "conv", "ip", [full_weight, full_bias])], packed))
    case = Case(5, crop=False, channels=2)
    images = images_of(case)
    write_data_bases(tmp_path, images, label_images=False)
    seen = images.astype(numpy.float64) * SCALE

    convolved = numpy.zeros((RECORDS, 4, 2, 2))
    for output, row, column in numpy.ndindex(4, 2, 2):
        window = seen[:, output // 2, 2 * row:2 * row + 3, 2 * column:2 * column + 3]
        convolved[:, output, row, column] = (window * weight[output, 0]).sum((1, 2)) + bias[output]
    scores = numpy.maximum(convolved, 0).reshape(RECORDS, 16) @ full_weight.T + full_bias
    powers = numpy.exp(scores - scores.max(axis=1, keepdims=True))
    expected = {"ip": scores, "prob": powers / powers.sum(axis=1, keepdims=True)}

    data = (f'layers {{ name: "data" type: DATA top: "data" data_param {{ source: "{tmp_path}/test_lmdb" backend: LMDB batch_size: {RECORDS} }}\n'
            f"  transform_param {{ scale: {SCALE} }} }}\n")
    compare(ours(poseidon, tmp_path, data + OLD_NET, model, ["ip", "prob"]), expected, ["prob"])
    deploy = f'input: "data" input_dim: {RECORDS} input_dim: 2 input_dim: 5 input_dim: 5\n' + OLD_NET
    compare(expected, opencvs(tmp_path, deploy, model, seen, ["ip", "prob"]), ["prob"])
