"""What is trained: model descriptions, the published speed of one GPU, and the time line a framework's worker follows."""
import dataclasses
import json
import math
import pathlib


@dataclasses.dataclass(frozen=True)
class Published:
    """One GPU's rate and the batch it was measured with."""
    samples_per_second: float
    batch: int


# What one node computes. VGG19, VGG19-22K, GoogLeNet and Inception-V3 as the Poseidon paper (Zhang et al., USENIX ATC 2017) gives
# them for one Titan X; the others are of the order of one GPU of those years. A sample is one image, or one sequence for BERT.
PUBLISHED = {
    "alexnet": Published(1421, 128),
    "bert-base": Published(12, 32),
    "googlenet": Published(257, 128),
    "inception-v3": Published(43.2, 32),
    "resnet-152": Published(20, 32),
    "vgg19": Published(35.5, 32),
    "vgg19-22k": Published(34.6, 32),
}
# What is no net, and computes for a microsecond: the link alone counts.
_BARE = {"push-pull": Published(1e6, 1)}
_OWN_FOLDER = pathlib.Path(__file__).with_name("models")


@dataclasses.dataclass(frozen=True)
class Group:
    """A layer with parameters and those without that follow it, up to the next with parameters.

    In the backward pass the followers come first, so the group's gradients are ready when all of its backward time is over. Layers
    before the first one with parameters are a group without shapes.
    """
    name: str
    forward_seconds: float
    backward_seconds: float
    shapes: list
    factor_rows: int = 0  # of the factors of its only matrix, where the gradient is a product of them


def path_of(folder, name):
    """Where the description of a model is: in the folder, or among the harness's own. It may not exist."""
    path = (folder / f"{name}.json").resolve()
    own = _OWN_FOLDER / path.name
    return own if own.is_file() and not path.is_file() else path


def rate_of(name):
    """Batch and rate of one node, or None where nobody has published them."""
    return PUBLISHED.get(name) or _BARE.get(name)


def load(path):
    return json.loads(path.read_text())


def timeline(model, samples_per_second, batch, dilation):
    """The groups of `model` in forward order, with dilated times."""
    flops_per_s = (model["forward_flops_per_sample"] + model["backward_flops_per_sample"]) * samples_per_second
    scale = batch * dilation / flops_per_s
    groups = []
    for layer in model["layers"]:
        if layer["params"] or not groups:
            rows = layer["rows_per_sample"] * batch if layer["fc"] else 0
            groups.append([layer["name"], 0.0, 0.0, layer["params"], rows])
        groups[-1][1] += layer["forward_flops_per_sample"] * scale
        groups[-1][2] += layer["backward_flops_per_sample"] * scale
    return [Group(*group) for group in groups]


def flops_per_second(model, samples_per_second, dilation):
    """Of the dilated device."""
    return (model["forward_flops_per_sample"] + model["backward_flops_per_sample"]) * samples_per_second / dilation


def parameter_counts(model):
    """Numbers per trainable array."""
    return [math.prod(shape) for layer in model["layers"] for shape in layer["params"]]
