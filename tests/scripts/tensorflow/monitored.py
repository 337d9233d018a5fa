"""MonitoredTrainingSession of TensorFlow 1, with a global step, a decaying rate, hooks and checkpoints."""
import os
import sys

import numpy
import tensorflow.compat.v1 as tf

import digits

tf.disable_eager_execution()
dtype = sys.argv[1]
tf.set_random_seed(0)
(train_x, train_y), (test_x, test_y) = digits.load(dtype)

x = tf.placeholder(dtype, [None, 64])
y = tf.placeholder(tf.int64, [None])
with tf.variable_scope("net", initializer=tf.glorot_uniform_initializer(seed=1)):
    kernel1 = tf.get_variable("kernel1", [64, 48], dtype, use_resource=True)
    kernel2 = tf.get_variable("kernel2", [48, 10], dtype, use_resource=True)
logits = tf.matmul(tf.nn.tanh(tf.matmul(x, kernel1)), kernel2)
loss = tf.losses.sparse_softmax_cross_entropy(y, logits)
step = tf.train.get_or_create_global_step()
rate = tf.train.exponential_decay(0.1 if sys.argv[2] == "sgd" else 1e-2, step, 20, 0.9)
optimizer = tf.train.MomentumOptimizer(rate, 0.9) if sys.argv[2] == "sgd" else tf.train.AdamOptimizer(rate)
gradients, variables = zip(*optimizer.compute_gradients(loss))
gradients, _ = tf.clip_by_global_norm(gradients, 1.0)
train = optimizer.apply_gradients(zip(gradients, variables), global_step=step)

folder = os.path.join(os.path.dirname(os.path.abspath(sys.argv[3])), "checkpoints")
order = numpy.random.RandomState(0)
with tf.train.MonitoredTrainingSession(checkpoint_dir=folder, hooks=[tf.train.StopAtStepHook(last_step=50)], save_checkpoint_steps=25,
                                       log_step_count_steps=None) as session:
    while not session.should_stop():
        batch = order.randint(0, len(train_x), 64)
        session.run(train, {x: train_x[batch], y: train_y[batch]})
        if not session.should_stop() and session.run(step) == 49:
            print("test loss %.9f" % session.run(loss, {x: test_x, y: test_y}))
reader = tf.train.load_checkpoint(folder)
with open(sys.argv[3], "wb") as file:
    numpy.savez(file, *(reader.get_tensor(name) for name in ("net/kernel1", "net/kernel2")))
