"""torch.distributed over the back end `poseidon`: every operation against what each rank works out by itself, and DDP against one process."""
import re
import subprocess
import sys

import torch

PRELUDE = """
import os, sys
import torch
import torch.distributed as dist
rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
dist.init_process_group("poseidon")
assert dist.get_backend() == "poseidon" and dist.get_rank() == rank and dist.get_world_size() == size
# What every rank has, so that each can work out what ought to come.
def given(shape, salt, dtype=torch.float64):
    values = [torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1000 * salt + r)) for r in range(size)]
    return [(20 * value).round().to(dtype) if not dtype.is_floating_point else value.to(dtype) for value in values]
"""


def run(poseidon, folder, text, workers, *flags):
    (folder / "script.py").write_text(PRELUDE + text)
    return subprocess.run([poseidon, "run", "-n", str(workers), "-o", "out", *flags, sys.executable, "script.py"], cwd=folder, capture_output=True,
                          text=True, timeout=120)


def good(poseidon, folder, text, workers=3, *flags):
    done = run(poseidon, folder, text, workers, *flags)
    assert done.returncode == 0, done.stderr
    return done


def test_reductions_are_sums_in_the_order_of_ranks(poseidon, tmp_path):
    good(poseidon, tmp_path, """
def in_order(values, what):
    result = values[0].clone()
    for value in values[1:]: result = what(result, value)
    return result
kinds = {dist.ReduceOp.SUM: torch.add, dist.ReduceOp.PRODUCT: torch.mul, dist.ReduceOp.MIN: torch.minimum, dist.ReduceOp.MAX: torch.maximum}
salt = 0
for shape in ((), (1,), (7,), (3, 5), (50_001,), (300, 700)):
    for operation, what in kinds.items():
        for dtype in (torch.float32, torch.float64, torch.int64):
            salt += 1
            values = given(shape, salt, dtype)
            own = values[rank].clone()
            dist.all_reduce(own, operation)
            assert torch.equal(own, in_order(values, what)), (shape, operation, dtype)
    values = given(shape, 500 + len(shape))
    own = values[rank].clone()
    dist.all_reduce(own, dist.ReduceOp.AVG)
    assert torch.equal(own, in_order(values, torch.add) / size)
    own = values[rank].clone()
    dist.reduce(own, 1)
    assert torch.equal(own, in_order(values, torch.add) if rank == 1 else values[rank])
for dtype in (torch.bfloat16, torch.float16):  # summed in single precision, rounded once
    values = given((40_000,), 900, dtype)
    own = values[rank].clone()
    dist.all_reduce(own)
    assert torch.equal(own, in_order([value.float() for value in values], torch.add).to(dtype))
    own = values[rank].clone()
    dist.all_reduce(own, dist.ReduceOp.MAX)
    assert torch.equal(own, in_order(values, torch.maximum))
bits = [torch.tensor([r + 1, 12 * r], dtype=torch.int32) for r in range(size)]
for operation, what in ((dist.ReduceOp.BAND, torch.bitwise_and), (dist.ReduceOp.BOR, torch.bitwise_or), (dist.ReduceOp.BXOR, torch.bitwise_xor)):
    own = bits[rank].clone()
    dist.all_reduce(own, operation)
    assert torch.equal(own, in_order(bits, what))
# Memory with gaps, and a tensor that requires gradients.
values = given((60, 80), 77)
own = values[rank].clone().t()
dist.all_reduce(own)
assert torch.equal(own, in_order(values, torch.add).t())
parameter = torch.nn.Parameter(values[rank].clone())
dist.all_reduce(parameter.data)
assert torch.equal(parameter, in_order(values, torch.add))
# Several under way at once, waited for in another order.
values = [given((30_000,), 80 + i) for i in range(4)]
own = [value[rank].clone() for value in values]
works = [dist.all_reduce(one, async_op=True) for one in own]
for work in reversed(works): work.wait()
for one, value in zip(own, values): assert torch.equal(one, in_order(value, torch.add))
""", 3)


