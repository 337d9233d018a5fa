"""LeNet on the digits in one process, written with plain PyTorch alone: what Poseidon's trainings are compared with.

Shares no code with Poseidon: data bases are read with Python's lmdb, weights with caffe_files, gradients are PyTorch's own
autograd of torch.nn.functional, and the update is written out as Caffe 1.0 makes it (sgd_solver.cpp: the learning rate is
inside the history).
"""
import lmdb
import numpy
import torch
import torch.nn.functional as F

from support import caffe_files

# lenet_train_test.prototxt and lenet_solver.prototxt.
SCALE = 0.00390625
BASE_RATE, GAMMA, POWER = 0.01, 0.0001, 0.75
MOMENTUM, DECAY = 0.9, 0.0005
RATE_OF_BIASES = 2


def load(data_base, dtype=torch.float64):
    """(images [count, 1, 28, 28] scaled, labels [count]) in the order of the keys."""
    pixels, labels = [], []
    with lmdb.open(str(data_base), readonly=True, lock=False) as environment, environment.begin() as transaction:
        for _, value in transaction.cursor():
            record = caffe_files.datum(value)
            shape = (record.channels, record.height, record.width)
            pixels.append(numpy.frombuffer(record.pixels, numpy.uint8).reshape(shape))
            labels.append(record.label)
    return torch.from_numpy(numpy.stack(pixels)).to(dtype) * SCALE, torch.tensor(labels)


class LeNet:
    def __init__(self, model, dtype=torch.float64):
        """Begins with the parameters of the file `model`."""
        found = caffe_files.weights(model)
        self.parameters = [torch.from_numpy(array.copy()).to(dtype).requires_grad_()
                           for layer in ("conv1", "conv2", "ip1", "ip2") for array in found[layer]]
        self.history = [torch.zeros_like(parameter) for parameter in self.parameters]

    def scores(self, images):
        conv1_w, conv1_b, conv2_w, conv2_b, ip1_w, ip1_b, ip2_w, ip2_b = self.parameters
        x = F.max_pool2d(F.conv2d(images, conv1_w, conv1_b), 2, 2)
        x = F.max_pool2d(F.conv2d(x, conv2_w, conv2_b), 2, 2)
        x = F.relu(F.linear(x.flatten(1), ip1_w, ip1_b))
        return F.linear(x, ip2_w, ip2_b)

    def step(self, iteration, images, labels):
        """One iteration; the loss before it."""
        loss = F.cross_entropy(self.scores(images), labels)
        gradients = torch.autograd.grad(loss, self.parameters)
        rate = BASE_RATE * (1 + GAMMA * iteration) ** -POWER
        with torch.no_grad():
            for i, (w, v, g) in enumerate(zip(self.parameters, self.history, gradients)):
                local_rate = rate * (RATE_OF_BIASES if i % 2 == 1 else 1)
                v.copy_(MOMENTUM * v + local_rate * (g + DECAY * w))
                w -= v
        return loss.item()

    def train(self, images, labels, batch, iterations):
        """[loss of each iteration], over consecutive batches that wrap around at the end."""
        count = len(labels)
        told = []
        for iteration in range(iterations):
            rows = torch.arange(iteration * batch, (iteration + 1) * batch) % count
            told.append(self.step(iteration, images[rows], labels[rows]))
        return told

    def accuracy(self, images, labels):
        with torch.no_grad():
            return (self.scores(images).argmax(1) == labels).double().mean().item()
