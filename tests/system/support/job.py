"""Runs `poseidon` as a user would: real processes, files in a folder of the test's own."""
import dataclasses
import json
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[3]
EXAMPLE_NET = ROOT / "examples/digits/lenet_train_test.prototxt"
EXAMPLE_SOLVER = ROOT / "examples/digits/lenet_solver.prototxt"

# No run of these tests takes so long by far; a job that hangs fails its test instead of stopping all of them.
SECONDS_MAX = 240


@dataclasses.dataclass
class Run:
    """How a command ended."""
    code: int
    out: str
    err: str
    report: dict | None = None

    def expect(self, code=0):
        assert self.code == code, f"exit code {self.code}, not {code}\n--- out\n{self.out[-4000:]}\n--- err\n{self.err[-4000:]}"
        return self


def environment(**extra):
    """Ours, without what would turn the command into somebody's worker."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("POSEIDON_")}
    return {**clean, **extra}


def run(command, *arguments, cwd=None, **extra):
    done = subprocess.run([str(command), *map(str, arguments)], cwd=cwd, env=environment(**extra), text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=SECONDS_MAX)
    return Run(done.returncode, done.stdout, done.stderr)


class Workbench:
    """Writes LeNet's files into a folder and trains with them."""

    def __init__(self, poseidon, digits, folder):
        self.poseidon = poseidon
        self.digits = digits
        self.folder = folder
        self.count = 0

    def net(self, batch, name="net.prototxt", edit=lambda text: text):
        """The example's net with this batch per worker and the test's data bases; `edit` changes its text further."""
        text = EXAMPLE_NET.read_text()
        text, batches = re.subn(r"batch_size: 64", f"batch_size: {batch}", text)
        text, sources = re.subn(r'"examples/digits/digits_', f'"{self.digits}/digits_', text)
        assert batches == 1 and sources == 2, "the example's net has changed; change this with it"
        path = self.folder / name
        path.write_text(edit(text))
        return path

    def solver(self, net, name="solver.prototxt", test=False, **settings):
        """The example's solver on `net`, with other or further settings (None: without it), and without tests unless asked for."""
        text = EXAMPLE_SOLVER.read_text()
        settings = {"net": f'"{net}"', "snapshot": 0, "snapshot_after_train": "false", "display": 0,
                    "snapshot_prefix": f'"{self.folder}/snapshots/lenet"', **settings}
        if not test:
            settings = {"test_iter": None, "test_interval": None, **settings}
        for field, value in settings.items():
            text = re.sub(rf"(?m)^{field}:.*\n", "", text)
            if value is not None:
                text += f"{field}: {value}\n"
        path = self.folder / name
        path.write_text(text)
        return path

    def arguments(self, solver, workers, *flags):
        self.count += 1
        return ["train", "--solver", solver, "--workers", workers, "--run-folder", self.folder / f"run-{self.count}", *flags]

    def train(self, solver, workers, *flags, code=0):
        """A training that must end with `code`; with its report, if it wrote one."""
        arguments = self.arguments(solver, workers, *flags)
        report = self.folder / f"report-{self.count}.json"
        done = run(self.poseidon, *arguments, "--report", report, cwd=self.folder).expect(code)
        if report.exists():
            done.report = json.loads(report.read_text())
        return done

    @property
    def run_folder(self):
        """Of the last training."""
        return self.folder / f"run-{self.count}"


def losses(done):
    """[loss of iteration 0, 1, ...]"""
    told = done.report["train_loss"]
    assert [iteration for iteration, _ in told] == list(range(told[0][0], told[0][0] + len(told)))
    return [loss for _, loss in told]
