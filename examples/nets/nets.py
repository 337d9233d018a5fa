#!/usr/bin/env python3
"""Writes the prototxt of a known net, as its paper describes it.

    examples/nets/nets.py                            # which there are
    examples/nets/nets.py resnet-50 --train TRAIN_lmdb --test TEST_lmdb --mean MEAN.binaryproto > resnet-50.prototxt
    examples/nets/nets.py alexnet --batch 128 --classes 200
    examples/nets/nets.py alexnet --deploy 10,3,227,227            # for use after the training: ten images at a time

Each function below is one net; the docstring says where it comes from. What papers leave open (fillers, learning rates of biases) is as
Caffe's users know it. The batch is one worker's.
"""
import argparse
import inspect
import sys

GAUSSIAN = {"type": "gaussian", "std": 0.01}
XAVIER = {"type": "xavier"}
MSRA = {"type": "msra"}


def constant(value):
    return {"type": "constant", "value": value}


class Word(str):
    """A value that stands without quotation marks: an enumerator."""


def text_of(fields, indent):
    """Protobuf's text format: dictionaries are messages, lists repeated fields."""
    lines = []
    for name, values in fields.items():
        for value in values if isinstance(values, list) else [values]:
            if value is None:
                continue
            if isinstance(value, dict):
                inner = text_of(value, indent + 2)
                flat = " ".join(line.strip() for line in inner)
                if len(flat) < 90 and "\n" not in flat:
                    lines.append(f"{' ' * indent}{name} {{ {flat} }}")
                else:
                    lines += [f"{' ' * indent}{name} {{", *inner, f"{' ' * indent}}}"]
            elif isinstance(value, bool):
                lines.append(f"{' ' * indent}{name}: {str(value).lower()}")
            elif isinstance(value, str) and not isinstance(value, Word):
                lines.append(f'{" " * indent}{name}: "{value}"')
            else:
                lines.append(f"{' ' * indent}{name}: {value}")
    return lines


