"""An ordinary Keras script: a small convolutional network that reads handwritten digits. It knows of one process and nothing of Poseidon."""
import argparse
import gzip
import pathlib

import keras
import numpy


def load(path):
    """Images [n, 8, 8, 1] from 0 to 1, and what they show."""
    with gzip.open(path, "rt") as file:
        table = numpy.loadtxt([line for line in file if line[0].isdigit()], delimiter=",")
    return (table[:, 1:65].reshape(-1, 8, 8, 1) / 16).astype("float32"), table[:, 0].astype("int64")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(__file__).parents[1] / "digits/digits.csv.gz")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=pathlib.Path, help="file for the trained model, ending in .keras")
    options = parser.parse_args()
    keras.utils.set_random_seed(1)
    images, labels = load(options.data)
    model = keras.Sequential([
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(16, 3, padding="same", activation="relu"),
        keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(128, activation="relu"),
        keras.layers.Dense(10),
    ])
    model.compile(keras.optimizers.SGD(options.lr, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(images[:-400], labels[:-400], batch_size=options.batch, epochs=options.epochs, validation_data=(images[-400:], labels[-400:]), verbose=2)
    if options.out:
        model.save(options.out)


if __name__ == "__main__":
    main()
