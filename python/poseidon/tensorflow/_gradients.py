"""Gradients become averages over all workers, wherever TensorFlow computes them with respect to variables.

In a graph the sum of a gradient is an operator behind it: it begins when the gradient is there, while the executor computes the others. A
tensor of the job is a variable together with the number of its use: a graph that asks for a variable's gradient twice has two operators, in no
order, and each sums with its like on the other workers.

The gradients that a worker sums have been scaled by its share of the samples, at the root of the backward pass, so that nothing is left to
divide.
"""
import contextlib
import functools
import itertools
import json
import weakref

import numpy
import tensorflow as tf
from tensorflow.python.eager import backprop, record
from tensorflow.python.ops import gradients_util, resource_variable_ops

from .._library import Job, Layer, Values
from .._worker import rank, size
from . import _data, _operators, _others
from ._eager import EagerPasses

# Bytes that a worker hands to the coordinator at a time.
_SLICE = 1 << 19


class _Tensor:
    """One of the job's: a variable's gradients, or numbers of ours."""

    def __init__(self, name, shape, dtype, variable=None):
        self.name, self.shape, self.variable = name, tuple(shape), variable
        self.dtype = numpy.float64 if dtype.base_dtype == tf.float64 else numpy.float32
        self.is_shared = False  # rank 0's values are everybody's

    def values(self):
        """An array; None where there are none yet."""
        if self.variable is None:
            return numpy.zeros(self.shape, self.dtype)
        with tf.init_scope():
            if not tf.executing_eagerly() or not self.variable.is_initialized():
                return None
            return numpy.array(self.variable.numpy(), dtype=self.dtype, order="C")

    def take(self, array):
        """Rank 0's values."""
        if self.variable is not None and rank() != 0:
            with tf.init_scope():
                self.variable.assign(tf.cast(array, self.variable.dtype))


