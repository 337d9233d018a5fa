"""Sixteen dense layers, trained in one of several ways: which gradient leaves when is looked at from outside."""
import sys

import numpy
import tensorflow as tf

how, steps, width = sys.argv[1], 6, 512
if how == "session":
    tf.compat.v1.disable_v2_behavior()
x = numpy.random.RandomState(0).normal(size=(512, width)).astype("float32")


def net(kernels, inputs):
    for kernel in kernels:
        inputs = tf.nn.relu(inputs @ kernel)
    return tf.reduce_mean(inputs**2)


if how == "fit":
    import keras

    model = keras.Sequential([keras.layers.Dense(width, activation="relu", use_bias=False) for _ in range(16)])
    model.compile("sgd", "mse")
    model.fit(x, x, batch_size=512, epochs=steps, verbose=0)
elif how == "session":
    tf1 = tf.compat.v1
    made = [tf1.get_variable(f"kernel{layer}", [width, width]) for layer in range(16)]
    train = tf1.train.GradientDescentOptimizer(0.01).minimize(net(made, tf.constant(x)))
    with tf1.Session() as session:
        session.run(tf1.global_variables_initializer())
        for _ in range(steps):
            session.run(train)
else:
    made = [tf.Variable(tf.random.normal([width, width], stddev=width**-0.5), name=f"kernel{layer}") for layer in range(16)]

    def step():
        with tf.GradientTape() as tape:
            loss = net(made, tf.constant(x))
        for variable, gradient in zip(made, tape.gradient(loss, made)):
            variable.assign_sub(0.01 * gradient)

    run = tf.function(step) if how == "function" else step
    for _ in range(steps):
        run()
