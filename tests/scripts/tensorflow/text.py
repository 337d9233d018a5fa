"""Sequences of symbols, told apart by an embedding, an LSTM and a dense layer; the end of a sequence is padded and masked."""
import sys

import keras
import numpy

dtype = sys.argv[1]
keras.backend.set_floatx(dtype)
keras.utils.set_random_seed(0)
random = numpy.random.RandomState(1)


def sequences(count):
    """Symbols 1 to 19, of a length of their own; noughts behind. The class is which half of the alphabet the larger part is from."""
    symbols = random.randint(1, 20, (count, 12))
    symbols[numpy.arange(12) >= random.randint(4, 13, (count, 1))] = 0
    return symbols, (2 * ((symbols > 9) & (symbols > 0)).sum(1) > (symbols > 0).sum(1)).astype(dtype)


(train_x, train_y), (test_x, test_y) = sequences(512), sequences(128)
model = keras.Sequential([
    keras.layers.Embedding(40, 16, mask_zero=True),
    keras.layers.LSTM(12),
    keras.layers.Dense(1, activation="sigmoid"),
])
optimizer = keras.optimizers.SGD(0.5, momentum=0.9) if sys.argv[2] == "sgd" else keras.optimizers.Adam(1e-2)
model.compile(optimizer, "binary_crossentropy")
model.fit(train_x, train_y, batch_size=48, epochs=3, verbose=0)
print(f"test loss {model.evaluate(test_x, test_y, batch_size=128, verbose=0):.9f}")
with open(sys.argv[3], "wb") as file:
    numpy.savez(file, *model.get_weights())
