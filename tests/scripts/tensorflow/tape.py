"""A loop of one's own around tf.function and GradientTape."""
import sys

import numpy
import tensorflow as tf

import digits

dtype = sys.argv[1]
tf.random.set_seed(0)
(train_x, train_y), (test_x, test_y) = digits.load(dtype)
batches = tf.data.Dataset.from_tensor_slices((train_x, train_y)).shuffle(1280, seed=1).batch(64)


class Layer(tf.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.kernel = tf.Variable(tf.random.normal([inputs, outputs], stddev=inputs**-0.5, dtype=dtype), name="kernel")
        self.bias = tf.Variable(tf.zeros([outputs], dtype), name="bias")

    def __call__(self, x):
        return x @ self.kernel + self.bias


hidden, output = Layer(64, 48), Layer(48, 10)
variables = [*hidden.trainable_variables, *output.trainable_variables]
momenta = [tf.Variable(tf.zeros_like(variable), trainable=False) for variable in variables]


def loss_of(x, y):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, output(tf.nn.relu(hidden(x)))))


@tf.function
def step(x, y):
    with tf.GradientTape() as tape:
        loss = loss_of(x, y)
    for variable, momentum, gradient in zip(variables, momenta, tape.gradient(loss, variables)):
        momentum.assign(0.9 * momentum + gradient)
        variable.assign_sub(0.1 * momentum)
    return loss


for epoch in range(3):
    for x, y in batches:
        step(x, y)
    print(f"epoch {epoch}: test loss {loss_of(test_x, test_y).numpy():.9f}")
with open(sys.argv[3], "wb") as file:
    numpy.savez(file, *(variable.numpy() for variable in variables))
