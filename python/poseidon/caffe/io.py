"""Images and arrays on their way into a net and out of it; Caffe's messages of arrays."""
import numpy as np

# As Caffe's formula for the luminance of an RGB image (ITU-R BT.709), which is scikit-image's.
_LUMINANCE = np.array([0.2125, 0.7154, 0.0721], np.float32)


def _messages():
    from .proto import caffe_pb2
    return caffe_pb2


def blobproto_to_array(blob, return_diff=False):
    """The numbers of a BlobProto, or those of its diff, in its shape."""
    doubles, floats = (blob.double_diff, blob.diff) if return_diff else (blob.double_data, blob.data)
    values = np.array(doubles, np.float64) if len(doubles) else np.array(floats, np.float32)
    if blob.HasField("shape"):
        return values.reshape(tuple(blob.shape.dim))
    if any(blob.HasField(name) for name in ("num", "channels", "height", "width")):
        return values.reshape(blob.num, blob.channels, blob.height, blob.width)
    return values


def array_to_blobproto(array, diff=None):
    """A BlobProto of float32 numbers."""
    array = np.asarray(array)
    blob = _messages().BlobProto()
    blob.shape.dim.extend(array.shape)
    blob.data.extend(array.astype(np.float32).ravel().tolist())
    if diff is not None:
        if np.shape(diff) != array.shape:
            raise ValueError(f"the diff is {np.shape(diff)}, and the array {array.shape}")
        blob.diff.extend(np.asarray(diff, np.float32).ravel().tolist())
    return blob


def arraylist_to_blobprotovector_str(arrays):
    """The bytes of a BlobProtoVector."""
    vector = _messages().BlobProtoVector()
    vector.blobs.extend(array_to_blobproto(array) for array in arrays)
    return vector.SerializeToString()


arraylist_to_blobprotovecor_str = arraylist_to_blobprotovector_str  # Caffe's spelling


def blobprotovector_str_to_arraylist(text):
    vector = _messages().BlobProtoVector()
    vector.ParseFromString(text)
    return [blobproto_to_array(blob) for blob in vector.blobs]


def array_to_datum(array, label=None):
    """A Datum of an array [channels, height, width]; bytes where the array has bytes, else floats."""
    array = np.asarray(array)
    if array.ndim != 3:
        raise ValueError(f"a datum has the axes channels, height and width; this array is {array.shape}")
    datum = _messages().Datum()
    datum.channels, datum.height, datum.width = array.shape
    if array.dtype == np.uint8:
        datum.data = array.tobytes()
    else:
        datum.float_data.extend(array.astype(float).ravel().tolist())
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum):
    """[channels, height, width], of bytes or floats."""
    if datum.encoded:
        raise ValueError("the datum is an encoded image; decode its data first")
    shape = (datum.channels, datum.height, datum.width)
    if len(datum.data):
        return np.frombuffer(datum.data, np.uint8).reshape(shape).copy()
    return np.array(datum.float_data, float).reshape(shape)