class Gradients:
    """All that is synchronised in this process. The script's threads, one at a time."""

    def __init__(self):
        self.job = None
        self.samples = None     # of the batch that is being computed with: this worker's; a scalar, or None where nothing is known
        self.on_asked = None    # called when gradients are asked for the next time
        self.is_in_keras = lambda: False  # one of Keras' loops takes the batches
        self._tensors = []      # of the job, by place; those at the end may be to come
        self._in_job = 0        # of them, those that the job knows
        self._places = {}       # by (variable's id or name, how deep within functions, use)
        self._uses = weakref.WeakKeyDictionary()  # by graph: how often each variable's gradient has been asked for in it
        self._variables = []    # all that the script has made, as weak references
        self._eager = EagerPasses()
        self._is_off = False    # somebody else synchronises

    def attach(self):
        self._watch_variables()
        gradient, helper = backprop.GradientTape.gradient, gradients_util._GradientsHelper

        @functools.wraps(gradient)
        def averaged(tape, target, sources, output_gradients=None, **options):
            concerns_variables = any(real(source) is not None for source in tf.nest.flatten(sources))
            if self._is_off or not concerns_variables or _is_inner(tape):
                return gradient(tape, target, sources, output_gradients, **options)
            return self._averages(target, sources, output_gradients, lambda roots: gradient(tape, target, sources, roots, **options))

        @functools.wraps(helper)
        def averaged_symbolic(ys, xs, grad_ys=None, *arguments, **options):
            variables = None if self._is_off else _variables_of(xs)
            if variables is None:
                return helper(ys, xs, grad_ys, *arguments, **options)
            return self._averages(ys, variables, grad_ys, lambda roots: helper(ys, xs, roots, *arguments, **options))

        backprop.GradientTape.gradient = averaged
        gradients_util._GradientsHelper = averaged_symbolic

    def _watch_variables(self):
        initialise = resource_variable_ops.BaseResourceVariable.__init__

        @functools.wraps(initialise)
        def initialised(variable, *arguments, **options):
            initialise(variable, *arguments, **options)
            self._variables.append(weakref.ref(variable))

        resource_variable_ops.BaseResourceVariable.__init__ = initialised

    # ---- What there is to synchronise ----

    def _be_asked(self):
        if self.samples is None and self.job is None and tf.compat.v1.executing_eagerly_outside_functions():
            _data.warn_where_nothing_is_cut("--shard-datasets")
        if self.on_asked is not None:
            self.on_asked()
            self.on_asked = None
        if tf.distribute.has_strategy():
            raise RuntimeError("this script trains under a strategy of tf.distribute, which averages gradients by itself: Poseidon is not hooked into it. "
                               "Take the strategy out of the script (Poseidon does its work), or start the script without `poseidon run`")

    def _place(self, key, name, shape, dtype, variable=None):
        """Of a tensor: a new one in each use that a graph makes of it, since these have no order. Functions that are called, and programs that are run
        eagerly, come one after the other; but not a function and what stands beside its call, which is why depth counts."""
        depth, use = 0, 0
        if not tf.executing_eagerly():
            graph = tf.compat.v1.get_default_graph()
            depth = _depth(graph)
            uses = self._uses.setdefault(graph, {})
            use = uses.get(key, 0)
            uses[key] = use + 1
        place = self._places.get((key, depth, use))
        if place is None:
            place = self._places[key, depth, use] = len(self._tensors)
            self._tensors.append(_Tensor(self._unused(name), shape, dtype, variable))
        return place

    def _unused(self, name):
        taken = {tensor.name for tensor in self._tensors}
        others = (f"{name} ({number})" for number in itertools.count(2))
        return name if name not in taken else next(other for other in others if other not in taken)

    def _averages(self, target, sources, output_gradients, differentiate):
        """Of the gradients that `differentiate` gives for what the backward pass begins with."""
        self._be_asked()
        # In the order of the sources, which is mostly that of the forward pass: what that needs first travels first.
        places = {}
        for index, source in enumerate(tf.nest.flatten(sources)):
            variable = real(source)
            if variable is not None:
                places[index] = self._place(id(variable), _name(source), variable.shape, variable.dtype, variable)
        share, present = self._share()
        roots = _scaled_roots(target, output_gradients, share) if len(places) == len(tf.nest.flatten(sources)) else None
        if tf.executing_eagerly() and roots is not None:
            self._join()
            by_variable = {id(self._tensors[place].variable): place for place in places.values()}

            def begin(variable, gradient):
                place = by_variable.get(id(variable))
                return None if place is None else self.summing(gradient, place, present)

            result = self._eager.run(lambda: differentiate(roots), begin)
        else:
            result = differentiate(output_gradients if roots is None else roots)
        flat = tf.nest.flatten(result)
        flights = {}
        for index, place in places.items():
            gradient = flat[index]
            if gradient is None:
                continue
            touched = None
            if isinstance(gradient, tf.IndexedSlices):
                tensor = self._tensors[place]
                touched = self._place((id(tensor.variable), "rows"), f"rows of {tensor.name}", tensor.shape[:1], tf.float32)
            flights[index] = _Flight(gradient, place, touched, self._eager.taken(self._tensors[place].variable, gradient) if tf.executing_eagerly() else None)
        self._join()
        # Backwards, which is the order in which they have been computed.
        for index in sorted(flights, reverse=True):
            flights[index].begin(self, share if roots is None else 1, present)
        for index, flight in flights.items():
            flat[index] = flight.end()
        return tf.nest.pack_sequence_as(result, flat)

    def _share(self):
        """Of this worker, in the average; and whether it has any."""
        if self.samples is None:
            # Who cuts batches outside of the graph says so, each time.
            part = _operators.part()
            own, total = tf.cast(part[0], tf.float64), tf.cast(part[1], tf.float64)
            return tf.where(part[1] > 0, tf.math.divide_no_nan(own, total), 1 / size()), tf.logical_or(part[0] > 0, tf.equal(part[1], 0))
        place = self._place("samples", "samples", (), tf.float64)
        if tf.executing_eagerly():
            self._join()
        own = tf.cast(self.samples, tf.float64)
        return own / self.summing(own, place)(), self.samples > 0

    def summing(self, own, place, present=True):
        """A function that gives the sum of what all workers have, which is begun at once."""
        own = tf.cast(own, self._tensors[place].dtype)
        if tf.executing_eagerly():
            ticket = _operators.start(own, place, present)
            return lambda: _operators.wait(ticket, own.dtype)
        total = _operators.sum_of_all(own, place, present)
        return lambda: total

    # ---- The job ----

    def _join(self):
        """All workers come here with the same tensors, since they run the same script. Not while variables have no values yet: a function that makes
        variables is traced once more when they have got them, before it is run; a session has them when it runs the first training step."""
        if self.job is not None and self._in_job == len(self._tensors):
            return
        arrays = [None if tensor.is_shared else tensor.values() for tensor in self._tensors]
        if all(array is not None or tensor.is_shared for tensor, array in zip(self._tensors, arrays)):
            is_first = self.job is None
            for tensor, array in self._renew(arrays):
                tensor.take(array)
            if is_first:
                self._give_out_others()

    def share_from(self, read, write):
        """Joins, with values that `read` gives of a list of variables; rank 0's are given to `write`, with the variables."""
        if self.job is not None and self._in_job == len(self._tensors):
            return
        unshared = [tensor for tensor in self._tensors if not tensor.is_shared and tensor.variable is not None]
        values = dict(zip(map(id, unshared), read([tensor.variable for tensor in unshared]))) if unshared else {}
        arrays = [numpy.array(values[id(tensor)], dtype=tensor.dtype, order="C") if id(tensor) in values else None if tensor.is_shared else tensor.values()
                  for tensor in self._tensors]
        is_first = self.job is None
        shared = [(tensor.variable, array) for tensor, array in self._renew(arrays) if tensor.variable is not None]
        if shared and rank() != 0:
            write(*zip(*shared))
        if is_first:
            trained = {id(tensor.variable) for tensor in self._tensors}
            _others.give_out(self, [variable for variable in tf.compat.v1.global_variables() if id(variable) not in trained], read, write)

    def _give_out_others(self):
        """Of the variables that there are, those that are not trained, or not yet."""
        trained = {id(tensor.variable) for tensor in self._tensors}
        with tf.init_scope():
            others = [variable for variable in (known() for known in self._variables) if variable is not None and id(variable) not in trained]
            others = [variable for variable in others if variable.dtype not in (tf.resource, tf.variant, tf.string) and variable.is_initialized()]

            def write(variables, values):
                for variable, value in zip(variables, values):
                    variable.assign(value)

            _others.give_out(self, others, lambda variables: [variable.numpy() for variable in variables], write)

    def _renew(self, arrays):
        """The tensors that have become everybody's, with rank 0's values."""
        values = [Values(tensor.name, tensor.shape, tensor.dtype, array) for tensor, array in zip(self._tensors, arrays)]
        layers = [Layer(tensor.name, [place]) for place, tensor in enumerate(self._tensors)]
        first = _operators.next_iteration()
        if self.job is None:
            self.job = Job(values, layers)
        else:
            self.job.renew(values, layers, first)
        self._in_job = len(self._tensors)
        _operators.use(self.job, self._in_job, first)
        shared = [(tensor, array) for tensor, array in zip(self._tensors, arrays) if array is not None]
        for tensor, _ in shared:
            tensor.is_shared = True
        return shared

    def knows(self, graph):
        """Gradients have been asked for in it."""
        return graph in self._uses

    @contextlib.contextmanager
    def of_samples(self, samples):
        """Within: what is computed has so many samples of this worker's."""
        before, self.samples = self.samples, samples
        try:
            yield
        finally:
            self.samples = before

    @property
    def is_on(self):
        return not self._is_off

    def gather(self, value):
        """What each worker gives, by rank: what JSON can write."""
        return [json.loads(text) for text in self.job.gather(json.dumps(value).encode())]

    def gather_bytes(self, own):
        """What each worker gives, by rank; as much on all."""
        slices = [self.job.gather(own[begin:begin + _SLICE]) for begin in range(0, len(own), _SLICE)]
        return [b"".join(parts) for parts in zip(*slices)]

    def totals(self, arrays):
        """Sums over all workers of arrays that are small, the same on all."""
        parts = self.gather_bytes(b"".join(numpy.ascontiguousarray(array, dtype=numpy.float64).tobytes() for array in arrays))
        total = functools.reduce(numpy.add, (numpy.frombuffer(part) for part in parts))
        ends = numpy.cumsum([array.size for array in arrays])
        return [part.reshape(array.shape).astype(array.dtype) for part, array in zip(numpy.split(total, ends[:-1]), arrays)]

    def settle_all(self):
        """Nothing is on its way when a script ends: its operators have ended."""

    def switch_off(self):
        self._is_off = True

    def forsake(self):
        """In a process that has been forked."""
        self._is_off = True
        if self.job is not None:
            _operators.use(None, 0, 0)
            self.job.forsake()
            self.job = None