class Net:
    """The layers of a net in their order. Methods add one or some and return the name of the top."""

    def __init__(self, name, options):
        self.name = name
        self.options = options
        self.layers = []

    def text(self):
        lines = [f'name: "{self.name}"']
        for layer in self.layers:
            lines += text_of({"layer": layer}, 0)
        return "\n".join(lines) + "\n"

    def deploy(self, shape):
        """Makes it a net for use instead of training: images of `shape` are an input, classifiers' losses become probabilities, and all
        else that needs labels goes."""
        trained = self.layers
        self.layers = []
        if not any(layer["type"] == "Data" and "data" in layer["top"] for layer in trained):
            raise ValueError(f"{self.name} takes no images, so there is nothing to deploy it on")
        self.add("data", "Input", input_param={"shape": {"dim": list(shape)}})
        for layer in trained:
            known = {top for kept in self.layers for top in kept["top"]}
            if layer["type"] == "SoftmaxWithLoss":
                name = layer["name"].removesuffix("loss") + "prob"
                self.add(name, "Softmax", layer["bottom"][:1], **{key: value for key, value in layer.items() if key == "softmax_param"})
            elif layer["type"] not in ("Data", "Accuracy") and not layer["type"].endswith("Loss") and known.issuperset(layer["bottom"]):
                self.layers.append(layer)

    def add(self, name, kind, bottoms=(), tops=None, **fields):
        layer = {"name": name, "type": kind, "bottom": list(bottoms), "top": [name] if tops is None else list(tops)}
        self.layers.append({**layer, **fields})
        return self.layers[-1]["top"][0] if self.layers[-1]["top"] else None

    def data(self, crop=None, scale=None, mirror=True, mean=True, channels=3, train=None, test=None):
        """Two Data layers: random crops in training, the centre in tests."""
        o = self.options
        crop = crop and (o.crop or crop)
        for phase, source, batch in (("TRAIN", train or o.train, o.batch), ("TEST", test or o.test, o.test_batch)):
            transform = {"scale": scale, "crop_size": crop, "mirror": True if mirror and phase == "TRAIN" else None}
            if mean and o.mean:
                transform["mean_file"] = o.mean
            elif mean:
                transform["mean_value"] = [104, 117, 123][:channels]
            transform = {name: value for name, value in transform.items() if value is not None}
            self.add("data", "Data", (), ("data", "label"), include={"phase": Word(phase)}, **({"transform_param": transform} if transform else {}),
                     data_param={"source": source, "batch_size": batch, "backend": Word("LMDB")})
        return "data"

    def rates(self, bias, rates=(1, 2), decays=(1, 0), names=None):
        specs = [{"name": names[i] if names else None, "lr_mult": rates[i], "decay_mult": decays[i]} for i in range(2 if bias else 1)]
        return [{key: value for key, value in spec.items() if value is not None} for spec in specs]

    def conv(self, name, bottom, outputs, kernel, stride=1, pad=0, group=1, filler=XAVIER, bias=0.0, relu=False, rates=(1, 2), **more):
        fields = {"num_output": outputs, "bias_term": False if bias is None else None, "pad": pad or None, "kernel_size": kernel,
                  "stride": stride if stride > 1 else None, "group": group if group > 1 else None, "weight_filler": filler,
                  "bias_filler": None if bias is None else constant(bias), **more}
        self.add(name, "Convolution", [bottom], param=self.rates(bias is not None, rates),
                 convolution_param={key: value for key, value in fields.items() if value is not None})
        return self.relu(name) if relu else name

    def full(self, name, bottom, outputs, filler=XAVIER, bias=0.0, relu=False, rates=(1, 2), decays=(1, 0), names=None, **more):
        self.add(name, "InnerProduct", [bottom], param=self.rates(True, rates, decays, names),
                 inner_product_param={"num_output": outputs, "weight_filler": filler, "bias_filler": constant(bias), **more})
        return self.relu(name) if relu else name

    def relu(self, blob):
        return self.add(f"{blob}_relu", "ReLU", [blob], [blob])

    def sigmoid(self, name, bottom):
        return self.add(name, "Sigmoid", [bottom])

    def dropout(self, blob, ratio=0.5):
        return self.add(f"{blob}_drop", "Dropout", [blob], [blob], dropout_param={"dropout_ratio": ratio})

    def pool(self, name, bottom, kernel=None, stride=1, pad=0, how="MAX"):
        if kernel is None:
            return self.add(name, "Pooling", [bottom], pooling_param={"pool": Word(how), "global_pooling": True})
        fields = {"pool": Word(how), "kernel_size": kernel, "stride": stride, "pad": pad or None}
        return self.add(name, "Pooling", [bottom], pooling_param={key: value for key, value in fields.items() if value is not None})

    def lrn(self, name, bottom, size=5, alpha=0.0001, beta=0.75, region=None):
        fields = {"local_size": size, "alpha": alpha, "beta": beta, "norm_region": Word(region) if region else None}
        return self.add(name, "LRN", [bottom], lrn_param={key: value for key, value in fields.items() if value is not None})

    def batch_norm(self, blob, relu=False):
        """BatchNorm, and the Scale that learns what it has taken away; in place."""
        self.add(f"{blob}_bn", "BatchNorm", [blob], [blob], param=[{"lr_mult": 0, "decay_mult": 0}] * 3)
        self.add(f"{blob}_scale", "Scale", [blob], [blob], scale_param={"bias_term": True})
        return self.relu(blob) if relu else blob

    def scores(self, blob, labels="label", prefix="", weight=None, top_5=True):
        """The loss in training and tests, and accuracies in tests."""
        self.add(prefix + "loss", "SoftmaxWithLoss", [blob, labels], **({"loss_weight": weight} if weight is not None else {}))
        self.add(prefix + "accuracy", "Accuracy", [blob, labels], include={"phase": Word("TEST")})
        if top_5:
            self.add(prefix + "accuracy_top_5", "Accuracy", [blob, labels], include={"phase": Word("TEST")}, accuracy_param={"top_k": 5})


def lenet(net):
    """LeNet with rectified units on digits: LeCun et al., Gradient-based learning applied to document recognition, 1998."""
    x = net.data(scale=0.00390625, mirror=False, mean=False)
    x = net.pool("pool1", net.conv("conv1", x, 20, 5), 2, 2)
    x = net.pool("pool2", net.conv("conv2", x, 50, 5), 2, 2)
    x = net.full("ip1", x, 500, relu=True, decays=(1, 1))
    net.scores(net.full("ip2", x, net.options.classes or 10, decays=(1, 1)), top_5=False)


