"""Jobs that run while the test looks at them and interferes: their processes, and what they hold on this host.

Processes are found in /proc by POSEIDON_RUN_FOLDER, which the launcher gives to every worker and these to their readers of
data bases. So a test sees those of its own job and no others.
"""
import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import time

from support import job

# How often a condition is looked at. No test depends on it.
LOOK_EVERY_SECONDS = 0.02


def wait_for(condition, what, seconds=60):
    """The first true value of condition(); fails after so long."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        time.sleep(LOOK_EVERY_SECONDS)


@dataclasses.dataclass(frozen=True)
class Process:
    pid: int
    started: str  # in clock ticks since boot; with it a number that was given away anew is not mistaken for the old process
    program: str  # the name of its file
    rank: int     # of the worker that it is or reads for; a dedicated server's number
    serves: bool  # it is a dedicated server

    def signal(self, number):
        os.kill(self.pid, number)

    def lives(self):
        stat = _stat(self.pid)
        return stat is not None and stat[19] == self.started and lives(self.pid)


def _stat(pid):
    """[state, parent, ...] of a process; nothing where there is none."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def lives(pid):
    """Whether it still holds anything. What has died and waits to be collected does not, but a process of which only the first
    thread has ended does: the others keep its sockets and memory until they have ended too."""
    stat = _stat(pid)
    if stat is None:
        return False
    if stat[0] not in "ZX":
        return True
    try:
        return len(os.listdir(f"/proc/{pid}/task")) > 1
    except OSError:
        return False  # collected meanwhile


def _environment(pid):
    try:
        entries = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(os.fsdecode(entry).split("=", 1) for entry in entries if b"=" in entry)


def of_job(run_folder):
    """The living workers, dedicated servers and readers of the job with this run folder."""
    found = []
    for folder in pathlib.Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        environment = _environment(folder.name)
        stat = _stat(folder.name)
        if environment.get("POSEIDON_RUN_FOLDER") != str(run_folder) or stat is None or not lives(folder.name):
            continue
        with contextlib.suppress(OSError):  # it has ended meanwhile
            program = pathlib.Path(os.readlink(folder / "exe")).name
            found.append(Process(int(folder.name), stat[19], program, int(environment["POSEIDON_RANK"]),
                                 environment.get("POSEIDON_ROLE") == "server"))
    return found


@dataclasses.dataclass
class Holdings:
    """What processes hold that could be left behind."""
    sockets: set        # inodes of listening TCP sockets
    shared_memory: set  # files in /dev/shm

    @classmethod
    def of(cls, pids):
        holdings = cls(set(), set())
        for pid in pids:
            names = set()
            with contextlib.suppress(OSError):
                for entry in pathlib.Path(f"/proc/{pid}/fd").iterdir():
                    with contextlib.suppress(OSError):
                        names.add(os.readlink(entry))
                for line in pathlib.Path(f"/proc/{pid}/maps").read_text().splitlines():
                    names.add(line.split(maxsplit=5)[-1])
            holdings.sockets |= {name[len("socket:["):-1] for name in names if name.startswith("socket:[")} & listening()
            holdings.shared_memory |= {name for name in names if name.startswith("/dev/shm/")}
        return holdings

    def left(self):
        return sorted(self.sockets & listening()) + sorted(name for name in self.shared_memory if os.path.exists(name))


def listening():
    """Inodes of all TCP sockets of this host that listen."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            rows = pathlib.Path(f"/proc/net/{table}").read_text().splitlines()[1:]
            inodes |= {row.split()[9] for row in rows if row.split()[3] == "0A"}
    return inodes


class LiveJob:
    """`poseidon train` in a group of processes of its own, as a shell starts it. Use it in a `with`: nothing outlives that."""

    def __init__(self, lenet, solver, workers, *flags, **environment):
        self.workers = workers
        arguments = lenet.arguments(solver, workers, *flags)
        self.run_folder = lenet.run_folder
        self.report_file = lenet.folder / f"report-{lenet.count}.json"
        # Where the job's secret goes; alone there, so that it is easy to see whether it is gone.
        self.secrets = lenet.folder / f"secrets-{lenet.count}"
        self.secrets.mkdir()
        self.out = lenet.folder / f"out-{lenet.count}"
        self.err = lenet.folder / f"err-{lenet.count}"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                [str(word) for word in (lenet.poseidon, *arguments, "--report", self.report_file)], cwd=lenet.folder, stdout=out,
                stderr=err, stdin=subprocess.DEVNULL, start_new_session=True,
                env=job.environment(XDG_RUNTIME_DIR=str(self.secrets), **environment))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pid in [self.process.pid, *(process.pid for process in of_job(self.run_folder))]:
            if self.process.poll() is None or pid != self.process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=10)

    def wait_for(self, condition, what, seconds=60):
        """As wait_for, but fails at once where the job has ended."""
        def look():
            value = condition()
            assert value or self.process.poll() is None, f"the job ended instead of {what}: {self.err.read_text()}"
            return value
        return wait_for(look, what, seconds)

    def wait_for_iteration(self, iteration):
        """Until the line of this iteration, or a later one, is on the screen. The solver must have `display: 1`."""
        def reached():
            first_words = [line.split()[0] for line in self.out.read_text().splitlines() if line.split()]
            return any(word.isdigit() and int(word) >= iteration for word in first_words)
        self.wait_for(reached, f"iteration {iteration}")
        return self

    def worker_processes(self):
        """By rank."""
        return {process.rank: process for process in of_job(self.run_folder) if process.program == "poseidon" and not process.serves}

    def server_processes(self):
        """Dedicated ones, by number."""
        return {process.rank: process for process in of_job(self.run_folder) if process.serves}

    def readers(self):
        """By rank; those of a training without tests, where each worker has one."""
        return {process.rank: process for process in of_job(self.run_folder) if process.program != "poseidon"}

    def holdings(self):
        return Holdings.of([self.process.pid, *(process.pid for process in of_job(self.run_folder))])

    def signal(self, number):
        """To the launcher alone."""
        self.process.send_signal(number)

    def signal_group(self, number):
        """To all processes, as a terminal does."""
        os.killpg(self.process.pid, number)

    def wait_until_taken(self, number):
        """Until the launcher has taken a signal that was sent to it: a second one would otherwise melt into the first."""
        def taken():
            status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
            pending = next(line for line in status.splitlines() if line.startswith("ShdPnd:"))
            return not int(pending.split()[1], 16) & 1 << (number - 1)
        self.wait_for(taken, f"the launcher to take signal {number}")

    def end(self, seconds):
        """How the job ended, which must be within so long."""
        code = self.process.wait(timeout=seconds)
        return job.Run(code, self.out.read_text(), self.err.read_text())

    def expect_nothing_left(self, holdings, seconds=0):
        """No process, no socket, no secret, within so long. The launcher's own promise is: none when it has ended."""
        wait_for(lambda: not of_job(self.run_folder), f"the end of {of_job(self.run_folder)}", seconds)
        assert holdings.left() == []
        assert list(self.secrets.iterdir()) == []
        assert list(self.run_folder.glob("*.error")) == []
