"""A net that scores windows of images (R-CNN: Girshick et al., CVPR 2014)."""
import numpy as np

from . import io
from ._net import TEST, Net
from .classifier import transformer_for


class Detector(Net):
    """A deploy net with its weights; `context_pad` pixels of the net's input stand around each window."""

    def __init__(self, model_file, pretrained_file, mean=None, input_scale=None, raw_scale=None, channel_swap=None, context_pad=None,
                 **options):
        super().__init__(model_file, TEST, weights=pretrained_file, **options)
        self.transformer = transformer_for(self, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def detect_windows(self, images_windows):
        """[(file, [(ymin, xmin, ymax, xmax), ...]), ...] to a list of {window, prediction, filename}."""
        name = self.inputs[0]
        crops, windows = [], []
        for file, boxes in images_windows:
            image = io.load_image(file).astype(np.float32)
            for box in boxes:
                crops.append(self.transformer.preprocess(name, self.crop(image, box)))
                windows.append((box, file))
        if not crops:
            return []
        scores = self.forward_all(**{name: np.stack(crops)})[self.outputs[0]]
        scores = scores.reshape(len(crops), -1)
        return [{"window": box, "prediction": score, "filename": file} for (box, file), score in zip(windows, scores)]

    def detect_selective_search(self, image_fnames):
        raise NotImplementedError("windows come from the caller here: Caffe's selective search is a program in MATLAB. Give them to "
                                  "detect_windows()")

    def crop(self, image, window):
        """The window with its context, at the extents of the net's input; what lies outside of the image is the mean."""
        ymin, xmin, ymax, xmax = (int(place) for place in window)
        if not self.context_pad:
            return image[ymin:ymax, xmin:xmax]
        size = self.blobs[self.inputs[0]].shape[3]  # of a square
        # The window grows about its centre so that `context_pad` pixels of the result are around it.
        factor = size / (size - 2 * self.context_pad)
        half = np.array([ymax - ymin + 1, xmax - xmin + 1]) / 2
        centre = np.array([ymin, xmin]) + half
        low = np.round(centre - factor * half).astype(int)
        high = np.round(centre + factor * half).astype(int)
        extents = high - low + 1
        inside_low, inside_high = np.maximum(low, 0), np.minimum(high, np.array(image.shape[:2]))
        scale = size / extents
        pad = np.round((inside_low - low) * scale).astype(int)
        piece = image[inside_low[0]:inside_high[0], inside_low[1]:inside_high[1]]
        target = np.round((inside_high - inside_low + 1) * scale).astype(int)
        target = np.minimum(target, size - pad)
        result = np.ones((size, size, image.shape[2]), np.float32) * self.crop_mean
        result[pad[0]:pad[0] + target[0], pad[1]:pad[1] + target[1]] = io.resize_image(piece, target)
        return result

    def configure_crop(self, context_pad):
        """How much context crop() adds, and, if any, the mean in the colours of image files."""
        name = self.inputs[0]
        self.context_pad = context_pad
        if not context_pad:
            return
        extents = self.blobs[name].shape[2:]
        if extents[0] != extents[1] or extents[0] <= 2 * context_pad:
            raise ValueError(f"context_pad {context_pad} needs a square input of more than {2 * context_pad} pixels, not {extents}")
        mean = self.transformer.mean.get(name)
        if mean is None:
            self.crop_mean = np.zeros((*extents, self.blobs[name].shape[1]), np.float32)
            return
        whole = np.broadcast_to(mean, self.blobs[name].shape[1:])
        # What deprocess() does but for the mean, which is the image here.
        swap = self.transformer.channel_swap.get(name)
        whole = whole[np.argsort(swap)] if swap is not None else whole
        self.crop_mean = whole.transpose(1, 2, 0) / self.transformer.raw_scale.get(name, 1)
