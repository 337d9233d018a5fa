"""The self-check: do shaped links carry what they should, in both directions at once, and is nothing left behind?"""
import json
import subprocess
import sys
import threading

from . import netns, units
from .processes import Failed, call

RATE = 100 * 10**6
BYTES = 10 * 10**6
# What TCP reaches of its share of a link. The upper end leaves room for the two buckets, which are full when a stream begins, and
# for the receiver's clock: it reads some segments late and some in time.
LEAST, MOST = 0.85, 1.005

_RECEIVE = """
import socket, sys, time
address, skipped_bytes = sys.argv[1], int(sys.argv[2])
with socket.create_server((address, 5201)) as server:
    print("ready", flush=True)
    stream, _ = server.accept()
    received, first, begin = 0, 0, 0.0
    while data := stream.recv(1 << 20):
        received += len(data)
        if not begin and received >= skipped_bytes:
            first, begin = received, time.monotonic()
        end = time.monotonic()
print(received, (received - first) * 8 / (end - begin))
"""
_SEND = """
import socket, sys
with socket.create_connection((sys.argv[1], 5201), timeout=10) as stream:
    stream.settimeout(60)
    stream.sendall(bytes(int(sys.argv[2])))
"""


def _state():
    """What the kernel and /etc hold of links and namespaces, to compare before with after."""
    links = sorted(link["ifname"] for link in json.loads(call("ip", "-j", "link")))
    return links, call("ip", "netns", "list").split(), netns.leftovers(), netns._NETNS_FILES.exists()


def _stream(sender, receiver, rates):
    """Sends BYTES from one host to another; appends the receiver's rate in bits per second."""
    # The first MB fills the buckets and lets TCP find the rate.
    server = subprocess.Popen([*receiver.prefix, sys.executable, "-c", _RECEIVE, receiver.address, str(10**6)], text=True,
                              stdout=subprocess.PIPE)
    try:
        if server.stdout.readline().strip() != "ready":
            raise Failed(f"host {receiver.rank} cannot listen on {receiver.address}")
        subprocess.run([*sender.prefix, sys.executable, "-c", _SEND, receiver.address, str(BYTES)], check=True, timeout=90)
        received, rate = server.communicate(timeout=30)[0].split()
        if int(received) != BYTES:
            raise Failed(f"host {receiver.rank} received {received} of {BYTES} bytes")
        rates.append(float(rate))
    finally:
        server.kill()
        server.wait()


def run():
    """Prints what it finds; returns whether all is well."""
    before = _state()
    failures = []
    with netns.Cluster(nodes=2, rate=RATE) as cluster:
        rates = {}
        pairs = [(cluster.hosts[0], cluster.hosts[1]), (cluster.hosts[1], cluster.hosts[0])]
        threads = [threading.Thread(target=_stream, args=(a, b, rates.setdefault(f"{a.rank} to {b.rank}", []))) for a, b in pairs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wire_bytes = cluster.received_bytes()
    for direction, found in rates.items():
        share = found[0] / (RATE * units.TCP_SHARE) if found else 0.0
        good = LEAST <= share <= MOST
        payload = share * RATE * units.TCP_SHARE / 1e6
        print(f"host {direction}: {payload:.1f} Mbit/s of payload, {share:.3f} of what TCP can have of {units.format_rate(RATE)}: "
              f"{'good' if good else f'BAD, should be {LEAST} to {MOST}'}")
        failures += [] if good else [direction]
    # 10 MB in full frames, and a few acknowledgements of the other direction.
    for rank, count in enumerate(wire_bytes):
        ratio = count * units.TCP_SHARE / BYTES
        good = 0.995 <= ratio <= 1.05
        print(f"host {rank}: the shaper counted {count} bytes, {ratio:.3f} of the frames of {BYTES} bytes: "
              f"{'good' if good else 'BAD'}")
        failures += [] if good else [f"count {rank}"]
    clean = _state() == before
    print(f"left behind: {'nothing' if clean else f'BAD: before {before}, after {_state()}'}")
    return clean and not failures
