"""poseidon.caffe's images, messages and nets written as Python, and what is made of them: Classifier and Detector."""
import subprocess
import sys

import numpy as np
import pytest
from google.protobuf import text_format
from PIL import Image
from support import job
from support.pycaffe import PACKAGES, caffe, write

# --- io

RAMP = np.arange(4 * 6 * 3, dtype=np.float32).reshape(4, 6, 3)


def image_file(folder, pixels, name="image.png"):
    Image.fromarray(pixels).save(folder / name)
    return str(folder / name)


def test_images_are_loaded_as_numbers_from_0_to_1(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    color = image_file(tmp_path, pixels)
    gray = image_file(tmp_path, pixels[:, :, 0], "gray.png")
    loaded = caffe.io.load_image(color)
    assert loaded.dtype == np.float32 and np.array_equal(loaded, pixels.astype(np.float32) / 255)
    assert np.array_equal(caffe.io.load_image(gray), np.repeat(pixels[:, :, :1], 3, 2).astype(np.float32) / 255)
    assert np.array_equal(caffe.io.load_image(gray, color=False), pixels[:, :, :1].astype(np.float32) / 255)
    luminance = pixels @ np.array([0.2125, 0.7154, 0.0721]) / 255
    assert np.allclose(caffe.io.load_image(color, color=False)[:, :, 0], luminance, atol=1e-6)
    deep = image_file(tmp_path, np.zeros((2, 2), np.uint16), "deep.png")
    with pytest.raises(ValueError, match="8 bits"):
        caffe.io.load_image(deep)


def test_resizing_interpolates_between_pixel_centres():
    row = np.array([0, 10, 20, 30], np.float32).reshape(1, 4, 1)
    assert caffe.io.resize_image(row, (1, 2)).ravel().tolist() == [5, 25]
    assert caffe.io.resize_image(row, (1, 8)).ravel().tolist() == [0, 2.5, 7.5, 12.5, 17.5, 22.5, 27.5, 30]
    assert caffe.io.resize_image(row, (1, 8), interp_order=0).ravel().tolist() == [0, 0, 10, 10, 20, 20, 30, 30]
    assert np.array_equal(caffe.io.resize_image(RAMP, (4, 6)), RAMP)
    assert caffe.io.resize_image(RAMP, (2, 3)).shape == (2, 3, 3)
    with pytest.raises(ValueError, match="interp_order"):
        caffe.io.resize_image(row, (1, 2), interp_order=3)


def test_oversampling_takes_ten_crops():
    crops = caffe.io.oversample([RAMP, RAMP + 100], (2, 3))
    assert crops.shape == (20, 2, 3, 3) and crops.dtype == np.float32
    corners = [RAMP[:2, :3], RAMP[:2, 3:], RAMP[2:, :3], RAMP[2:, 3:], RAMP[1:3, 1:4]]
    for number, crop in enumerate(corners):
        assert np.array_equal(crops[number], crop) and np.array_equal(crops[5 + number], crop[:, ::-1])
        assert np.array_equal(crops[10 + number], crop + 100)
    with pytest.raises(ValueError, match="do not fit"):
        caffe.io.oversample([RAMP], (5, 3))


def test_a_transformer_does_caffes_steps_in_their_order():
    transformer = caffe.io.Transformer({"data": (1, 3, 2, 3)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (2, 1, 0))
    transformer.set_raw_scale("data", 255)
    transformer.set_mean("data", np.array([1, 2, 3]))
    transformer.set_input_scale("data", 0.5)
    image = RAMP[:2, :3]
    done = transformer.preprocess("data", image)
    wanted = (image.transpose(2, 0, 1)[::-1] * 255 - np.array([1, 2, 3])[:, None, None]) * 0.5
    assert done.dtype == np.float32 and np.allclose(done, wanted)
    assert np.allclose(transformer.deprocess("data", done[np.newaxis]), image, atol=1e-4)
    assert np.allclose(transformer.preprocess("data", RAMP), transformer.preprocess("data", caffe.io.resize_image(RAMP, (2, 3))))


def test_a_transformer_resizes_mean_images_and_refuses_what_does_not_fit():
    transformer = caffe.io.Transformer({"data": (1, 3, 2, 3)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_mean("data", RAMP.transpose(2, 0, 1))
    assert np.allclose(transformer.preprocess("data", RAMP), 0, atol=1e-5)
    for setter, value, words in (("set_mean", np.zeros(2), "channels"), ("set_mean", np.zeros((2, 2, 3)), "must be"),
                                 ("set_transpose", (1, 0), "entries"), ("set_channel_swap", (1, 0), "channels")):
        with pytest.raises(Exception, match=words):
            getattr(transformer, setter)("data", value)
    with pytest.raises(Exception, match="not one of the net inputs"):
        transformer.preprocess("label", RAMP)


def test_arrays_and_messages_turn_into_each_other():
    array = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    blob = caffe.io.array_to_blobproto(array, diff=-array)
    assert list(blob.shape.dim) == [1, 2, 3]
    assert np.array_equal(caffe.io.blobproto_to_array(blob), array)
    assert np.array_equal(caffe.io.blobproto_to_array(blob, return_diff=True), -array)
    old = caffe.proto.caffe_pb2.BlobProto(num=1, channels=2, height=1, width=2, data=[1, 2, 3, 4])
    assert caffe.io.blobproto_to_array(old).shape == (1, 2, 1, 2)
    both = caffe.io.arraylist_to_blobprotovecor_str([array, array[0]])
    assert [part.shape for part in caffe.io.blobprotovector_str_to_arraylist(both)] == [(1, 2, 3), (2, 3)]
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    datum = caffe.io.array_to_datum(pixels, label=7)
    assert datum.label == 7 and datum.data == bytes(range(12))
    assert np.array_equal(caffe.io.datum_to_array(datum), pixels)
    floats = caffe.io.datum_to_array(caffe.io.array_to_datum(pixels / 2))
    assert np.array_equal(floats, pixels / 2)
    with pytest.raises(ValueError, match="channels, height and width"):
        caffe.io.array_to_datum(pixels[0])
    with pytest.raises(ValueError, match="encoded"):
        caffe.io.datum_to_array(caffe.proto.caffe_pb2.Datum(encoded=True, data=b"x"))


# --- NetSpec

def lenet(batch):
    n, L, P = caffe.NetSpec(), caffe.layers, caffe.params
    n.data, n.label = L.DummyData(shape=[dict(dim=[batch, 1, 28, 28]), dict(dim=[batch])], ntop=2,
                                  transform_param=dict(scale=1 / 256))
    n.conv1 = L.Convolution(n.data, kernel_size=5, num_output=20, weight_filler=dict(type="xavier"), param=[dict(lr_mult=1), dict(lr_mult=2)])
    n.pool1 = L.Pooling(n.conv1, kernel_size=2, stride=2, pool=P.Pooling.MAX)
    n.ip1 = L.InnerProduct(n.pool1, num_output=500, weight_filler=dict(type="xavier"))
    n.relu1 = L.ReLU(n.ip1, in_place=True)
    n.score = L.InnerProduct(n.relu1, num_output=10, weight_filler=dict(type="xavier"))
    n.loss = L.SoftmaxWithLoss(n.score, n.label, loss_weight=2, include=dict(phase=caffe.TRAIN))
    return n


def test_a_net_spec_says_what_was_called():
    proto = lenet(4).to_proto()
    assert [(layer.name, layer.type) for layer in proto.layer] == [
        ("data", "DummyData"), ("conv1", "Convolution"), ("pool1", "Pooling"), ("ip1", "InnerProduct"), ("relu1", "ReLU"),
        ("score", "InnerProduct"), ("loss", "SoftmaxWithLoss")]
    data, conv, pool, _, relu, score, loss = proto.layer
    assert list(data.top) == ["data", "label"] and data.transform_param.scale == 1 / 256
    assert list(data.dummy_data_param.shape[0].dim) == [4, 1, 28, 28]
    assert list(conv.bottom) == ["data"] and list(conv.convolution_param.kernel_size) == [5]
    assert [spec.lr_mult for spec in conv.param] == [1, 2] and conv.convolution_param.weight_filler.type == "xavier"
    assert pool.pooling_param.pool == caffe.params.Pooling.MAX == 0
    assert list(relu.bottom) == list(relu.top) == list(score.bottom) == ["ip1"]
    assert list(loss.bottom) == ["score", "label"] and list(loss.loss_weight) == [2]
    assert loss.include[0].phase == caffe.TRAIN


def test_a_net_spec_makes_a_net(tmp_path):
    net = caffe.Net(write(tmp_path, str(lenet(4).to_proto())), caffe.TRAIN)
    assert net.blobs["score"].shape == (4, 10) and "loss" in net.forward()


def test_blobs_without_names_get_some():
    L = caffe.layers
    data = L.Input(shape=dict(dim=[1, 2]))
    one, two = L.Slice(data, ntop=2)
    proto = caffe.to_proto(L.Eltwise(L.ReLU(one), L.Silence(two, ntop=1)))
    tops = [top for layer in proto.layer for top in layer.top]
    assert len(set(tops)) == len(tops) == 6
    assert list(proto.layer[-1].bottom) == [proto.layer[2].top[0], proto.layer[3].top[0]]
    assert L.ReLU(data).to_proto().layer[1].type == "ReLU"
    n = caffe.NetSpec()
    n.data = data
    n.quiet = L.Silence(n.data, ntop=0)
    n["x"] = L.Deconvolution(n["data"], convolution_param=dict(num_output=1, kernel_size=2), name="up")
    assert [layer.name for layer in n.to_proto().layer] == ["data", "quiet", "up"]
    del n.quiet
    assert "quiet" not in n.tops and list(n.to_proto().layer[1].top) == ["x"]


@pytest.mark.parametrize("make, words", [
    (lambda L: L.Convolution(num_outputs=3).to_proto(), "no field 'num_outputs'"),
    (lambda L: L.ReLU("data"), "takes blobs"),
    (lambda L: L.Concat(L.Input(), L.Input(), in_place=True), "in place"),
    (lambda L: L.InnerProduct(num_output=[1, 2]).to_proto(), "takes one value"),
    (lambda L: caffe.NetSpec().nothing, "no blob 'nothing'"),
    (lambda L: setattr(caffe.NetSpec(), "x", 3), "must be a layer's blob"),
    (lambda L: caffe.params.Poling.MAX, "no settings 'Poling'"),
])
def test_mistakes_of_net_specs_are_told(make, words):
    with pytest.raises((AttributeError, TypeError, ValueError), match=words):
        make(caffe.layers)


def test_messages_are_read_and_printed_as_text():
    net = text_format.Parse(job.EXAMPLE_NET.read_text(), caffe.proto.caffe_pb2.NetParameter())
    assert net.name == "LeNet" and text_format.Parse(str(net), caffe.proto.caffe_pb2.NetParameter()) == net


def test_messages_need_protobuf_and_nets_do_not():
    script = """
import sys
sys.modules["google.protobuf"] = sys.modules["PIL"] = None
import poseidon.caffe as caffe
assert len(caffe.layer_type_list()) > 50
for use in (lambda: caffe.NetSpec, lambda: caffe.io.load_image("x.png")):
    try:
        use()
    except ImportError as error:
        print(type(error).__name__)
"""
    done = subprocess.run([sys.executable, "-c", script], env=job.environment(PYTHONPATH=str(PACKAGES)), capture_output=True, text=True,
                          timeout=300, check=True)
    assert len(done.stdout.split()) == 2


# --- Classifier and Detector

MEANS_NET = """
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } } }
layer { name: "mean" type: "Pooling" bottom: "data" top: "mean" pooling_param { pool: AVE global_pooling: true } }
layer { name: "prob" type: "InnerProduct" bottom: "mean" top: "prob" inner_product_param { num_output: 3 bias_term: false } }
"""


@pytest.fixture
def means(tmp_path):
    """A net that yields twice the mean of each channel, and its weights."""
    file = write(tmp_path, MEANS_NET)
    net = caffe.Net(file, caffe.TEST)
    net.params["prob"][0].data[...] = 2 * np.eye(3)
    net.save(tmp_path / "means.caffemodel")
    return file, str(tmp_path / "means.caffemodel")


def test_a_classifier_scores_crops_of_images(means):
    classifier = caffe.Classifier(*means, image_dims=(10, 12), mean=np.array([1, 2, 3]), raw_scale=255, channel_swap=(2, 1, 0), input_scale=0.5)
    images = [np.random.default_rng(seed).random((20, 24, 3)).astype(np.float32) for seed in range(3)]
    small = [caffe.io.resize_image(image, (10, 12)) for image in images]

    def scores(crop):
        return 2 * (crop[:, :, ::-1].mean((0, 1)) * 255 - [1, 2, 3]) * 0.5
    centre = classifier.predict(images, oversample=False)
    assert np.allclose(centre, [scores(image[1:9, 2:10]) for image in small], rtol=1e-4)
    ten = classifier.predict(images)
    places = [(0, 0), (0, 4), (2, 0), (2, 4), (1, 2)]  # a mirrored crop has the same means
    wanted = [np.mean([scores(image[y:y + 8, x:x + 8]) for y, x in places], 0) for image in small]
    assert ten.shape == (3, 3) and np.allclose(ten, wanted, rtol=1e-4)


def test_a_detector_scores_windows(tmp_path, means):
    pixels = np.random.default_rng(3).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    file = image_file(tmp_path, pixels)
    detector = caffe.Detector(*means, raw_scale=255)
    windows = [(2, 4, 10, 12), (0, 0, 8, 8), (20, 30, 28, 38), (1, 1, 17, 17), (5, 5, 13, 13)]
    found = detector.detect_windows([(file, windows)])
    assert [entry["window"] for entry in found] == windows and found[0]["filename"] == file
    for entry, (top, left, bottom, right) in zip(found, windows):
        crop = caffe.io.resize_image(pixels[top:bottom, left:right], (8, 8))
        assert np.allclose(entry["prediction"], 2 * crop.mean((0, 1)), rtol=1e-3)
    assert detector.detect_windows([(file, [])]) == []
    with pytest.raises(NotImplementedError, match="detect_windows"):
        detector.detect_selective_search([file])


def test_a_detectors_context_is_the_images_and_beyond_it_the_mean(means):
    detector = caffe.Detector(*means, mean=np.array([10, 20, 30]), raw_scale=255, context_pad=2)
    image = np.full((40, 40, 3), 0.5, np.float32)
    inside = detector.crop(image, (16, 16, 23, 23))  # 8 pixels, for the 4 in the middle
    assert inside.shape == (8, 8, 3) and np.allclose(inside, 0.5)
    corner = detector.crop(image, (0, 0, 7, 7))
    assert np.allclose(corner[0], np.array([10, 20, 30]) / 255) and np.allclose(corner[:, 0], np.array([10, 20, 30]) / 255)
    assert np.allclose(corner[2:6, 2:6], 0.5)
    with pytest.raises(ValueError, match="context_pad 4"):
        detector.configure_crop(4)
