"""A convolutional net of the functional API, with BatchNorm, dropout switched off, validation and callbacks."""
import sys

import keras
import numpy

import digits

dtype = sys.argv[1]
keras.backend.set_floatx(dtype)
keras.utils.set_random_seed(0)
(train_x, train_y), (test_x, test_y) = digits.load(dtype)
train_x, test_x = train_x.reshape(-1, 8, 8, 1), test_x.reshape(-1, 8, 8, 1)

inputs = keras.Input((8, 8, 1))
x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(inputs)
x = keras.layers.BatchNormalization(trainable=False)(x)
x = keras.layers.ReLU()(x)
x = keras.layers.MaxPooling2D()(x)
x = keras.layers.Conv2D(16, 3, padding="same", activation="relu")(x)
x = keras.layers.GlobalAveragePooling2D()(x)
outputs = keras.layers.Dense(10, activation="softmax")(x)
model = keras.Model(inputs, outputs)
optimizer = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, clipnorm=1.0) if sys.argv[2] == "sgd" else keras.optimizers.Adam(1e-2)
model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
callbacks = [
    keras.callbacks.EarlyStopping("loss", patience=1, min_delta=0.05),
    keras.callbacks.ReduceLROnPlateau("val_loss", patience=1),
    keras.callbacks.ModelCheckpoint(sys.argv[3] + ".weights.h5", save_weights_only=True),
]
history = model.fit(train_x, train_y, batch_size=100, epochs=4, verbose=0, validation_data=(test_x, test_y), callbacks=callbacks)
for epoch, losses in enumerate(zip(history.history["loss"], history.history["val_loss"])):
    print("epoch %d: loss %.6f, test loss %.9f" % (epoch, *losses))
with open(sys.argv[3], "wb") as file:
    numpy.savez(file, *model.get_weights())