def cifar10_quick(net):
    """The small net for CIFAR-10 after Krizhevsky's cuda-convnet (layers-80sec)."""
    x = net.data(mirror=False)
    x = net.relu(net.pool("pool1", net.conv("conv1", x, 32, 5, pad=2, filler={"type": "gaussian", "std": 0.0001}), 3, 2))
    x = net.pool("pool2", net.conv("conv2", x, 32, 5, pad=2, filler=GAUSSIAN, relu=True), 3, 2, how="AVE")
    x = net.pool("pool3", net.conv("conv3", x, 64, 5, pad=2, filler=GAUSSIAN, relu=True), 3, 2, how="AVE")
    x = net.full("ip1", x, 64, {"type": "gaussian", "std": 0.1}, decays=(1, 1))
    net.scores(net.full("ip2", x, net.options.classes or 10, {"type": "gaussian", "std": 0.1}, decays=(1, 1)), top_5=False)


def cifar10_full(net):
    """cuda-convnet's layers-18pct for CIFAR-10, with response normalisation within maps."""
    x = net.data(mirror=False)
    x = net.relu(net.pool("pool1", net.conv("conv1", x, 32, 5, pad=2, filler={"type": "gaussian", "std": 0.0001}), 3, 2))
    x = net.lrn("norm1", x, 3, 5e-05, 0.75, "WITHIN_CHANNEL")
    x = net.pool("pool2", net.conv("conv2", x, 32, 5, pad=2, filler=GAUSSIAN, relu=True), 3, 2, how="AVE")
    x = net.lrn("norm2", x, 3, 5e-05, 0.75, "WITHIN_CHANNEL")
    x = net.pool("pool3", net.conv("conv3", x, 64, 5, pad=2, filler=GAUSSIAN, relu=True, rates=(1, 1)), 3, 2, how="AVE")
    net.scores(net.full("ip1", x, net.options.classes or 10, GAUSSIAN, decays=(250, 0)), top_5=False)


def cifar10_full_sigmoid_bn(net):
    """The same with sigmoids, which BatchNorm makes trainable: Ioffe and Szegedy, 2015."""
    x = net.data(mirror=False)
    for number, (outputs, std, how) in enumerate([(32, 0.0001, "MAX"), (32, 0.01, "AVE"), (64, 0.01, "AVE")], start=1):
        x = net.conv(f"conv{number}", x, outputs, 5, pad=2, filler={"type": "gaussian", "std": std}, bias=None)
        if number == 1:
            x = net.pool("pool1", x, 3, 2, how=how)
        net.add(f"bn{number}", "BatchNorm", [x], param=[{"lr_mult": 0}] * 3)
        x = net.sigmoid(f"sigmoid{number}", f"bn{number}")
        if number > 1:
            x = net.pool(f"pool{number}", x, 3, 2, how=how)
    net.scores(net.full("ip1", x, net.options.classes or 10, GAUSSIAN, rates=(1, 1)), top_5=False)


def _alexnet(net, norm_first, last="fc8", last_rates=(1, 2), classes=1000, loss=True):
    x = net.data(crop=227)
    for number, (outputs, kernel, stride, pad, group, bias) in enumerate([(96, 11, 4, 0, 1, 0), (256, 5, 1, 2, 2, 0.1 if norm_first else 1)], start=1):
        x = net.conv(f"conv{number}", x, outputs, kernel, stride, pad, group, GAUSSIAN, bias, relu=True)
        if norm_first:
            x = net.pool(f"pool{number}", net.lrn(f"norm{number}", x), 3, 2)
        else:
            x = net.lrn(f"norm{number}", net.pool(f"pool{number}", x, 3, 2))
    one = 0.1 if norm_first else 1
    x = net.conv("conv3", x, 384, 3, pad=1, filler=GAUSSIAN, relu=True)
    x = net.conv("conv4", x, 384, 3, pad=1, group=2, filler=GAUSSIAN, bias=one, relu=True)
    x = net.pool("pool5", net.conv("conv5", x, 256, 3, pad=1, group=2, filler=GAUSSIAN, bias=one, relu=True), 3, 2)
    small = {"type": "gaussian", "std": 0.005}
    x = net.dropout(net.full("fc6", x, net.options.hidden or 4096, small, one, relu=True))
    x = net.dropout(net.full("fc7", x, net.options.hidden or 4096, small, one, relu=True))
    x = net.full(last, x, net.options.classes or classes, GAUSSIAN, rates=last_rates)
    if loss:
        net.scores(x)


