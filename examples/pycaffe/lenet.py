"""Trains LeNet on the digits from Python, looks into the net on the way, and tests what has come of it.

    PYTHONPATH=build/python python examples/pycaffe/lenet.py [--iterations N] [--save FILE]

From the root of the source tree, after examples/digits/create_lmdb.sh.
"""
import argparse

import numpy as np

import poseidon.caffe as caffe


def accuracy(solver, batches):
    """Of the test net, over batches of its own."""
    right = []
    for _ in range(batches):
        scores = solver.test_nets[0].forward()
        right.append(float(scores["accuracy"]))
    return np.mean(right)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--save", help="write the trained layers here, as a .caffemodel")
    arguments = parser.parse_args()

    solver = caffe.SGDSolver("examples/digits/lenet_solver.prototxt")
    for name, blob in solver.net.blobs.items():
        print(f"{name:8} {blob.shape}")
    for iteration in range(0, arguments.iterations, 50):
        solver.step(min(50, arguments.iterations - iteration))
        filters = solver.net.params["conv1"][0].data
        print(f"iteration {solver.iter:4}: loss {float(solver.net.blobs['loss'].data):.4f}, "
              f"filters of conv1 between {filters.min():.3f} and {filters.max():.3f}")
    print(f"accuracy {accuracy(solver, 8):.4f}")
    if arguments.save:
        solver.net.save(arguments.save)


if __name__ == "__main__":
    main()
