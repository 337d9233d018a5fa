"""Variables that are not trained by gradients: frozen layers begin with rank 0's values, and what each worker has counted over its own part of the
data (BatchNorm's moving statistics) is averaged where somebody looks.

They are compared by digests first, since mostly they are alike; what differs goes through the coordinator, in slices.
"""
import hashlib

import numpy
import tensorflow as tf

# Numbers that a worker sends at a time.
_SLICE = 1 << 16


def give_out(gradients, variables, read, write):
    """Rank 0's values to all, of those that differ. `read` gives the values of a list of variables, `write` sets them."""
    for variable, values in _differing(gradients, variables, read(variables)):
        parts = gradients.gather_bytes(values.tobytes())
        write([variable], [numpy.frombuffer(parts[0], values.dtype).reshape(values.shape)])


def average(gradients, variables):
    """Of those that differ, where they are numbers that have an average. All workers call it at the same place of their scripts."""
    variables = [variable for variable in variables if tf.as_dtype(variable.dtype).is_floating]
    for variable, values in _differing(gradients, variables, [variable.numpy() for variable in variables]):
        parts = gradients.gather_bytes(values.astype(numpy.float64).tobytes())
        mean = sum(numpy.frombuffer(part) for part in parts) / len(parts)
        variable.assign(mean.reshape(values.shape).astype(values.dtype))


def _differing(gradients, variables, values):
    digests = [hashlib.sha256(numpy.ascontiguousarray(value).tobytes()).hexdigest()[:16] for value in values]
    everybodys = gradients.gather(digests)
    return [(variable, value) for place, (variable, value) in enumerate(zip(variables, values)) if len({digests[place] for digests in everybodys}) > 1]
