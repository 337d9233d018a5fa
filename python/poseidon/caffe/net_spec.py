"""Nets written as Python: NetSpec, and layers and params that make messages out of calls.

    n = NetSpec()
    n.data = layers.Input(shape=dict(dim=[1, 3, 227, 227]))
    n.conv1 = layers.Convolution(n.data, num_output=96, kernel_size=11, stride=4, weight_filler=dict(type="xavier"))
    n.relu1 = layers.ReLU(n.conv1, in_place=True)
    print(n.to_proto())

A keyword of a call is a field of the type's own settings (num_output of convolution_param) where those have such a field, else
one of the layer (loss_weight, param, include). Dictionaries are messages, lists are repeated fields.
"""
import collections
import collections.abc

from .proto import caffe_pb2


def _settings_fields():
    """{"Convolution": "convolution_param", ...}, for the types that have settings of their own."""
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields
    return {field.message_type.name.removesuffix("Parameter"): field.name for field in fields
            if field.message_type is not None and field.name.endswith("_param")}


_SETTINGS_FIELDS = _settings_fields()


def assign(message, name, value):
    """Sets a field of a protobuf message from plain Python values."""
    field = message.DESCRIPTOR.fields_by_name.get(name)
    if field is None:
        raise AttributeError(f"{message.DESCRIPTOR.name} has no field {name!r}")
    is_list = isinstance(value, collections.abc.Sequence) and not isinstance(value, (str, bytes))
    # Newer versions of protobuf have the one, older ones the other.
    if field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED:
        for element in value if is_list else [value]:
            if field.message_type is None:
                getattr(message, name).append(element)
            else:
                _assign_all(getattr(message, name).add(), element)
    elif is_list:
        raise TypeError(f"{message.DESCRIPTOR.name}.{name} takes one value and was given {len(value)}")
    elif field.message_type is not None:
        _assign_all(getattr(message, name), value)
    elif field.enum_type is not None and isinstance(value, str):
        setattr(message, name, field.enum_type.values_by_name[value].number)
    else:
        setattr(message, name, value)


def _assign_all(message, value):
    if isinstance(value, collections.abc.Mapping):
        for name, one in value.items():
            assign(message, name, one)
    else:
        message.CopyFrom(value)


class Top:
    """One blob that a layer makes; what other layers take as a bottom."""

    def __init__(self, function, number):
        self.fn = function
        self.n = number

    def to_proto(self):
        """The net of all that this blob is made from."""
        return to_proto(self)

    def _to_proto(self, net):
        return net.of(self.fn)


class Function:
    """One layer: its type, its bottoms, its settings."""

    def __init__(self, type_name, bottoms, settings):
        for bottom in bottoms:
            if not isinstance(bottom, Top):
                raise TypeError(f"{type_name} takes blobs of other layers as bottoms, and was given {bottom!r}")
        self.type_name = type_name
        self.inputs = bottoms
        self.params = dict(settings)
        self.ntop = self.params.pop("ntop", 1)
        self.in_place = self.params.pop("in_place", False)
        if self.in_place and (len(bottoms) != 1 or self.ntop != 1):
            raise ValueError(f"{type_name} cannot work in place with {len(bottoms)} bottoms and {self.ntop} tops")
        self.tops = tuple(Top(self, number) for number in range(self.ntop))

    def message(self, name, bottoms, tops):
        layer = caffe_pb2.LayerParameter(type=self.type_name, name=name, bottom=bottoms, top=tops)
        own = _SETTINGS_FIELDS.get(self.type_name)
        known = caffe_pb2.LayerParameter.DESCRIPTOR.fields_by_name[own].message_type.fields_by_name if own else {}
        for key, value in self.params.items():
            if key in known:
                assign(getattr(layer, own), key, value)
            else:
                assign(layer, key, value)
        return layer


class _Writer:
    """Layers in the order in which they are needed, each once."""

    def __init__(self, names):
        self.names = dict(names)  # Top to name
        self.layers = collections.OrderedDict()
        self.counts = collections.Counter()

    def name_of(self, top):
        if top.fn.in_place:
            return self.name_of(top.fn.inputs[0])
        if top not in self.names:
            # As Caffe: the type with a running number, and with the top's where there are several.
            self.counts[top.fn.type_name] += 1
            base = f"{top.fn.type_name}{self.counts[top.fn.type_name]}"
            for number, other in enumerate(top.fn.tops):
                self.names.setdefault(other, base if number == 0 and top.fn.ntop == 1 else f"{base}_{number + 1}")
        return self.names[top]

    def layer_name(self, function, tops):
        if "name" in function.params:
            return function.params["name"]
        if function.tops and function.tops[0] in self.names:  # also where it works in place
            return self.names[function.tops[0]]
        if tops and not function.in_place:
            return tops[0]
        self.counts[function.type_name] += 1
        return f"{function.type_name}{self.counts[function.type_name]}"

    def write(self, function):
        if function in self.layers:
            return
        for bottom in function.inputs:
            self.write(bottom.fn)
        self.layers[function] = None  # its place, before names are made up for it
        bottoms = [self.name_of(bottom) for bottom in function.inputs]
        tops = [self.name_of(top) for top in function.tops]
        self.layers[function] = function.message(self.layer_name(function, tops), bottoms, tops)


def _write(names, functions):
    writer = _Writer(names)
    for function in functions:
        writer.write(function)
    return caffe_pb2.NetParameter(layer=list(writer.layers.values()))


def to_proto(*tops):
    """The net of all that these blobs are made from, with made-up names."""
    return _write({}, [top.fn for top in tops])


class NetSpec:
    """Blobs with names, in the order in which they were given; layers are called as their first blob is."""

    def __init__(self):
        object.__setattr__(self, "tops", collections.OrderedDict())

    def __setattr__(self, name, value):
        self[name] = value

    def __getattr__(self, name):
        try:
            return self.tops[name]
        except KeyError:
            raise AttributeError(f"the net has no blob {name!r}") from None

    def __setitem__(self, name, value):
        if not isinstance(value, (Top, Function)):
            raise TypeError(f"{name} must be a layer's blob, and is {value!r}")
        self.tops[name] = value

    def __getitem__(self, name):
        return self.tops[name]

    def __delitem__(self, name):
        del self.tops[name]

    def __delattr__(self, name):
        del self[name]

    def to_proto(self):
        names, functions = {}, []
        for name, value in self.tops.items():
            if isinstance(value, Function):  # a layer without tops
                value.params.setdefault("name", name)
                functions.append(value)
            else:
                names[value] = name
                functions.append(value.fn)
        return _write(names, functions)


class Layers:
    """layers.Convolution(bottom, ...) and so on: a top, a tuple of `ntop` tops, or a layer without."""

    def __getattr__(self, type_name):
        if type_name.startswith("__"):
            raise AttributeError(type_name)

        def make(*bottoms, **settings):
            function = Function(type_name, bottoms, settings)
            if function.ntop == 0:
                return function
            return function.tops[0] if function.ntop == 1 else function.tops
        return make


class Parameters:
    """params.Pooling.MAX and so on: the numbers of a type's enumerators."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        message = getattr(caffe_pb2, f"{name}Parameter", None)
        if message is None:
            raise AttributeError(f"there are no settings {name!r}")
        return _Enumerators(message)


class _Enumerators:
    def __init__(self, message):
        self._message = message

    def __getattr__(self, name):
        return getattr(self._message, name)


layers = Layers()
params = Parameters()