def alexnet(net):
    """Krizhevsky, Sutskever and Hinton, ImageNet classification with deep convolutional neural networks, 2012."""
    _alexnet(net, norm_first=True)


def caffenet(net):
    """AlexNet with pooling before normalisation: Caffe's reference model (Jia et al., Caffe, 2014)."""
    _alexnet(net, norm_first=False)


def rcnn(net):
    """The scores of R-CNN on ILSVRC 2013's 200 classes: Girshick et al., Rich feature hierarchies, 2014. Trained as a classifier here."""
    _alexnet(net, norm_first=False, last="fc-rcnn", classes=200)


def finetune_style(net):
    """CaffeNet with a new last layer, which learns ten times as fast: Karayev et al., Recognizing image style, 2014."""
    _alexnet(net, norm_first=False, last="fc8_flickr", last_rates=(10, 20), classes=20)


def googlenet(net):
    """Szegedy et al., Going deeper with convolutions, 2014, with both auxiliary classifiers."""
    low = 0.2

    def conv(name, bottom, outputs, kernel, stride=1, pad=0):
        return net.conv(name, bottom, outputs, kernel, stride, pad, bias=low, relu=True)

    def inception(name, bottom, one, three_reduce, three, five_reduce, five, pool):
        at = f"inception_{name}/"
        parts = [conv(at + "1x1", bottom, one, 1)]
        parts.append(conv(at + "3x3", conv(at + "3x3_reduce", bottom, three_reduce, 1), three, 3, pad=1))
        parts.append(conv(at + "5x5", conv(at + "5x5_reduce", bottom, five_reduce, 1), five, 5, pad=2))
        parts.append(conv(at + "pool_proj", net.pool(at + "pool", bottom, 3, 1, 1), pool, 1))
        return net.add(at + "output", "Concat", parts)

    def classifier(number, bottom):
        at = f"loss{number}/"
        x = conv(at + "conv", net.pool(at + "ave_pool", bottom, 5, 3, how="AVE"), 128, 1)
        x = net.dropout(net.full(at + "fc", x, 1024, bias=low, relu=True), 0.7)
        net.scores(net.full(at + "classifier", x, net.options.classes or 1000), prefix=at, weight=0.3)

    x = net.data(crop=224)
    x = net.lrn("pool1/norm1", net.pool("pool1/3x3_s2", conv("conv1/7x7_s2", x, 64, 7, 2, 3), 3, 2))
    x = net.lrn("conv2/norm2", conv("conv2/3x3", conv("conv2/3x3_reduce", x, 64, 1), 192, 3, pad=1))
    x = net.pool("pool2/3x3_s2", x, 3, 2)
    x = inception("3a", x, 64, 96, 128, 16, 32, 32)
    x = net.pool("pool3/3x3_s2", inception("3b", x, 128, 128, 192, 32, 96, 64), 3, 2)
    x = inception("4a", x, 192, 96, 208, 16, 48, 64)
    classifier(1, x)
    x = inception("4b", x, 160, 112, 224, 24, 64, 64)
    x = inception("4c", x, 128, 128, 256, 24, 64, 64)
    x = inception("4d", x, 112, 144, 288, 32, 64, 64)
    classifier(2, x)
    x = net.pool("pool4/3x3_s2", inception("4e", x, 256, 160, 320, 32, 128, 128), 3, 2)
    x = inception("5a", x, 256, 160, 320, 32, 128, 128)
    x = inception("5b", x, 384, 192, 384, 48, 128, 128)
    x = net.dropout(net.pool("pool5/7x7_s1", x, how="AVE"), 0.4)
    net.scores(net.full("loss3/classifier", x, net.options.classes or 1000), prefix="loss3/", weight=1)


