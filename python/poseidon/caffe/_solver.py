"""pycaffe's solvers."""
import weakref

from . import _settings
from ._engine import Trainer
from ._layer import collected
from ._net import Net


class Solver:
    """A solver from its prototxt. The classes below choose the rule of update, whatever `type` the file has, as Caffe's do."""
    type = ""  # the file's

    def __init__(self, solver_file, dtype="float32"):
        self._file = str(solver_file)
        self._callbacks = []
        # The engine's solver must not keep this one alive, which keeps it.
        me = weakref.ref(self)
        with collected() as instances:
            self._trainer = Trainer(self._file, self.type, dtype, _settings.seed, lambda: me()._on_start(),
                                    lambda: me()._on_gradients_ready())
        self.net = Net._around(self._trainer.net(), instances)
        self.test_nets = [Net._around(net, instances) for net in self._trainer.test_nets()]

    @property
    def iter(self):
        """How many iterations are done."""
        return self._trainer.iteration

    @property
    def param(self):
        """The file as a message caffe_pb2.SolverParameter."""
        from google.protobuf import text_format

        from .proto import caffe_pb2
        with open(self._file) as file:
            return text_format.Parse(file.read(), caffe_pb2.SolverParameter())

    def step(self, iterations):
        """So many iterations, with the tests and snapshots that are due."""
        self._trainer.step(iterations)

    def solve(self, resume_file=None):
        """From here, or from a .solverstate, to max_iter."""
        if resume_file is not None:
            self.restore(resume_file)
        self._trainer.solve()

    def restore(self, state):
        self._trainer.restore(str(state))

    def snapshot(self):
        """Writes model and state under snapshot_prefix; returns the state's path."""
        return self._trainer.snapshot()

    def apply_update(self):
        """Updates the parameters by what is in their `diff`, which then shows what was taken from them."""
        self._trainer.apply_update()

    def add_callback(self, on_start, on_gradients_ready=None):
        """Calls on_start() before each iteration's first forward pass, on_gradients_ready() before its update."""
        self._callbacks.append((on_start, on_gradients_ready))

    def _on_start(self):
        for on_start, _ in self._callbacks:
            on_start()

    def _on_gradients_ready(self):
        for _, on_gradients_ready in self._callbacks:
            if on_gradients_ready is not None:
                on_gradients_ready()


class SGDSolver(Solver):
    type = "SGD"


class NesterovSolver(Solver):
    type = "Nesterov"


class AdaGradSolver(Solver):
    type = "AdaGrad"


class RMSPropSolver(Solver):
    type = "RMSProp"


class AdaDeltaSolver(Solver):
    type = "AdaDelta"


class AdamSolver(Solver):
    type = "Adam"


def get_solver(solver_file, **options):
    """A solver of the type that the file names."""
    return Solver(solver_file, **options)
