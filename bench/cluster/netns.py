"""Hosts with shaped links, as network namespaces on one Linux bridge.

    with Cluster(nodes=4, rate=10**9) as cluster:
        subprocess.run(cluster.hosts[0].prefix + ["ping", "-c1", cluster.hosts[1].address])

Host r is a namespace with one veth link, `eth0` inside, to the bridge. A token bucket inside shapes what it sends, one on the
bridge's side of the pair what it receives. The bridge has an address of its own, so the process that makes the cluster can
coordinate it. All names begin with psd<pid>-, so runs do not disturb each other, and the leftovers of a killed one can be told from
the hosts of one that lives.
"""
import dataclasses
import ipaddress
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import tempfile
import time

from .processes import Failed, call, signals_held

_NAME = re.compile(r"psd(\d+)-(br|p\d+|h\d+|run-.*)")
_NETNS_FILES = pathlib.Path("/etc/netns")
_FIRST_HOST = 10  # the last byte of host 0's address; .1 is the bridge
NODES_MAX = 64

# One 64 KiB segment, which the kernel hands to the shaper as one packet, with the headers of its 46 frames. A smaller bucket makes
# tbf cut it in software.
_SEGMENT_BYTES = 72 * 1024
# With 1 ms of line rate a shaper falls behind whenever the CPU is busy for longer: 744 instead of 957 Mbit/s of a 1 Gbit/s link.
_BURST_SECONDS = 0.004
# The buffer of a switch's port. Bytes in flight are not dilated, so neither is this; too small a buffer would drop when several
# hosts send to one, and TCP's timeouts, which are not dilated either, would count for more than in truth.
_QUEUE_BYTES = 4 << 20


@dataclasses.dataclass(frozen=True)
class Host:
    """One namespace. A command runs on it with `prefix` before it."""
    rank: int
    namespace: str
    port: str  # the bridge's end of its link
    address: str

    @property
    def prefix(self):
        return ["ip", "netns", "exec", self.namespace]