def autoencoder(net):
    """Hinton and Salakhutdinov, Reducing the dimensionality of data with neural networks, 2006, on digits."""
    net.data(scale=0.0039215684, mirror=False, mean=False)
    net.add("label_silence", "Silence", ["label"], [])
    flat = net.add("flatdata", "Flatten", ["data"])
    filler = {"type": "gaussian", "std": 1, "sparse": 15}
    x = "data"
    for number, outputs in enumerate([1000, 500, 250], start=1):
        x = net.sigmoid(f"encode{number}neuron", net.full(f"encode{number}", x, outputs, filler, rates=(1, 1)))
    x = net.full("encode4", x, 30, filler, rates=(1, 1))
    for number, outputs in zip((4, 3, 2), (250, 500, 1000)):
        x = net.sigmoid(f"decode{number}neuron", net.full(f"decode{number}", x, outputs, filler, rates=(1, 1)))
    x = net.full("decode1", x, net.options.pixels or 784, filler, rates=(1, 1))
    net.add("loss", "SigmoidCrossEntropyLoss", [x, flat], ["cross_entropy_loss"], loss_weight=1)
    net.add("euclidean", "EuclideanLoss", [net.sigmoid("decode1neuron", x), flat], ["l2_error"], loss_weight=0)


def siamese(net):
    """Hadsell, Chopra and LeCun, Dimensionality reduction by learning an invariant mapping, 2006. Each record is a pair of images, one above
    the other in two channels; the label is 1 where they show the same digit."""
    net.data(scale=0.00390625, mirror=False, mean=False)
    net.add("slice_pair", "Slice", ["data"], ["pair_a", "pair_b"], slice_param={"slice_dim": 1, "slice_point": 1})
    features = []
    for end, bottom in (("", "pair_a"), ("_p", "pair_b")):
        x = bottom
        for number, outputs in ((1, 20), (2, 50)):
            name = f"conv{number}"
            net.add(name + end, "Convolution", [x], param=[{"name": f"{name}_w", "lr_mult": 1}, {"name": f"{name}_b", "lr_mult": 2}],
                    convolution_param={"num_output": outputs, "kernel_size": 5, "weight_filler": XAVIER, "bias_filler": constant(0)})
            x = net.pool(f"pool{number}{end}", name + end, 2, 2)
        for name, outputs, relu in (("ip1", 500, True), ("ip2", 10, False), ("feat", 2, False)):
            x = net.full(name + end, x, outputs, relu=relu, decays=(1, 1), names=(f"{name}_w", f"{name}_b"))
        features.append(x)
    net.add("loss", "ContrastiveLoss", [*features, "label"], contrastive_loss_param={"margin": 1})


def _vgg(net, repeats, classes=1000):
    x = net.data(crop=224)
    for block, (outputs, repeat) in enumerate(zip((64, 128, 256, 512, 512), repeats), start=1):
        for number in range(1, repeat + 1):
            x = net.conv(f"conv{block}_{number}", x, outputs, 3, pad=1, filler=MSRA, relu=True)
        x = net.pool(f"pool{block}", x, 2, 2)
    small = {"type": "gaussian", "std": 0.005}
    x = net.dropout(net.full("fc6", x, net.options.hidden or 4096, small, 0.1, relu=True))
    x = net.dropout(net.full("fc7", x, net.options.hidden or 4096, small, 0.1, relu=True))
    net.scores(net.full("fc8", x, net.options.classes or classes, GAUSSIAN))


def vgg16(net):
    """Simonyan and Zisserman, Very deep convolutional networks, 2014: configuration D."""
    _vgg(net, (2, 2, 3, 3, 3))


def vgg19(net):
    """The same: configuration E."""
    _vgg(net, (2, 2, 4, 4, 4))


def vgg19_22k(net):
    """VGG19 with all 21,841 classes of ImageNet, Poseidon's own large example."""
    _vgg(net, (2, 2, 4, 4, 4), classes=21841)


def _resnet(net, repeats):
    def conv(name, bottom, outputs, kernel, stride=1, pad=0, relu=True):
        net.conv(name, bottom, outputs, kernel, stride, pad, filler=MSRA, bias=None)
        return net.batch_norm(name, relu)

    x = net.pool("pool1", conv("conv1", net.data(crop=224), 64, 7, 2, 3), 3, 2)
    for stage, (width, repeat) in enumerate(zip((64, 128, 256, 512), repeats), start=2):
        for block in range(repeat):
            # Counted with letters as far as they reach.
            at = f"res{stage}{chr(ord('a') + block)}" if repeat <= 26 else f"res{stage}{'a' if block == 0 else f'b{block}'}"
            stride = 2 if block == 0 and stage > 2 else 1
            short = conv(f"{at}_branch1", x, 4 * width, 1, stride, relu=False) if block == 0 else x
            y = conv(f"{at}_branch2a", x, width, 1, stride)
            y = conv(f"{at}_branch2b", y, width, 3, pad=1)
            y = conv(f"{at}_branch2c", y, 4 * width, 1, relu=False)
            x = net.relu(net.add(at, "Eltwise", [short, y]))
    x = net.pool("pool5", x, how="AVE")
    net.scores(net.full("fc1000", x, net.options.classes or 1000, MSRA, rates=(1, 1), decays=(1, 1)))


