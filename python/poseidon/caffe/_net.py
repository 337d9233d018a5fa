"""pycaffe's Net: names and calling conventions around a net of the engine that keeps its blobs."""
import collections

import numpy as np

from . import _settings
from ._engine import Blob, KeptNet
from ._layer import collected

TRAIN, TEST = 0, 1


def _axis(axis):
    """One of the four axes that all blobs once had; those that a blob lacks have extent 1."""
    def extent(blob):
        if len(blob.shape) > 4:
            raise ValueError(f"a blob with {len(blob.shape)} axes has no num, channels, height and width")
        return blob.shape[axis] if axis < len(blob.shape) else 1
    return property(extent)


for _number, _name in enumerate(("num", "channels", "height", "width")):
    setattr(Blob, _name, _axis(_number))


class LayerView:
    """A layer of a net as pycaffe shows it."""

    def __init__(self, type_, blobs):
        self.type = type_
        self.blobs = blobs


class Net:
    """A net from a prototxt: Net(file, phase), Net(file, weights, phase) or Net(file, phase, weights=..., level=..., stages=...).

    `dtype` is "float32" or "float64".
    """

    def __init__(self, network_file, *arguments, phase=None, weights=None, level=0, stages=None, dtype="float32"):
        arguments = list(arguments)
        if len(arguments) == 2 and phase is None and weights is None:
            weights, phase = arguments  # Caffe's older order
        elif len(arguments) == 1 and phase is None:
            phase, = arguments
        elif arguments:
            raise TypeError("Net takes (file, phase), (file, weights, phase) or (file, phase, weights=..., level=..., stages=...)")
        if phase is None:
            raise TypeError("Net needs a phase: caffe.TRAIN or caffe.TEST")
        with collected() as instances:
            kept = KeptNet(str(network_file), phase, level, list(stages or []), dtype, _settings.seed)
        self._take(kept, instances)
        if weights is not None:
            self.copy_from(weights)

    @classmethod
    def _around(cls, kept, instances):
        """A net that the engine has made already; takes what it needs of the Python layers in `instances`."""
        net = cls.__new__(cls)
        net._take(kept, instances)
        return net

    def _take(self, kept, instances):
        self._kept = kept
        self._facts = kept.layers
        self.name = kept.name
        self.blobs = collections.OrderedDict((name, kept.blob(name)) for name in kept.blob_names)
        self.params = collections.OrderedDict((layer.name, layer.blobs) for layer in self._facts if layer.blobs)
        self.layers = [instances.pop(0) if layer.type == "Python" else LayerView(layer.type, layer.blobs) for layer in self._facts]
        self.layer_dict = collections.OrderedDict(zip(self._layer_names, self.layers))
        self.blob_loss_weights = collections.OrderedDict(kept.loss_weights)
        self.bottom_names = collections.OrderedDict((layer.name, list(layer.bottoms)) for layer in self._facts)
        self.top_names = collections.OrderedDict((layer.name, list(layer.tops)) for layer in self._facts)
        self.inputs = [top for layer in self._facts if layer.type == "Input" for top in layer.tops]
        self.outputs = list(kept.outputs)

    @property
    def _layer_names(self):
        return [layer.name for layer in self._facts]

    @property
    def _blob_names(self):
        return list(self.blobs)

    def _index(self, layer):
        if layer not in self._layer_names:
            raise ValueError(f"the net has no layer {layer!r}; its layers are {', '.join(self._layer_names)}")
        return self._layer_names.index(layer)

    def _named(self, names):
        unknown = [name for name in names if name not in self.blobs]
        if unknown:
            raise ValueError(f"the net has no blob {unknown[0]!r}; its blobs are {', '.join(self.blobs)}")
        return names

    def _fill(self, blob, values, part):
        values = np.asarray(values)
        if values.shape[:1] != self.blobs[blob].shape[:1]:
            raise ValueError(f"{blob} takes {self.blobs[blob].shape[:1]} records and was given {values.shape[:1]}; reshape the blob, "
                             "or use forward_all")
        getattr(self.blobs[blob], part)[...] = values

    def forward(self, blobs=None, start=None, end=None, **kwargs):
        """Runs layers `start` to `end` and returns {name: data} of the outputs (or of layer `end`) and of `blobs`.

        Keyword arguments are values of the net's inputs, all of them or none.
        """
        first = 0 if start is None else self._index(start)
        last = len(self._facts) - 1 if end is None else self._index(end)
        # Caffe takes the layer's name for its top's, and so do scripts; a layer whose top has another name gives its tops.
        ends = self.outputs if end is None else [end] if end in self.blobs else self.top_names[end]
        wanted = self._named([*ends, *(blobs or [])])
        if kwargs:
            if set(kwargs) != set(self.inputs):
                raise ValueError(f"the net's inputs are {self.inputs}, and was given {sorted(kwargs)}")
            for name, values in kwargs.items():
                self._fill(name, values, "data")
        self._kept.forward(first, last)
        return {name: self.blobs[name].data for name in wanted}

    def backward(self, diffs=None, start=None, end=None, **kwargs):
        """Runs layers `start` back to `end` and returns {name: diff} of the inputs (or of layer `end`'s bottoms) and of `diffs`.

        Keyword arguments are gradients of the net's outputs, all of them or none. Gradients of parameters are added to what is there.
        """
        last = len(self._facts) - 1 if start is None else self._index(start)
        first = 0 if end is None else self._index(end)
        wanted = self._named([*(self.inputs if end is None else self.bottom_names[end]), *(diffs or [])])
        if kwargs:
            if set(kwargs) != set(self.outputs):
                raise ValueError(f"the net's outputs are {self.outputs}, and was given gradients of {sorted(kwargs)}")
            for name, values in kwargs.items():
                self._fill(name, values, "diff")
        self._kept.backward(first, last)
        return {name: self.blobs[name].diff for name in wanted}

    def _batches(self, blobs):
        """The arrays in `blobs`, of equal length, in batches of the net's; the last one is filled up with zeros."""
        size = next(iter(self.blobs.values())).shape[0]
        lengths = {len(values) for values in blobs.values()}
        if len(lengths) != 1:
            raise ValueError(f"all of {sorted(blobs)} must have as many records, and have {sorted(lengths)}")
        for begin in range(0, lengths.pop(), size):
            batch = {}
            for name, values in blobs.items():
                part = np.asarray(values[begin:begin + size])
                batch[name] = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), part.dtype)])
            yield batch

    @staticmethod
    def _joined(batches, length):
        joined = {}
        for batch in batches:
            for name, values in batch.items():
                joined.setdefault(name, []).extend(np.array(values))
        return {name: np.asarray(values[:length]) for name, values in joined.items()}

    def forward_all(self, blobs=None, **kwargs):
        """forward() for any number of records, batch after batch. Outputs must have a row for each record."""
        length = len(next(iter(kwargs.values())))
        return self._joined((self.forward(blobs=blobs, **batch) for batch in self._batches(kwargs)), length)

    def forward_backward_all(self, blobs=None, diffs=None, **kwargs):
        """forward() and backward() for any number of records: ({name: data}, {name: diff}).

        Keyword arguments are inputs, and gradients of outputs.
        """
        length = len(next(iter(kwargs.values())))
        forwards, backwards = [], []
        for batch in self._batches(kwargs):
            ins = {name: values for name, values in batch.items() if name in self.inputs}
            tops = {name: values for name, values in batch.items() if name not in self.inputs}
            forwards.append({name: values.copy() for name, values in self.forward(blobs=blobs, **ins).items()})
            backwards.append({name: values.copy() for name, values in self.backward(diffs=diffs, **tops).items()})
        return self._joined(forwards, length), self._joined(backwards, length)

    def reshape(self):
        """Gives all blobs the shapes that follow from the inputs' present ones. forward() does it as well."""
        self._kept.reshape()

    def copy_from(self, weights):
        """Takes the arrays of a .caffemodel, or of a .caffemodel.h5, for the layers of the same names."""
        self._kept.copy_from(str(weights))

    def load_hdf5(self, file):
        """copy_from() for a .caffemodel.h5 alone."""
        self._kept.load_hdf5(str(file))

    def save(self, file):
        """Writes all layers' arrays as a .caffemodel."""
        self._kept.save(str(file))

    def save_hdf5(self, file):
        """Writes all layers' arrays as a .caffemodel.h5."""
        self._kept.save_hdf5(str(file))

    def share_with(self, other):
        """From now on layers of the same names have one array in both nets."""
        self._kept.share_with(other._kept)

    def clear_param_diffs(self):
        self._kept.clear_param_diffs()

    def set_input_arrays(self, data, labels):
        """Gives the net's MemoryData layer its images [records, channels, height, width] and a label for each."""
        layers = [layer for layer in self._facts if layer.type == "MemoryData"]
        if not layers:
            raise ValueError("the net has no MemoryData layer to take arrays")
        for blob, values in zip(layers[0].tops, (data, labels)):
            self._kept.feed(blob, values)
