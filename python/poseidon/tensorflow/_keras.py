"""Keras' fit: its batches are cut, its training step knows how many samples it has, and what it reports is of all workers' samples."""
import functools

import tensorflow as tf

from . import _data, _others
from ._gradients import real


def attach(module, gradients):
    """`module`: keras.src.backend.tensorflow.trainer."""
    trainer = module.TensorFlowTrainer
    doing = _watch(trainer)
    gradients.is_in_keras = lambda: bool(doing)
    _cut_what_fit_reads(module.TFEpochIterator, doing, gradients)
    _tell_samples(trainer, gradients)
    _report_of_all(trainer, doing, gradients)


class _Doing:
    """What a model does: fit, or evaluate within it, or (in a callback) something else within that."""

    def __init__(self, name):
        self.name = name
        self.reads = False  # it has made what it reads its data from


def _watch(trainer):
    doing = []

    def watched(function):
        @functools.wraps(function)
        def around(self, *arguments, **options):
            doing.append(_Doing(function.__name__))
            try:
                return function(self, *arguments, **options)
            finally:
                doing.pop()

        return around

    for name in ("fit", "evaluate", "predict"):
        setattr(trainer, name, watched(getattr(trainer, name)))
    return doing


def _cut_what_fit_reads(epoch_iterator, doing, gradients):
    initialise, reset = epoch_iterator.__init__, epoch_iterator.reset

    @functools.wraps(initialise)
    def initialised(self, *arguments, **options):
        initialise(self, *arguments, **options)
        # The first one that fit makes is of the data for training; a later one, of those for evaluation.
        self._poseidon_cuts = (gradients.is_on and bool(doing) and doing[-1].name == "fit" and not doing[-1].reads and
                               isinstance(self._distributed_dataset, tf.data.Dataset))
        if doing:
            doing[-1].reads = True

    @functools.wraps(reset)
    def reset_and_cut(self):
        # Not before: the model may have to be built, from a batch as it is.
        if self._poseidon_cuts:
            self._poseidon_cuts = False
            self._distributed_dataset = _data.parts(self._distributed_dataset)
        reset(self)

    epoch_iterator.__init__, epoch_iterator.reset = initialised, reset_and_cut


def _tell_samples(trainer, gradients):
    make = trainer.make_train_function

    def of_part(step):
        @functools.wraps(step)
        def step_of_part(batch):
            if not gradients.is_on:
                return step(batch)
            # What is handed to train_on_batch is cut here.
            part = batch if isinstance(batch, _data.Part) else _data.part_of(batch)
            with gradients.of_samples(part.samples):
                return step(part.content)

        step_of_part.is_poseidons = True
        return step_of_part

    @functools.wraps(make)
    def made(self, force=False):
        if not hasattr(self.train_step, "is_poseidons"):
            object.__setattr__(self, "train_step", of_part(self.train_step))  # Keras would take it for a layer's attribute, to be tracked
        return make(self, force)

    trainer.make_train_function = made


def _report_of_all(trainer, doing, gradients):
    """Metrics count in variables (totals, numbers of samples), and the sums of these over all workers are what one process has."""
    result = trainer._get_metrics_result_or_logs

    @functools.wraps(result)
    def result_of_all(self, logs):
        if gradients.job is not None and gradients.is_on and doing and doing[-1].name == "fit":
            counts = [variable for metric in self.metrics for variable in metric.variables]
            for variable, total in zip(counts, gradients.totals([variable.numpy() for variable in counts])):
                variable.assign(total)
            _others.average(gradients, [real(variable) for variable in self.non_trainable_variables])
        return result(self, logs)

    trainer._get_metrics_result_or_logs = result_of_all
