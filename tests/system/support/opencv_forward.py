"""OpenCV's dnn module computes blobs of a net, in a process of its own: OpenCV and torch do not go together in one.

    opencv_forward.py DEPLOY.prototxt MODEL.caffemodel INPUT.npy OUTPUT.npz BLOB...
"""
import sys

import cv2
import numpy


def main():
    deploy, model, images, output, *blobs = sys.argv[1:]
    net = cv2.dnn.readNetFromCaffe(deploy, model)
    net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    net.setPreferableTarget(cv2.dnn.DNN_TARGET_CPU)
    # Winograd's way to convolve is quick and less exact: in ResNet-50 its errors add up to more than 1e-4.
    net.enableWinograd(False)
    # Fusing would compute the scores before a softmax and others as parts of other layers.
    net.enableFusion(False)
    net.setInput(numpy.load(images))
    # One after the other: blobs share memory within a pass.
    numpy.savez(output, **{name: net.forward(name).copy() for name in blobs})


if __name__ == "__main__":
    main()
