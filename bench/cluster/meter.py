"""What a run costs: the CPU of the whole machine, who used it, and the bytes on each link, sampled while it lasts."""
import bisect
import contextlib
import dataclasses
import os
import threading
import time

# Iterations last from a second up; a sample costs about 3 ms of CPU.
_INTERVAL_SECONDS = 0.5
IDLE_SHARE = 0.05  # what a machine without work stays below
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Sample:
    when: float        # time.monotonic()
    busy: float        # CPU seconds since boot, over all cores: everything but idle and waiting for disks
    others: float      # CPU seconds of programs that do not belong to the run
    stolen: float      # CPU seconds since boot that the hypervisor gave to other machines
    links: float       # CPU seconds since boot of the kernel's threads that carry packets
    received: tuple    # bytes with all headers let through to each host


@dataclasses.dataclass(frozen=True)
class Window:
    """What happened between two moments."""
    seconds: float
    cpu_share: float       # of all cores; traffic is partly handled in interrupts, which no process is charged for
    cpu_share_peak: float  # the busiest two seconds or so
    cpu_share_elsewhere: float  # what programs that do not belong to the run used
    cpu_share_stolen: float     # what the hypervisor gave to other machines: it was not there for the run either
    cpu_share_links: float  # what kernel threads needed to carry packets between the hosts: part of the run, in no process of it
    received: tuple        # bytes per host


def _machine_seconds():
    """(busy, stolen): CPU seconds since boot of everything, and of these what the hypervisor gave to other machines."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_SECOND, steal / _TICKS_PER_SECOND


def _processes():
    """{pid: (its name, its parent, its clock ticks)}; what its children needed that have ended counts as its own."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry.name}/stat") as stat:  # it may have ended by now
                head, _, rest = stat.read().rpartition(")")
                fields = rest.split()
                found[int(entry.name)] = head.partition("(")[2], int(fields[1]), sum(map(int, fields[11:15]))
    return found


def _others_and_links_seconds():
    """CPU seconds of all programs that are not this one's descendants, and of the kernel's threads that carry packets."""
    processes = _processes()
    own = {os.getpid()}
    # A child may have a lower number than its parent once numbers have begun anew, so this goes on until nothing is added.
    while more := {pid for pid, (_, parent, _) in processes.items() if parent in own and pid not in own}:
        own |= more
    # ksoftirqd: one for each core, which does what interrupts leave over; that is what the shaped links give it.
    packets = {pid for pid, (name, _, _) in processes.items() if name.startswith("ksoftirqd/")}
    others = sum(ticks for pid, (_, _, ticks) in processes.items() if pid not in own | packets)
    return others / _TICKS_PER_SECOND, sum(processes[pid][2] for pid in packets) / _TICKS_PER_SECOND


def cpu_share_now(seconds=3.0):
    """How busy the machine is with other things, before a run begins."""
    busy, begin = _machine_seconds()[0], time.monotonic()
    time.sleep(seconds)
    return (_machine_seconds()[0] - busy) / (time.monotonic() - begin) / os.cpu_count()


def wait_for_idle(seconds):
    """Waits until nothing else keeps the machine busy, but no longer than `seconds`; returns how busy it is then."""
    deadline = time.monotonic() + seconds
    share = cpu_share_now()
    if share > IDLE_SHARE and seconds > 0:
        print(f"    waits for up to {seconds:.0f} s: something else keeps {share:.0%} of the CPU busy", flush=True)
    while share > IDLE_SHARE and time.monotonic() < deadline:
        share = cpu_share_now()
    if share > IDLE_SHARE:
        print(f"    something else keeps {share:.0%} of the CPU busy", flush=True)
    return share


class Meter:
    """Samples in a thread of its own while the `with` block lasts."""

    def __init__(self, cluster):
        self._cluster = cluster
        self._samples = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_exception):
        self._ended.set()
        self._thread.join()

    def _run(self):
        while not self._ended.wait(_INTERVAL_SECONDS):
            self._sample()
        self._sample()

    def _sample(self):
        when = time.monotonic()
        busy, stolen = _machine_seconds()
        others, links = _others_and_links_seconds()
        self._samples.append(Sample(when, busy, others, stolen, links, tuple(self._cluster.received_bytes())))

    def _at(self, when):
        """The state at a moment, between the two samples around it."""
        index = bisect.bisect_left(self._samples, when, key=lambda s: s.when)
        if index == 0:
            return self._samples[0]
        if index == len(self._samples):
            return self._samples[-1]
        a, b = self._samples[index - 1], self._samples[index]
        part = (when - a.when) / (b.when - a.when)
        between = (getattr(a, name) + part * (getattr(b, name) - getattr(a, name)) for name in ("busy", "others", "stolen", "links"))
        return Sample(when, *between, tuple(x + part * (y - x) for x, y in zip(a.received, b.received)))

    def window(self, begin, end):
        """Call it after the `with` block."""
        first, last = self._at(begin), self._at(end)
        cores = os.cpu_count()
        inner = [first] + [s for s in self._samples if first.when < s.when < last.when] + [last]
        step = 4
        shares = [(b.busy - a.busy) / (b.when - a.when) / cores for a, b in zip(inner, inner[step:])]
        seconds = last.when - first.when
        whole, elsewhere, stolen, links = ((getattr(last, name) - getattr(first, name)) / seconds / cores
                                           for name in ("busy", "others", "stolen", "links"))
        return Window(seconds, whole, max(shares, default=whole), elsewhere, stolen, links,
                      tuple(y - x for x, y in zip(first.received, last.received)))

    def received_in_all(self):
        """Bytes per host over the whole run, start and end included. Call it after the `with` block."""
        return [y - x for x, y in zip(self._samples[0].received, self._samples[-1].received)]

    def last_traffic(self, least_bytes_per_second):
        """The moment after which no host received as much as this."""
        for a, b in reversed(list(zip(self._samples, self._samples[1:]))):
            if max(y - x for x, y in zip(a.received, b.received)) > least_bytes_per_second * (b.when - a.when):
                return b.when
        return self._samples[-1].when