def resnet_50(net):
    """He et al., Deep residual learning for image recognition, 2015."""
    _resnet(net, (3, 4, 6, 3))


def resnet_152(net):
    """The same, with 152 layers."""
    _resnet(net, (3, 8, 36, 3))


def squeezenet(net):
    """Iandola et al., SqueezeNet, 2016: version 1.1, with 2.4 times less computation than the paper's."""
    def fire(number, bottom, squeeze, expand):
        at = f"fire{number}/"
        s = net.conv(at + "squeeze1x1", bottom, squeeze, 1, relu=True)
        return net.add(at + "concat", "Concat", [net.conv(at + "expand1x1", s, expand, 1, relu=True), net.conv(at + "expand3x3", s, expand, 3, pad=1, relu=True)])

    x = net.pool("pool1", net.conv("conv1", net.data(crop=227), 64, 3, 2, relu=True), 3, 2)
    x = net.pool("pool3", fire(3, fire(2, x, 16, 64), 16, 64), 3, 2)
    x = net.pool("pool5", fire(5, fire(4, x, 32, 128), 32, 128), 3, 2)
    x = fire(9, fire(8, fire(7, fire(6, x, 48, 192), 48, 192), 64, 256), 64, 256)
    x = net.conv("conv10", net.dropout(x), net.options.classes or 1000, 1, filler=GAUSSIAN, relu=True)
    net.scores(net.pool("pool10", x, how="AVE"))


def fcn32s(net):
    """Long, Shelhamer and Darrell, Fully convolutional networks for semantic segmentation, 2015: FCN-32s on VGG16. Labels are images of
    one channel in data bases of their own (--train-labels, --test-labels); 255 is what does not count."""
    o = net.options
    for phase, sources in (("TRAIN", (o.train, o.train_labels)), ("TEST", (o.test, o.test_labels))):
        for top, source in zip(("data", "label"), sources):
            transform = {"transform_param": {"mean_value": [104.00699, 116.66877, 122.67892]}} if top == "data" else {}
            net.add(top, "Data", (), [top], include={"phase": Word(phase)}, **transform,
                    data_param={"source": source, "batch_size": o.batch if phase == "TRAIN" else o.test_batch, "backend": Word("LMDB")})
    x = "data"
    for block, (outputs, repeat) in enumerate(zip((64, 128, 256, 512, 512), (2, 2, 3, 3, 3)), start=1):
        for number in range(1, repeat + 1):
            # Room at the border, so that the scores cover the image whatever its size.
            x = net.conv(f"conv{block}_{number}", x, outputs, 3, pad=100 if block == number == 1 else 1, filler=MSRA, relu=True)
        x = net.pool(f"pool{block}", x, 2, 2)
    x = net.dropout(net.conv("fc6", x, net.options.hidden or 4096, 7, filler=MSRA, relu=True))
    x = net.dropout(net.conv("fc7", x, net.options.hidden or 4096, 1, filler=MSRA, relu=True))
    classes = o.classes or 21
    x = net.conv("score_fr", x, classes, 1, filler=GAUSSIAN)
    net.add("upscore", "Deconvolution", [x], param=[{"lr_mult": 0}],
            convolution_param={"num_output": classes, "bias_term": False, "kernel_size": 64, "stride": 32, "group": classes, "weight_filler": {"type": "bilinear"}})
    net.add("score", "Crop", ["upscore", "data"], crop_param={"axis": 2, "offset": 19})
    net.add("loss", "SoftmaxWithLoss", ["score", "label"], loss_param={"ignore_label": 255, "normalize": False})