def test_what_is_moved_is_moved(poseidon, tmp_path):
    good(poseidon, tmp_path, """
for shape in ((1,), (5, 3), (40_001,), (200, 301)):
    values = given(shape, 1)
    for root in range(size):
        own = values[rank].clone()
        dist.broadcast(own, root)
        assert torch.equal(own, values[root])
    gathered = [torch.empty(shape, dtype=torch.float64) for _ in range(size)]
    dist.all_gather(gathered, values[rank])
    assert all(torch.equal(a, b) for a, b in zip(gathered, values))
    if shape != (1,):
        joined = torch.empty(size * shape[0], *shape[1:], dtype=torch.float64)
        dist.all_gather_into_tensor(joined, values[rank])
        assert torch.equal(joined, torch.cat(values))
    gathered = [torch.empty(shape, dtype=torch.float64) for _ in range(size)] if rank == 2 else None
    dist.gather(values[rank], gathered, dst=2)
    assert rank != 2 or all(torch.equal(a, b) for a, b in zip(gathered, values))
    own = torch.empty(shape, dtype=torch.float64)
    dist.scatter(own, values if rank == 1 else None, src=1)
    assert torch.equal(own, values[rank])
    tables = [given(shape, 10 + r) for r in range(size)]  # tables[r]: what r has for each
    own = torch.empty(shape, dtype=torch.float64)
    dist.reduce_scatter(own, tables[rank])
    assert torch.equal(own, (tables[0][rank] + tables[1][rank]) + tables[2][rank])
    own = torch.empty(shape, dtype=torch.float64)
    dist.reduce_scatter_tensor(own, torch.stack(tables[rank]) if shape == (1,) else torch.cat(tables[rank]))
    assert torch.equal(own, (tables[0][rank] + tables[1][rank]) + tables[2][rank])
    outputs = [torch.empty(shape, dtype=torch.float64) for _ in range(size)]
    dist.all_to_all(outputs, tables[rank])
    assert all(torch.equal(outputs[r], tables[r][rank]) for r in range(size))
# Unequal parts: r gives q so many rows: r + q.
table = [[torch.full((r + q, 2), 10.0 * r + q) for q in range(size)] for r in range(size)]
output = torch.empty(sum(r + rank for r in range(size)), 2)
dist.all_to_all_single(output, torch.cat(table[rank]), [r + rank for r in range(size)], [rank + q for q in range(size)])
assert torch.equal(output, torch.cat([table[r][rank] for r in range(size)]))
things = [None] * size
dist.all_gather_object(things, {"rank": rank, "text": "x" * (1 + 50 * rank)})
assert [thing["rank"] for thing in things] == list(range(size)) and len(things[2]["text"]) == 101
things = ["seen by all" if rank == 0 else None]
dist.broadcast_object_list(things)
assert things == ["seen by all"]
dist.barrier()
""", 3)


def test_two_workers_by_themselves_and_groups_of_some(poseidon, tmp_path):
    good(poseidon, tmp_path, """
right, left = (rank + 1) % size, (rank - 1) % size
for numel in (0, 1, 100_000):
    values = given((numel,), 3)
    got = torch.empty(numel, dtype=torch.float64)
    works = [dist.isend(values[rank], right), dist.irecv(got, left)]  # all send first: nobody waits for another's receive
    for work in works: work.wait()
    assert torch.equal(got, values[left])
if rank == 0:  # by tags, in another order than they are received
    first, second = dist.isend(torch.tensor([1.0]), 1, tag=1), dist.isend(torch.tensor([2.0]), 1, tag=2)
    first.wait(), second.wait()
if rank == 1:
    got = torch.empty(1)
    dist.recv(got, 0, tag=2)
    assert got.item() == 2
    dist.recv(got, 0, tag=1)
    assert got.item() == 1
even, odd = dist.new_group([0, 2]), dist.new_group([1, 3])
own = torch.tensor([1.0 + rank])
dist.all_reduce(own, group=even if rank % 2 == 0 else odd)
assert own.item() == (4 if rank % 2 == 0 else 6)
own = torch.full((20_000,), 1.0 + rank)
if rank % 2 == 1: dist.broadcast(own, 3, group=odd)
dist.all_reduce(own)
assert own[0].item() == 1 + 4 + 3 + 4
""", 4)


