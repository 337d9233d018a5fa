"""Keras on the torch back end."""
import os
import sys

os.environ["KERAS_BACKEND"] = "torch"
import keras
import numpy

import digits

dtype = sys.argv[1]
keras.backend.set_floatx(dtype)
keras.utils.set_random_seed(0)
(train_x, train_y), (test_x, test_y) = digits.load(dtype)

model = keras.Sequential([keras.layers.Dense(48, activation="relu"), keras.layers.Dense(10)])
optimizer = keras.optimizers.SGD(0.1, momentum=0.9) if sys.argv[2] == "sgd" else keras.optimizers.Adam(1e-3)
model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
model.fit(train_x, train_y, batch_size=64, epochs=3, verbose=0)
loss, accuracy = model.evaluate(test_x, test_y, verbose=0)
print(f"test loss {loss:.9f}, accuracy {accuracy:.4f}")
with open(sys.argv[3], "wb") as file:
    numpy.savez(file, *model.get_weights())
