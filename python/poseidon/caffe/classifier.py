"""A net that names what is in images."""
import numpy as np

from . import io
from ._net import TEST, Net


def transformer_for(net, mean, input_scale, raw_scale, channel_swap):
    """What an image file is to a net with one input of images."""
    name = net.inputs[0]
    transformer = io.Transformer({blob: net.blobs[blob].data.shape for blob in net.inputs})
    transformer.set_transpose(name, (2, 0, 1))
    for value, setter in ((mean, transformer.set_mean), (input_scale, transformer.set_input_scale),
                          (raw_scale, transformer.set_raw_scale), (channel_swap, transformer.set_channel_swap)):
        if value is not None:
            setter(name, value)
    return transformer


class Classifier(Net):
    """A deploy net with its weights. Images are scaled to `image_dims`, and crops of the net's own extents are classified."""

    def __init__(self, model_file, pretrained_file, image_dims=None, mean=None, input_scale=None, raw_scale=None, channel_swap=None,
                 **options):
        super().__init__(model_file, TEST, weights=pretrained_file, **options)
        self.transformer = transformer_for(self, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims = np.array(self.blobs[self.inputs[0]].data.shape[2:])
        self.image_dims = tuple(image_dims or self.crop_dims)

    def predict(self, inputs, oversample=True):
        """[images, classes] of images [height, width, channels]: of the centre, or the mean of ten crops."""
        name = self.inputs[0]
        images = np.stack([io.resize_image(image, self.image_dims) for image in inputs])
        if oversample:
            crops = io.oversample(images, self.crop_dims)
        else:
            top, left = ((np.array(self.image_dims) - self.crop_dims) // 2).tolist()
            height, width = self.crop_dims.tolist()
            crops = images[:, top:top + height, left:left + width]
        batch = np.stack([self.transformer.preprocess(name, crop) for crop in crops])
        scores = self.forward_all(**{name: batch})[self.outputs[0]]
        return scores.reshape(len(images), 10, -1).mean(1) if oversample else scores
