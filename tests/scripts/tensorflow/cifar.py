"""The net of the old CIFAR-10 tutorial, as layers of TensorFlow 1 in a session: weight decay in a collection, moving averages, its own summaries left
out. Noise stands for the images."""
import sys

import numpy
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()
dtype = sys.argv[1]
tf.set_random_seed(0)
random = numpy.random.RandomState(0)
prototypes = random.normal(size=(10, 12, 12, 3))


def images(count):
    labels = random.randint(0, 10, count)
    return (prototypes[labels] + random.normal(size=(count, 12, 12, 3))).astype(dtype), labels


def variable(name, shape, stddev, decay):
    made = tf.get_variable(name, shape, dtype, tf.truncated_normal_initializer(stddev=stddev, dtype=tf.as_dtype(dtype)))
    if decay:
        tf.add_to_collection("losses", decay * tf.nn.l2_loss(made))
    return made


x = tf.placeholder(dtype, [None, 12, 12, 3])
y = tf.placeholder(tf.int64, [None])
with tf.variable_scope("conv1"):
    conv1 = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, variable("weights", [5, 5, 3, 8], 0.05, None), 1, "SAME"), variable("biases", [8], 0.01, None)))
pool1 = tf.nn.max_pool2d(conv1, 3, 2, "SAME")
with tf.variable_scope("conv2"):
    conv2 = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(pool1, variable("weights", [5, 5, 8, 8], 0.05, None), 1, "SAME"), variable("biases", [8], 0.01, None)))
pool2 = tf.reshape(tf.nn.max_pool2d(conv2, 3, 2, "SAME"), [-1, 3 * 3 * 8])
with tf.variable_scope("local3"):
    local3 = tf.nn.relu(tf.matmul(pool2, variable("weights", [72, 24], 0.04, 0.004)) + variable("biases", [24], 0.01, None))
with tf.variable_scope("softmax"):
    logits = tf.matmul(local3, variable("weights", [24, 10], 1 / 24, None)) + variable("biases", [10], 0.01, None)
tf.add_to_collection("losses", tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)))
loss = tf.add_n(tf.get_collection("losses"))
optimizer = tf.train.GradientDescentOptimizer(0.1) if sys.argv[2] == "sgd" else tf.train.AdamOptimizer(1e-3)
averages = tf.train.ExponentialMovingAverage(0.9)
with tf.control_dependencies([optimizer.minimize(loss)]):
    train = averages.apply(tf.trainable_variables())

with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for step in range(50):
        batch_x, batch_y = images(32)
        session.run(train, {x: batch_x, y: batch_y})
    test_x, test_y = images(200)
    print("test loss %.9f" % session.run(loss, {x: test_x, y: test_y}))
    with open(sys.argv[3], "wb") as file:
        numpy.savez(file, *session.run(tf.trainable_variables()), *session.run([averages.average(made) for made in tf.trainable_variables()]))
