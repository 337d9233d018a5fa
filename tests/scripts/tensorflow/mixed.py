"""Mixed precision: float16 on the way, float32 in the variables, a loss that is scaled."""
import sys

import keras
import numpy

import digits

keras.utils.set_random_seed(0)
keras.mixed_precision.set_global_policy("mixed_float16")
(train_x, train_y), (test_x, test_y) = digits.load("float32")

model = keras.Sequential([
    keras.layers.Dense(48, activation="relu"),
    keras.layers.Dense(10),
    keras.layers.Activation("linear", dtype="float32"),
])
optimizer = keras.optimizers.SGD(0.1, momentum=0.9) if sys.argv[2] == "sgd" else keras.optimizers.Adam(1e-3)
model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(train_x, train_y, batch_size=64, epochs=2, verbose=0)
print(f"test loss {model.evaluate(test_x, test_y, batch_size=517, verbose=0):.6f}")
with open(sys.argv[3], "wb") as file:
    numpy.savez(file, *model.get_weights())