def test_ddp_of_a_script_runs_over_the_links_of_the_job_and_computes_what_one_process_does(poseidon, tmp_path):
    """Written for gloo, as its users do."""
    (tmp_path / "ddp.py").write_text("""
import os, sys
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
torch.set_default_dtype(torch.float64)
parts = int(os.environ.get("WORLD_SIZE", 1))
if parts > 1:
    dist.init_process_group("gloo")
    assert dist.get_backend() == "poseidon"
rank = dist.get_rank() if parts > 1 else 0
torch.manual_seed(5)
x, y = torch.randn(96, 20), torch.randint(0, 4, (96,))
torch.manual_seed(5 if rank == 0 else 99)  # DDP gives rank 0's values to all
model = nn.Sequential(nn.Linear(20, 200), nn.Tanh(), nn.Linear(200, 4))
trained = DistributedDataParallel(model, bucket_cap_mb=0.02) if parts > 1 else model
optimizer = torch.optim.Adam(trained.parameters(), lr=0.01)
for step in range(20):
    batch = torch.arange(step * 12, step * 12 + 12) % 96
    own = batch.chunk(parts)[rank]
    optimizer.zero_grad()
    F.cross_entropy(trained(x[own]), y[own]).backward()
    optimizer.step()
if rank == 0: torch.save(model.state_dict(), sys.argv[1])
""")
    subprocess.run([sys.executable, "ddp.py", "one.pt"], cwd=tmp_path, check=True, timeout=300)
    done = subprocess.run([poseidon, "run", "-n", "3", "-o", "out", sys.executable, "ddp.py", "three.pt"], cwd=tmp_path, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr
    assert "this script is data-parallel by itself" in done.stderr and "over the back end poseidon instead of gloo" in done.stderr
    one, three = torch.load(tmp_path / "one.pt"), torch.load(tmp_path / "three.pt")
    for name, value in one.items():
        assert (three[name] - value).abs().max() < 1e-10, name


def test_operations_that_do_not_match_end_the_job_with_a_sentence(poseidon, tmp_path):
    done = run(poseidon, tmp_path, "own = torch.zeros(10 + 5 * rank)\ndist.all_reduce(own)\n", 2)
    assert done.returncode != 0
    assert "the workers do not call the same collective operations with tensors of the same sizes" in done.stderr


def test_a_worker_that_dies_in_an_operation_ends_it_for_all(poseidon, tmp_path):
    done = run(poseidon, tmp_path, "import signal\nif rank == 1: os.kill(os.getpid(), signal.SIGKILL)\ndist.all_reduce(torch.zeros(100_000))\n", 3)
    assert done.returncode != 0
    assert re.search(r"rank 1\b.*signal 9", done.stderr), done.stderr


def test_a_script_that_is_trained_by_poseidon_may_sum_and_send_by_itself(poseidon, tmp_path):
    (tmp_path / "script.py").write_text("""
import torch, torch.nn.functional as F
import poseidon.torch as ps
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
torch.manual_seed(0)
model = nn.Linear(6, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
seen = torch.zeros(1)
for a, b in DataLoader(TensorDataset(torch.randn(48, 6), torch.randint(0, 3, (48,))), batch_size=12):
    optimizer.zero_grad()
    F.cross_entropy(model(a), b).backward()
    optimizer.step()
    seen += len(b)
assert ps.all_reduce(seen).item() == 48
assert ps.all_reduce(torch.tensor([1.0 + ps.rank()]), "max").item() == ps.size()
assert ps.all_reduce(torch.tensor([1.0 + ps.rank()]), "mean").item() == (1 + ps.size()) / 2
assert ps.broadcast(torch.tensor([ps.rank()]), ps.size() - 1).item() == ps.size() - 1
""")
    for workers in (1, 3):
        done = subprocess.run([poseidon, "run", "-n", str(workers), "-o", "out", sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True,
                              timeout=300)
        assert done.returncode == 0, done.stderr
