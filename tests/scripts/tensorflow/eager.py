"""A loop of one's own, run eagerly, whose data set is cut by one line."""
import sys

import keras
import numpy
import tensorflow as tf

import digits

dtype = sys.argv[1]
keras.backend.set_floatx(dtype)
keras.utils.set_random_seed(0)
(train_x, train_y), (test_x, test_y) = digits.load(dtype)
batches = tf.data.Dataset.from_tensor_slices((train_x, train_y)).shuffle(1280, seed=1).batch(100)
if "POSEIDON_RANK" in __import__("os").environ:
    import poseidon.tensorflow
    batches = poseidon.tensorflow.shard(batches)

model = keras.Sequential([keras.layers.Dense(48, activation="relu"), keras.layers.Dense(10)])
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
optimizer = keras.optimizers.SGD(0.1, momentum=0.9) if sys.argv[2] == "sgd" else keras.optimizers.Adam(1e-3)

for epoch in range(3):
    for x, y in batches:
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    print(f"epoch {epoch}: test loss {float(loss_of(test_y, model(test_x))):.9f}")
with open(sys.argv[3], "wb") as file:
    numpy.savez(file, *model.get_weights())