def _is_inner(tape):
    """The gradient is itself differentiated: what is averaged is the outer one, which has it in it."""
    with tape.stop_recording() if tape._recording else contextlib.nullcontext():
        return record.could_possibly_record()


def real(source):
    """The variable of TensorFlow's behind what a script differentiates with respect to; None where that is something else."""
    if isinstance(source, tf.Variable):
        return source
    inner = getattr(source, "_value", None)  # a variable of Keras'
    return inner if isinstance(inner, tf.Variable) else None


def _variables_of(xs):
    """The variables that these are, all of them, as variables or as what stands for them in a graph; None where not all are."""
    found = []
    xs = xs if isinstance(xs, (list, tuple)) else [xs]
    by_operation = None
    for x in xs:
        variable = real(x)
        if variable is None and isinstance(x, tf.Tensor):
            if by_operation is None:
                by_operation = {known.op: known for known in tf.compat.v1.global_variables()}
            variable = by_operation.get(x.op)
        if variable is None:
            return None
        found.append(variable)
    return found or None


def _scaled_roots(target, output_gradients, share):
    """What the backward pass begins with; None where it cannot be scaled there."""
    targets = tf.nest.flatten(target)
    if not all(isinstance(one, tf.Tensor) and one.dtype.is_floating for one in targets):
        return None
    given = [None] * len(targets) if output_gradients is None else tf.nest.flatten(output_gradients)
    if len(given) != len(targets):
        return None  # a mistake, of which TensorFlow tells
    return [(tf.ones_like(one) if begin is None else tf.convert_to_tensor(begin)) * tf.cast(share, one.dtype) for one, begin in zip(targets, given)]