class Cluster:
    """`nodes` hosts whose links carry `rate` bits per second in each direction. Needs root. Nothing is left after the block."""

    def __init__(self, nodes, rate, congestion_control="cubic"):
        if not 1 <= nodes <= NODES_MAX:
            raise ValueError(f"a cluster has 1 to {NODES_MAX} nodes, not {nodes}")
        self.rate = rate
        # The kernel's default differs from host to host (bbr paces with timers), and a result should not.
        self.congestion_control = congestion_control
        self.name = f"psd{os.getpid()}"
        self.bridge = f"{self.name}-br"
        network = _free_network(os.getpid())
        self.network = str(network)
        self.prefix_length = network.prefixlen
        self.bridge_address = str(network[1])
        self.hosts = [Host(r, f"{self.name}-h{r}", f"{self.name}-p{r}", str(network[_FIRST_HOST + r])) for r in range(nodes)]

    @property
    def start_pattern(self):
        """The prefix of a command on host {rank}, for launchers that fill in the rank themselves."""
        return f"ip netns exec {self.name}-h{{rank}}"

    def __enter__(self):
        try:
            self._make_bridge()
            for host in self.hosts:
                self._make_host(host)
        except BaseException:
            remove(self.name)
            raise
        return self

    def __exit__(self, *_exception):
        remove(self.name)

    def _make_bridge(self):
        call("ip", "link", "add", self.bridge, "type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0")
        call("sysctl", "-qw", f"net.ipv6.conf.{self.bridge}.disable_ipv6=1", check=False)
        call("ip", "address", "add", f"{self.bridge_address}/{self.prefix_length}", "dev", self.bridge)
        call("ip", "link", "set", self.bridge, "up")

    def _make_host(self, host):
        self._write_hosts_file(host)
        call("ip", "netns", "add", host.namespace)
        call("ip", "link", "add", host.port, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        call("ip", "link", "set", host.port, "master", self.bridge, "up")
        # Neighbour discovery would be traffic that nobody asked for; a kernel without IPv6 has nothing to turn off.
        call("sysctl", "-qw", f"net.ipv6.conf.{host.port}.disable_ipv6=1", check=False)
        call(*host.prefix, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", check=False)
        call("ip", "-n", host.namespace, "link", "set", "lo", "up")
        call("ip", "-n", host.namespace, "address", "add", f"{host.address}/{self.prefix_length}", "dev", "eth0")
        call("ip", "-n", host.namespace, "link", "set", "eth0", "up")
        # By the route and not by the namespace's own setting, which takes only what the machine allows to everybody: that list is
        # not ours to change.
        call("ip", "-n", host.namespace, "route", "replace", self.network, "dev", "eth0", "src", host.address, "congctl",
             self.congestion_control)
        burst = max(_SEGMENT_BYTES, int(self.rate / 8 * _BURST_SECONDS))
        shaper = ["root", "tbf", "rate", f"{self.rate}bit", "burst", str(burst), "limit", str(burst + _QUEUE_BYTES)]
        call("tc", "-n", host.namespace, "qdisc", "add", "dev", "eth0", *shaper)
        call("tc", "qdisc", "add", "dev", host.port, *shaper)

    def _write_hosts_file(self, host):
        """`ip netns exec` shows this in place of /etc/hosts: programs that ask for their own host's name get their own address,
        and those that ask for the name of a peer need not wait for a name server that cannot be reached."""
        folder = _NETNS_FILES / host.namespace
        folder.mkdir(parents=True)
        names = [f"{other.address} {other.namespace}" for other in self.hosts if other != host]
        lines = ["127.0.0.1 localhost", f"{host.address} {host.namespace} {socket.gethostname()}", *names]
        (folder / "hosts").write_text("\n".join(lines) + "\n")

    def received_bytes(self):
        """Bytes with all headers that the shapers have let through to each host so far, in the order of ranks.

        A link's own counters take a 64 KiB segment for one packet and miss the headers of its frames; the shaper's do not.
        """
        by_port = {q["dev"]: q for q in json.loads(call("tc", "-s", "-j", "qdisc", "show")) if q["kind"] == "tbf"}
        return [by_port[host.port]["bytes"] for host in self.hosts]

    def dropped_packets(self):
        """Packets that found the queue before a receiver full, over all hosts."""
        ports = {host.port for host in self.hosts}
        return sum(q["drops"] for q in json.loads(call("tc", "-s", "-j", "qdisc", "show")) if q["dev"] in ports)


def _free_network(seed):
    """A /24 of 10.213.0.0/16 that overlaps no address and no route of this machine."""
    used = [ipaddress.ip_interface(f"{a['local']}/{a['prefixlen']}").network
            for link in json.loads(call("ip", "-j", "-4", "address")) for a in link["addr_info"]]
    for route in json.loads(call("ip", "-j", "-4", "route", "show", "table", "all")):
        if route["dst"] != "default":
            used.append(ipaddress.ip_network(route["dst"], strict=False))
    candidates = list(ipaddress.ip_network("10.213.0.0/16").subnets(new_prefix=24))
    first = seed % len(candidates)
    for network in candidates[first:] + candidates[:first]:
        if not any(network.overlaps(other) for other in used):
            return network
    raise Failed("no /24 of 10.213.0.0/16 is free on this machine")


def remove(name):
    """Takes away everything of the cluster called `name`, in whatever state it is; what is not there is no error."""
    with signals_held():
        namespaces = [n for n in _namespaces() if n.startswith(f"{name}-")]
        _end_processes(namespaces)
        # Links first: a namespace goes when its last user has gone, some time after its name, and would take its end of the pair
        # with it only then.
        for link in _links():
            if link.startswith(f"{name}-"):
                call("ip", "link", "delete", link, check=False)
        for namespace in namespaces:
            call("ip", "netns", "delete", namespace, check=False)
        for folder in _NETNS_FILES.glob(f"{name}-h*"):
            shutil.rmtree(folder, ignore_errors=True)
        if _NETNS_FILES.is_dir() and not any(_NETNS_FILES.iterdir()):
            _NETNS_FILES.rmdir()


def _end_processes(namespaces):
    """Kills what runs in these namespaces, and waits until it has gone."""
    deadline = time.monotonic() + 10
    for namespace in namespaces:
        while time.monotonic() < deadline:
            pids = [int(pid) for pid in call("ip", "netns", "pids", namespace, check=False).split()]
            if not pids:
                break
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.05)


def _scratch_folders(name):
    return pathlib.Path(tempfile.gettempdir()).glob(f"{name}-run-*")


def scratch_folder():
    """A folder for the files of one run, to be used in a `with` statement; `remove_leftovers` takes away that of a killed one."""
    return tempfile.TemporaryDirectory(prefix=f"psd{os.getpid()}-run-")


def _namespaces():
    # Without JSON: for no namespace at all `ip -j` prints nothing.
    return [line.split()[0] for line in call("ip", "netns", "list").splitlines() if line.strip()]


def _links():
    return [link["ifname"] for link in json.loads(call("ip", "-j", "link") or "[]")]


def leftovers():
    """Names of clusters (psd<pid>) whose maker no longer runs, and of those whose maker does: (dead, alive)."""
    folders = [folder.name for folder in [*_NETNS_FILES.glob("psd*"), *_scratch_folders("psd*")]]
    found = {match[1] for match in map(_NAME.fullmatch, _namespaces() + _links() + folders) if match}
    alive = {pid for pid in found if pathlib.Path("/proc", pid).exists()}
    return sorted(f"psd{pid}" for pid in found - alive), sorted(f"psd{pid}" for pid in alive)


def remove_leftovers(name):
    """Takes away all that a killed run has left: its cluster and its files."""
    remove(name)
    for folder in _scratch_folders(name):
        shutil.rmtree(folder, ignore_errors=True)
