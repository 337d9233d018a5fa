"""A subclassed model with a train_step of its own, mixed with a metric of its own, on a tf.data pipeline."""
import sys

import keras
import numpy
import tensorflow as tf

import digits

dtype = sys.argv[1]
keras.backend.set_floatx(dtype)
keras.utils.set_random_seed(0)
(train_x, train_y), (test_x, test_y) = digits.load(dtype)


class Classifier(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(48, activation="tanh")
        self.outputs_ = keras.layers.Dense(10)
        self.loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.mean_loss = keras.metrics.Mean("loss")

    def call(self, x):
        return self.outputs_(self.hidden(x))

    @property
    def metrics(self):
        return [self.mean_loss]

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.loss_of(y, self(x, training=True)) + 1e-4 * tf.nn.l2_loss(self.hidden.kernel)
        variables = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        self.mean_loss.update_state(loss, sample_weight=tf.shape(x)[0])
        return {"loss": self.mean_loss.result()}


batches = tf.data.Dataset.from_tensor_slices((train_x, train_y)).shuffle(1280, seed=3).batch(96).prefetch(2)
model = Classifier()
model.compile(keras.optimizers.SGD(0.1, momentum=0.9) if sys.argv[2] == "sgd" else keras.optimizers.Adam(1e-3))
history = model.fit(batches, epochs=3, verbose=0)
print("losses", " ".join(f"{loss:.6f}" for loss in history.history["loss"]))
print(f"test loss {float(model.loss_of(test_y, model(test_x))):.9f}")
with open(sys.argv[3], "wb") as file:
    numpy.savez(file, *model.get_weights())
