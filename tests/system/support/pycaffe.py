"""poseidon.caffe of the build under test, and the nets that its tests share."""
import os
import pathlib
import sys

from support import job

_COMMAND = pathlib.Path(os.environ.get("POSEIDON", job.ROOT / "build" / "bin" / "poseidon"))
PACKAGES = _COMMAND.resolve().parents[1] / "python"
sys.path.insert(0, str(PACKAGES))

import poseidon.caffe as caffe  # noqa: E402, F401 (after the path that finds it)

# Every kind of blob that pycaffe's users meet: an input, one that is worked on in place, an output that is a loss.
SMALL_NET = """
name: "small"
layer { name: "in" type: "Input" top: "data" top: "label" input_param { shape { dim: 2 dim: 3 dim: 6 dim: 5 } shape { dim: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "gaussian" std: 0.3 } bias_filler { type: "uniform" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "scores"
        inner_product_param { num_output: 5 weight_filler { type: "gaussian" std: 0.3 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" loss_weight: 2 }
"""
DEPLOY_NET = SMALL_NET.replace(' top: "label"', "").replace(" shape { dim: 2 } }", " }").rpartition("layer")[0] + \
    'layer { name: "prob" type: "Softmax" bottom: "scores" top: "prob" }\n'


def write(folder, text, name="net.prototxt"):
    path = folder / name
    path.write_text(text)
    return str(path)
