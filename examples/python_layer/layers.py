"""Layers written in Python, for the nets beside this file."""
import json

import numpy as np

import caffe


class EuclideanLoss(caffe.Layer):
    """Half the mean squared distance of two blobs' records: what the layer of that name computes, as a pattern for others."""

    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise ValueError(f"{self.name} compares two blobs, and has {len(bottom)} bottoms")

    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise ValueError(f"{self.name} compares blobs of equal size, not {bottom[0].shape} and {bottom[1].shape}")
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.distance = bottom[0].data - bottom[1].data.reshape(bottom[0].shape)
        top[0].data[...] = np.sum(self.distance**2) / bottom[0].num / 2

    def backward(self, top, propagate_down, bottom):
        # The loss weight arrives as the gradient of the loss.
        for sign, wanted, blob in zip((1, -1), propagate_down, bottom):
            if wanted:
                blob.diff[...] = (sign * top[0].diff[0] / blob.num * self.distance).reshape(blob.shape)


class Ramps(caffe.Layer):
    """Data made on the way: points between -1 and 1, and what a line makes of them.

    A record is a function of its number alone, so any number of workers sees the same ones: in each pass this one takes `records`
    of them from `first_record` on.
    """

    def setup(self, bottom, top):
        settings = json.loads(self.param_str)
        self.batch, self.slope, self.offset = settings["batch_size"], settings["slope"], settings["offset"]

    def reshape(self, bottom, top):
        top[0].reshape(self.batch, 1)
        top[1].reshape(self.batch, 1)

    def forward(self, bottom, top):
        numbers = self.first_record + np.arange(self.batch)
        points = (numbers * 0.618034) % 2 - 1  # the golden section spreads them evenly
        top[0].data[:, 0] = points
        top[1].data[:, 0] = self.slope * points + self.offset

    def backward(self, top, propagate_down, bottom):
        """Data have no gradient."""