class _Flight:
    """A gradient on its way. One of some rows travels whole, together with which rows these are: so many workers' rows are one worker's."""

    def __init__(self, gradient, place, touched, begun):
        self._gradient, self._place, self._touched, self._begun = gradient, place, touched, begun

    def begin(self, gradients, scale, present):
        dense = tf.convert_to_tensor(self._gradient)
        if self._begun is not None and self._begun.is_all:
            self._sum = self._begun.total
        elif self._begun is not None:
            first, rest = self._begun.total(), gradients.summing(dense - self._begun.gradient, self._place, present)
            self._sum = lambda: first + rest()
        else:
            self._sum = gradients.summing(dense if isinstance(scale, int) else dense * tf.cast(scale, dense.dtype), self._place, present)
        if self._touched is not None:
            indices = self._gradient.indices
            own = tf.scatter_nd(indices[:, tf.newaxis], tf.ones(tf.shape(indices)), tf.cast(tf.shape(dense)[:1], indices.dtype))
            self._touches = gradients.summing(own, self._touched, present)

    def end(self):
        average = tf.cast(self._sum(), self._gradient.dtype)
        if self._touched is None:
            return average
        rows = tf.cast(tf.where(self._touches() > 0)[:, 0], self._gradient.indices.dtype)
        return tf.IndexedSlices(tf.gather(average, rows), rows, self._gradient.dense_shape)


def _depth(graph):
    """How many functions a graph is within: 0 for one that a session runs."""
    depth = 0
    while getattr(graph, "outer_graph", None) is not None:
        graph = graph.outer_graph
        depth += 1
    return depth


def _name(source):
    """Keras' variables have a path; TensorFlow's own have a name with the number of an output behind it."""
    return getattr(source, "path", None) or source.name.partition(":")[0]
