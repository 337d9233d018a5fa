"""Pictures of nets, drawn by `poseidon draw-net` (docs/caffe-tools.md)."""
import os
import subprocess
import tempfile

from . import _programs


def draw_net_to_file(caffe_net, filename, rankdir="LR", phase=None, display_lrm=False):
    """Draws a NetParameter into a file: .dot as text, other extensions by Graphviz. `phase` is None for all layers."""
    from google.protobuf import text_format
    names = {None: "ALL", 0: "TRAIN", 1: "TEST"}
    if phase not in names:
        raise ValueError("the phase to draw is None, caffe.TRAIN or caffe.TEST")
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as model:
        model.write(text_format.MessageToString(caffe_net))
        model.flush()
        flags = ["--rankdir", rankdir, "--phase", names[phase], *(["--display-lrm"] if display_lrm else [])]
        done = subprocess.run([_programs.path_of("poseidon-data"), "draw-net", *flags, model.name, filename],
                              capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())


def draw_net(caffe_net, rankdir="LR", ext="png", phase=None, display_lrm=False):
    """The picture's bytes."""
    with tempfile.TemporaryDirectory() as folder:
        picture = os.path.join(folder, f"net.{ext}")
        draw_net_to_file(caffe_net, picture, rankdir, phase, display_lrm)
        with open(picture, "rb") as file:
            return file.read()