def lrcn(net):
    """Donahue et al., Long-term recurrent convolutional networks, 2015: the caption model over CaffeNet's features, on made-up input
    (20 time steps of 16 sentences, 8,801 words); give your own in place of the DummyData layer."""
    steps, words = 20, net.options.classes or 8801
    streams = net.options.batch
    whole = {"dim": [steps, streams]}
    zero = {"type": "constant", "value": 0}
    net.add("data", "DummyData", (), ["cont_sentence", "input_sentence", "target_sentence", "image_features"],
            dummy_data_param={"data_filler": [constant(1), zero, zero, GAUSSIAN], "shape": [whole, whole, whole, {"dim": [streams, 1000]}]})
    uniform = {"type": "uniform", "min": -0.08, "max": 0.08}
    net.add("embedding", "Embed", ["input_sentence"], ["embedded_input_sentence"], param=[{"lr_mult": 1}],
            embed_param={"bias_term": False, "input_dim": words, "num_output": 1000, "weight_filler": uniform})
    recurrent = {"num_output": 1000, "weight_filler": uniform, "bias_filler": zero}
    net.add("lstm1", "LSTM", ["embedded_input_sentence", "cont_sentence"], recurrent_param=recurrent)
    net.add("lstm2", "LSTM", ["lstm1", "cont_sentence", "image_features"], recurrent_param=recurrent)
    net.full("predict", "lstm2", words, uniform, axis=2)
    net.add("cross_entropy_loss", "SoftmaxWithLoss", ["predict", "target_sentence"], loss_weight=20, loss_param={"ignore_label": -1},
            softmax_param={"axis": 2})
    net.add("accuracy", "Accuracy", ["predict", "target_sentence"], include={"phase": Word("TEST")}, accuracy_param={"axis": 2, "ignore_label": -1})


NETS = {name.replace("_", "-"): function for name, function in list(globals().items())
        if inspect.isfunction(function) and not name.startswith("_") and list(inspect.signature(function).parameters) == ["net"]}


def build(name, **options):
    """A net, for other programs; `options` as the flags below."""
    defaults = {"train": f"{name}_train_lmdb", "test": f"{name}_test_lmdb", "train_labels": f"{name}_train_labels_lmdb", "test_labels": f"{name}_test_labels_lmdb",
                "mean": None, "batch": 32, "test_batch": 50, "classes": None, "pixels": None, "crop": None, "hidden": None, "deploy": None}
    net = Net(name, argparse.Namespace(**{**defaults, **{key: value for key, value in options.items() if value is not None}}))
    NETS[name](net)
    if net.options.deploy:
        net.deploy(net.options.deploy)
    return net


def prototxt(name, **options):
    """Its text."""
    return build(name, **options).text()


def shape_of(text):
    """Of "10,3,227,227"."""
    shape = [int(word) for word in text.split(",")]
    if len(shape) != 4 or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not IMAGES,CHANNELS,HEIGHT,WIDTH")
    return shape


def main():
    parser = argparse.ArgumentParser(description="Writes the prototxt of a known net to standard output.", formatter_class=argparse.RawDescriptionHelpFormatter,
                                     epilog="nets:\n" + "\n".join(f"  {name:24} {function.__doc__.splitlines()[0]}" for name, function in NETS.items()))
    parser.add_argument("net", choices=NETS, metavar="NET")
    for flag, what in (("train", "data base of the training images"), ("test", "of the test images"), ("train-labels", "of their labels, where these are images"),
                       ("test-labels", "likewise"), ("mean", "binaryproto of the mean image; without it mean values are subtracted")):
        parser.add_argument(f"--{flag}", help=what)
    for flag, what in (("batch", "images of one worker in an iteration"), ("test-batch", "in a test's"), ("classes", "instead of the net's own number"),
                       ("pixels", "of an image, for the autoencoder"), ("crop", "height and width of what nets see that crop, instead of the paper's"),
                       ("hidden", "units of AlexNet's, VGG's and FCN's layers that are fully connected, instead of 4096")):
        parser.add_argument(f"--{flag}", type=int, help=what)
    parser.add_argument("--deploy", type=shape_of, metavar="IMAGES,CHANNELS,HEIGHT,WIDTH",
                        help="the net for use instead of training: images are an input of this shape, losses become probabilities")
    if len(sys.argv) == 1:
        parser.print_help()
        return
    arguments = vars(parser.parse_args())
    try:
        text = prototxt(arguments.pop("net"), **arguments)
    except ValueError as error:
        parser.error(str(error))
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