def load_image(filename, color=True):
    """An image file as float32 [height, width, 3] (or 1), RGB, from 0 to 1."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("reading image files needs the package pillow: pip install pillow") from None
    with Image.open(filename) as image:
        if image.mode in ("I", "I;16", "F"):
            raise ValueError(f"{filename} has {image.mode} pixels; only those of 8 bits are read")
        has_color = image.mode not in ("L", "1", "LA")
        pixels = np.asarray(image.convert("RGB" if color or has_color else "L"), np.float32) / 255
    if color:
        return pixels
    return (pixels @ _LUMINANCE if has_color else pixels)[:, :, np.newaxis]


def resize_image(image, new_dims, interp_order=1):
    """[height, width, channels] at other extents: nearest pixels (interp_order 0) or bilinear (1).

    Pixels are squares, and the new ones' centres are looked up among the old ones'; outside the outermost centres the edge goes on.
    """
    if interp_order not in (0, 1):
        raise ValueError(f"interp_order is 0 (nearest) or 1 (bilinear), not {interp_order}")
    image = np.asarray(image, np.float32)
    for axis, new in enumerate(tuple(new_dims)[:2]):
        image = _resized_along(image, axis, int(new), interp_order)
    return image


def _resized_along(image, axis, new, order):
    old = image.shape[axis]
    if new == old:
        return image
    centres = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    if order == 0:
        return image.take(np.floor(centres + 0.5).astype(int), axis)
    below = np.floor(centres).astype(int)
    above = np.minimum(below + 1, old - 1)
    share = (centres - below).astype(np.float32)
    share = share.reshape([-1 if i == axis else 1 for i in range(image.ndim)])
    return image.take(below, axis) * (1 - share) + image.take(above, axis) * share


def oversample(images, crop_dims):
    """Ten crops of each image [height, width, channels]: four corners and the centre, then each of those mirrored.

    [10 images, height, width, channels], the ten of an image one after the other.
    """
    height, width = (int(extent) for extent in crop_dims)
    crops = []
    for image in images:
        whole_height, whole_width = image.shape[:2]
        if height > whole_height or width > whole_width:
            raise ValueError(f"crops of {height} x {width} do not fit into an image of {whole_height} x {whole_width}")
        tops, lefts = (0, whole_height - height), (0, whole_width - width)
        places = [(top, left) for top in tops for left in lefts]
        # As Caffe's arithmetic in floats, rounded down, has it.
        places.append((int(whole_height / 2 - height / 2), int(whole_width / 2 - width / 2)))
        straight = [image[top:top + height, left:left + width] for top, left in places]
        crops += straight + [crop[:, ::-1] for crop in straight]
    return np.array(crops, np.float32)


class Transformer:
    """What is done with an image before it is an input of a net, and undone to look at one.

    `inputs` is {blob: its shape}, as {"data": net.blobs["data"].data.shape}. preprocess() resizes, transposes, swaps channels,
    multiplies by raw_scale, subtracts the mean and multiplies by input_scale: those of them that were set, in this order.
    """

    def __init__(self, inputs):
        self.inputs = inputs
        self.transpose, self.channel_swap, self.raw_scale, self.mean, self.input_scale = {}, {}, {}, {}, {}

    def _check(self, in_):
        if in_ not in self.inputs:
            raise ValueError(f"{in_} is not one of the net inputs: {list(self.inputs)}")

    def preprocess(self, in_, data):
        self._check(in_)
        image = np.asarray(data).astype(np.float32, copy=True)
        extents = tuple(self.inputs[in_][2:])
        if image.shape[:2] != extents:
            image = resize_image(image, extents)
        if in_ in self.transpose:
            image = image.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            image = image[list(self.channel_swap[in_])]
        if in_ in self.raw_scale:
            image = image * np.float32(self.raw_scale[in_])
        if in_ in self.mean:
            image = image - self.mean[in_].astype(np.float32)
        if in_ in self.input_scale:
            image = image * np.float32(self.input_scale[in_])
        return image

    def deprocess(self, in_, data):
        self._check(in_)
        image = np.squeeze(np.asarray(data)).astype(np.float32, copy=True)
        if image.ndim == 2:  # squeeze() has taken the channel of a grey image, too
            image = image[np.newaxis]
        if in_ in self.input_scale:
            image = image / np.float32(self.input_scale[in_])
        if in_ in self.mean:
            image = image + self.mean[in_].astype(np.float32)
        if in_ in self.raw_scale:
            image = image / np.float32(self.raw_scale[in_])
        if in_ in self.channel_swap:
            image = image[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            image = image.transpose(np.argsort(self.transpose[in_]))
        return image

    def set_transpose(self, in_, order):
        """The axes of what preprocess() is given in the order of the net's: (2, 0, 1) for images with channels last."""
        self._check(in_)
        if len(order) != len(self.inputs[in_]) - 1:
            raise ValueError(f"the order of axes of {in_} must have {len(self.inputs[in_]) - 1} entries, not {len(order)}")
        self.transpose[in_] = tuple(order)

    def set_channel_swap(self, in_, order):
        """The order of channels of the net: (2, 1, 0) makes BGR of RGB."""
        self._check(in_)
        if len(order) != self.inputs[in_][1]:
            raise ValueError(f"{in_} has {self.inputs[in_][1]} channels, and the order has {len(order)}")
        self.channel_swap[in_] = tuple(order)

    def set_raw_scale(self, in_, scale):
        """255 for nets that were trained on bytes, since load_image() gives numbers from 0 to 1."""
        self._check(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_, mean):
        """A mean for each channel, or a mean image [channels, height, width], resized where its extents are others."""
        self._check(in_)
        mean = np.asarray(mean, np.float32)
        channels, *extents = self.inputs[in_][1:]
        if mean.ndim == 1:
            if channels != mean.shape[0]:
                raise ValueError(f"{in_} has {channels} channels, and there are means for {mean.shape[0]}")
            mean = mean[:, np.newaxis, np.newaxis]
        else:
            if mean.ndim == 2:
                mean = mean[np.newaxis]
            if mean.ndim != 3 or mean.shape[0] not in (1, channels):
                raise ValueError(f"the mean of {in_} must be [{channels}, height, width], and is {mean.shape}")
            if list(mean.shape[1:]) != list(extents):
                mean = resize_image(mean.transpose(1, 2, 0), extents).transpose(2, 0, 1)
        self.mean[in_] = mean

    def set_input_scale(self, in_, scale):
        """After the mean was subtracted."""
        self._check(in_)
        self.input_scale[in_] = scale
