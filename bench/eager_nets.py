"""AlexNet, GoogLeNet and ResNet-50 as an ordinary PyTorch program writes them, layer by layer what examples/nets/nets.py says in prototxt.

Each is called with a batch of images and their labels, and returns the loss.
"""
import torch
from torch import nn


def conv(inputs, outputs, kernel, stride=1, padding=0, groups=1):
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups), nn.ReLU(inplace=True))


def pool(kernel, stride, padding=0):
    return nn.MaxPool2d(kernel, stride, padding, ceil_mode=True)


class AlexNet(nn.Module):
    pixels = 227

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            conv(3, 96, 11, 4), nn.LocalResponseNorm(5), pool(3, 2),
            conv(96, 256, 5, padding=2, groups=2), nn.LocalResponseNorm(5), pool(3, 2),
            conv(256, 384, 3, padding=1), conv(384, 384, 3, padding=1, groups=2), conv(384, 256, 3, padding=1, groups=2), pool(3, 2),
            nn.Flatten(),
            nn.Linear(9216, 4096), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(4096, 1000))

    def forward(self, images, labels):
        return nn.functional.cross_entropy(self.layers(images), labels)


class Inception(nn.Module):
    def __init__(self, inputs, one, three_reduce, three, five_reduce, five, pooled):
        super().__init__()
        self.one = conv(inputs, one, 1)
        self.three = nn.Sequential(conv(inputs, three_reduce, 1), conv(three_reduce, three, 3, padding=1))
        self.five = nn.Sequential(conv(inputs, five_reduce, 1), conv(five_reduce, five, 5, padding=2))
        self.pooled = nn.Sequential(pool(3, 1, 1), conv(inputs, pooled, 1))

    def forward(self, x):
        return torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1)


def classifier(inputs):
    return nn.Sequential(nn.AvgPool2d(5, 3), conv(inputs, 128, 1), nn.Flatten(), nn.Linear(2048, 1024), nn.ReLU(inplace=True),
                         nn.Dropout(0.7), nn.Linear(1024, 1000))


class GoogLeNet(nn.Module):
    pixels = 224

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(
            conv(3, 64, 7, 2, 3), pool(3, 2), nn.LocalResponseNorm(5), conv(64, 64, 1), conv(64, 192, 3, padding=1),
            nn.LocalResponseNorm(5), pool(3, 2),
            Inception(192, 64, 96, 128, 16, 32, 32), Inception(256, 128, 128, 192, 32, 96, 64), pool(3, 2),
            Inception(480, 192, 96, 208, 16, 48, 64))
        self.second = nn.Sequential(Inception(512, 160, 112, 224, 24, 64, 64), Inception(512, 128, 128, 256, 24, 64, 64),
                                    Inception(512, 112, 144, 288, 32, 64, 64))
        self.third = nn.Sequential(
            Inception(528, 256, 160, 320, 32, 128, 128), pool(3, 2), Inception(832, 256, 160, 320, 32, 128, 128),
            Inception(832, 384, 192, 384, 48, 128, 128), nn.AvgPool2d(7), nn.Flatten(), nn.Dropout(0.4), nn.Linear(1024, 1000))
        self.classifiers = nn.ModuleList([classifier(512), classifier(528)])

    def forward(self, images, labels):
        early = self.first(images)
        late = self.second(early)
        loss_of = nn.functional.cross_entropy
        return (loss_of(self.third(late), labels) + 0.3 * loss_of(self.classifiers[0](early), labels)
                + 0.3 * loss_of(self.classifiers[1](late), labels))


def normalized(inputs, outputs, kernel, stride=1, padding=0):
    return [nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False), nn.BatchNorm2d(outputs)]


class Bottleneck(nn.Module):
    def __init__(self, inputs, width, stride, is_first):
        super().__init__()
        self.short = nn.Sequential(*normalized(inputs, 4 * width, 1, stride)) if is_first else nn.Identity()
        self.long = nn.Sequential(*normalized(inputs, width, 1, stride), nn.ReLU(inplace=True),
                                  *normalized(width, width, 3, padding=1), nn.ReLU(inplace=True), *normalized(width, 4 * width, 1))

    def forward(self, x):
        return nn.functional.relu(self.short(x) + self.long(x), inplace=True)


class ResNet50(nn.Module):
    pixels = 224

    def __init__(self):
        super().__init__()
        layers = [*normalized(3, 64, 7, 2, 3), nn.ReLU(inplace=True), pool(3, 2)]
        inputs = 64
        for stage, (width, repeat) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3))):
            for block in range(repeat):
                layers.append(Bottleneck(inputs, width, 2 if block == 0 and stage > 0 else 1, block == 0))
                inputs = 4 * width
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))

    def forward(self, images, labels):
        return nn.functional.cross_entropy(self.layers(images), labels)


NETS = {"alexnet": AlexNet, "googlenet": GoogLeNet, "resnet-50": ResNet50}
