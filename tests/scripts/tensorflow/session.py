"""A multilayer perceptron of TensorFlow 1: placeholders, a session and a Saver."""
import os
import sys

import numpy
import tensorflow.compat.v1 as tf

import digits

tf.disable_v2_behavior()
dtype = sys.argv[1]
tf.set_random_seed(0)
(train_x, train_y), (test_x, test_y) = digits.load(dtype)

x = tf.placeholder(dtype, [None, 64])
y = tf.placeholder(tf.int64, [None])
kernel1 = tf.get_variable("hidden/kernel", [64, 48], dtype)
bias1 = tf.get_variable("hidden/bias", [48], dtype, tf.zeros_initializer())
kernel2 = tf.get_variable("output/kernel", [48, 10], dtype)
bias2 = tf.get_variable("output/bias", [10], dtype, tf.zeros_initializer())
logits = tf.matmul(tf.nn.relu(tf.matmul(x, kernel1) + bias1), kernel2) + bias2
loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits))
accuracy = tf.reduce_mean(tf.cast(tf.equal(tf.argmax(logits, 1), y), tf.float64))
optimizer = tf.train.MomentumOptimizer(0.1, 0.9) if sys.argv[2] == "sgd" else tf.train.AdamOptimizer(1e-3)
train = optimizer.minimize(loss)
saver = tf.train.Saver()

with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    order = numpy.random.RandomState(0)
    for epoch in range(3):
        shuffled = order.permutation(len(train_x))
        for begin in range(0, len(shuffled), 64):
            batch = shuffled[begin:begin + 64]
            session.run(train, {x: train_x[batch], y: train_y[batch]})
        print("epoch %d: test loss %.9f, accuracy %.4f" % (epoch, *session.run([loss, accuracy], {x: test_x, y: test_y})))
    saver.save(session, os.path.join(os.path.dirname(os.path.abspath(sys.argv[3])), "checkpoints", "model"))
    with open(sys.argv[3], "wb") as file:
        numpy.savez(file, *session.run(tf.trainable_variables()))
