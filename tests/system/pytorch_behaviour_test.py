"""How scripts under `poseidon run` are treated beside their mathematics: what they are told, what they write, and how they end."""
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest
import torch

from support import processes

PRELUDE = """
import os, sys, time
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
rank = int(os.environ.get("RANK", 0))
torch.manual_seed(1)
x, y = torch.randn(64, 8), torch.randint(0, 3, (64,))
model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader = DataLoader(TensorDataset(x, y), batch_size=8)
def step(a, b):
    optimizer.zero_grad()
    F.cross_entropy(model(a), b).backward()
    optimizer.step()
"""


def run(poseidon, folder, text, workers=2, *flags, timeout=300):
    (folder / "script.py").write_text(PRELUDE + text)
    return subprocess.run([poseidon, "run", "-n", str(workers), "-o", "out", *flags, sys.executable, "script.py"], cwd=folder, capture_output=True, text=True,
                          timeout=timeout)


@pytest.mark.alone  # a failing script has seconds to end by itself, before its exit code is that of a signal
def test_a_rank_that_raises_is_shown_last(poseidon, tmp_path):
    done = run(poseidon, tmp_path, """
for number, (a, b) in enumerate(loader):
    if rank == 2 and number == 3:
        raise ValueError("the data is bad")
    step(a, b)
""", 3)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("ValueError: the data is bad")
    assert "rank 2 on localhost ended with exit code 1. The last that it wrote:\nTraceback" in done.stderr
    assert "the script of rank 2 ended with ValueError: the data is bad" in done.stderr
    for rank in (0, 1):
        log = (tmp_path / f"out/rank-0{rank}.log").read_text()
        assert f"poseidon: rank {rank} stops: " in log and "Traceback" not in log
    processes = json.loads((tmp_path / "out/run.json").read_text())["processes"]
    assert [process["ended"] for process in processes] == ["exit code 75", "exit code 75", "exit code 1"]


@pytest.mark.alone  # a failing script has seconds to end by itself, before its exit code is that of a signal
def test_an_exit_code_of_the_script_is_that_of_the_run(poseidon, tmp_path):
    done = run(poseidon, tmp_path, "for a, b in loader: step(a, b)\nif rank == 1: sys.exit(9)\nfor a, b in loader: step(a, b)\n")
    assert done.returncode == 9, done.stderr
    assert "the script of rank 1 ended with exit code 9" in done.stderr


def test_a_loop_that_ends_early_is_named(poseidon, tmp_path):
    done = run(poseidon, tmp_path, "for number, (a, b) in enumerate(loader):\n    if rank == 1 and number == 5: break\n    step(a, b)\n")
    assert done.returncode != 0
    assert re.search(r"rank 1 \(pid \d+ on .*\) has ended its work after 5 iterations, but this worker goes on with number 6", done.stderr), done.stderr


def test_a_setting_that_differs_is_named(poseidon, tmp_path):
    done = run(poseidon, tmp_path, "for number, (a, b) in enumerate(loader):\n    if rank == 1 and number == 4: optimizer.param_groups[0]['lr'] = 0.05\n    step(a, b)\n")
    assert done.returncode != 0
    assert "rank 1 has 0.05 as lr of group 0 of optimiser 0 (SGD), and rank 0 has 0.1: their steps would differ" in done.stderr


@pytest.mark.parametrize("loop, sentence", [
    # Rank 1 leaves out a step, then a whole batch, then an evaluation.
    ("for number, (a, b) in enumerate(loader):\n    optimizer.zero_grad(); F.cross_entropy(model(a), b).backward()\n    if (rank, number) != (1, 4): optimizer.step()\n",
     r"rank 1 has taken 4 steps of optimiser 0 \(SGD\), the latest at \S*script.py:20, and rank 0 5, the latest at \S*script.py:20: rank 1 has skipped a step"),
    ("for number, (a, b) in enumerate(loader):\n    if (rank, number) == (1, 4): continue\n    step(a, b)\n",
     r"rank 1 computes gradients of its batch 6 at \S*script.py:15 while rank 0 computes those of its batch 5 at \S*script.py:15: "
     "rank 1 has skipped a backward pass"),
    ("for number, (a, b) in enumerate(loader):\n    step(a, b)\nif rank == 1:\n    for a, b in loader: step(a, b)\nelse: model.train().eval()\n",
     r"rank 1 asks for the next batches at \S*script.py:21, where rank 0 makes its buffers equal at \S*script.py:22: the workers' scripts have parted"),
])
def test_ranks_that_part_are_named_with_their_places(poseidon, tmp_path, loop, sentence):
    done = run(poseidon, tmp_path, "model.append(nn.BatchNorm1d(3))\n" + loop)
    assert done.returncode != 0
    assert re.search(sentence, done.stderr), done.stderr


def test_a_sampler_may_draw_what_it_likes(poseidon, tmp_path):
    """Indices that are no numbers reach the data set as they were drawn."""
    done = run(poseidon, tmp_path, """
class Sized(torch.utils.data.Dataset):
    def __getitem__(self, index):
        place, kind = index
        assert isinstance(index, tuple) and kind == "small", index
        return x[place], y[place]
class Pairs(torch.utils.data.BatchSampler):
    def __iter__(self):
        for batch in super().__iter__(): yield [(place, "small") for place in batch]
loader = DataLoader(Sized(), batch_sampler=Pairs(range(64), 8, False), num_workers=1)
for a, b in loader: step(a, b)
print("taken", len(loader), "batches of", len(a))
""")
    assert done.returncode == 0, done.stderr
    assert "taken 8 batches of 4" in done.stdout


def test_batches_made_by_hand_are_told_of_and_can_be_cut(poseidon, tmp_path):
    done = run(poseidon, tmp_path, "for i in range(0, 64, 8): step(x[i:i + 8], y[i:i + 8])\n")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("this script makes its batches by hand, so every worker trains on ALL of each batch") == 1
    done = run(poseidon, tmp_path, "import poseidon.torch as ps\nfor i in range(0, 64, 8):\n    a, b = ps.shard((x[i:i + 8], y[i:i + 8]))\n"
                                   "    assert len(a) == 4\n    step(a, b)\n")
    assert done.returncode == 0, done.stderr
    assert "by hand" not in done.stderr


@pytest.mark.parametrize("flags, scaled, notices", [((), "{}", 1), ((), "ps.scale_loss({})", 0), (("--loss", "mean"), "{}", 0)])
def test_a_loss_that_is_reduced_by_hand_is_told_of(poseidon, tmp_path, flags, scaled, notices):
    done = run(poseidon, tmp_path, "import poseidon.torch as ps\nfor a, b in loader:\n    optimizer.zero_grad()\n    "
               f"{scaled.format('F.cross_entropy(model(a), b, reduction=' + repr('none') + ').mean()')}.backward()\n    optimizer.step()\n", 2, *flags)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("this script reduces a loss by itself") == notices, done.stderr


def test_rank_0_alone_writes(poseidon, tmp_path):
    done = run(poseidon, tmp_path, """
for a, b in loader: step(a, b)
os.makedirs("results/deep", exist_ok=True)
with open("results/deep/log.txt", "w") as log: log.write(f"rank {rank}\\n")
assert open("results/deep/log.txt").read() == f"rank {rank}\\n"
torch.save(model.state_dict(), "results/new.pt")
os.replace("results/new.pt", "results/model.pt")
assert sorted(os.listdir("results")) == ["deep", "model.pt"]
assert all(torch.equal(value, model.state_dict()[name]) for name, value in torch.load("results/model.pt").items())
""", 3)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results/deep/log.txt").read_text() == "rank 0\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "results", "script.py"]


def test_rank_0_alone_draws_progress_bars(poseidon, tmp_path):
    text = "for a, b in loader: step(a, b)\nprint('disabled', os.environ.get('TQDM_DISABLE'))\n"
    for flags, others in (((), "1"), (("--all-ranks-write",), "None")):
        done = run(poseidon, tmp_path, text, 2, *flags)
        assert done.returncode == 0, done.stderr
        assert f"disabled {others}" in (tmp_path / "out/rank-01.log").read_text()
        assert done.stdout == "disabled None\n"


def test_private_folders_are_real_and_what_leaves_them_is_rank_0s(poseidon, tmp_path):
    """Other programs find what lies in them; a file that is made there and then moved to its place comes from rank 0."""
    done = run(poseidon, tmp_path, """
import shutil, subprocess, tempfile
for a, b in loader: step(a, b)
with tempfile.TemporaryDirectory() as folder:
    open(f"{folder}/text", "w").write(f"rank {rank}\\n")
    assert subprocess.run(["cat", f"{folder}/text"], capture_output=True, text=True).stdout == f"rank {rank}\\n"
    shutil.move(f"{folder}/text", "moved")
    open(f"{folder}/again", "w").write("more")
    os.replace(f"{folder}/again", "replaced")
    assert not os.listdir(folder) and open("moved").read() == f"rank {rank}\\n" and open("replaced").read() == "more"
assert not os.path.exists(folder)
""", 3)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "moved").read_text() == "rank 0\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved", "out", "replaced", "script.py"]


def test_every_rank_writes_if_asked(poseidon, tmp_path):
    done = run(poseidon, tmp_path, "open(f'file-{rank}', 'w')\nfor a, b in loader: step(a, b)\n", 2, "--all-ranks-write")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file-0").exists() and (tmp_path / "file-1").exists()


@pytest.mark.parametrize("gradients", ["torch.no_grad()", "torch.enable_grad()"])
def test_evaluation_is_left_alone_and_has_rank_0s_buffers(poseidon, tmp_path, gradients):
    done = run(poseidon, tmp_path, f"""
model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for a, b in loader: step(a, b)
model.eval()
with {gradients}:
    rows = sum(len(a) for a, b in loader)
    print("rows", rows, *(f"{{value:.17g}}" for value in model[1].running_mean.tolist()))
""")
    assert done.returncode == 0, done.stderr
    lines = [(tmp_path / f"out/rank-0{rank}.log").read_text().strip() for rank in range(2)]
    assert lines[0].startswith("rows 64 ") and lines[0] == lines[1]


def test_a_killed_rank_is_noticed_though_its_children_live(poseidon, tmp_path):
    (tmp_path / "script.py").write_text(PRELUDE + """
loader = DataLoader(TensorDataset(x, y), batch_size=8, num_workers=2, persistent_workers=True)
for epoch in range(10**6):
    for a, b in loader:
        step(a, b)
        time.sleep(0.05)
        if epoch == 1 and rank == 1:
            open("pid.new", "w").write(str(os.getpid())); os.rename("pid.new", "pid")
""")
    launcher = subprocess.Popen([poseidon, "run", "-n", "2", "-o", "out", "--all-ranks-write", sys.executable, "script.py"], cwd=tmp_path, stdout=subprocess.DEVNULL,
                                stderr=subprocess.PIPE, text=True)
    try:
        processes.wait_for((tmp_path / "pid").exists, "rank 1 to come to its second epoch")
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        _, err = launcher.communicate(timeout=30)
    finally:
        launcher.kill()
        launcher.wait()
    assert launcher.returncode == 137
    assert re.search(r"rank 1 \(pid \d+ on localhost\) ended with signal 9 \(Killed\)", err), err


def test_a_script_that_is_data_parallel_by_itself_is_left_alone(poseidon, tmp_path):
    done = run(poseidon, tmp_path, """
import torch.distributed as dist
dist.init_process_group("gloo")
model = nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
rows = 0
for a, b in loader:
    step(a, b)
    rows += len(a)
print("rows", rows, float(sum(p.sum() for p in model.parameters())))
dist.destroy_process_group()
""")
    assert done.returncode == 0, done.stderr
    assert "this script is data-parallel by itself" in done.stderr
    assert (tmp_path / "out/rank-00.log").read_text().count("rows 64 ") == 1


def test_what_is_compiled_stays_right(poseidon, tmp_path):
    done = run(poseidon, tmp_path, "model = torch.compile(model, backend='eager')\nfor a, b in loader: step(a, b)\nprint('done')\n")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("poseidon: torch.compile: ") == 1 and done.stdout == "done\n"


@pytest.mark.alone  # a failing script has seconds to end by itself, before its exit code is that of a signal
def test_ignored_targets_that_nobody_told_of_are_refused(poseidon, tmp_path):
    text = "y[5] = -100\nfor a, b in loader: step(a, b)\n"
    done = run(poseidon, tmp_path, text)
    assert done.returncode == 1
    assert "--count-targets" in done.stderr.splitlines()[-1]
    done = run(poseidon, tmp_path, text, 2, "--count-targets")
    assert done.returncode == 0, done.stderr


def test_the_plan_has_the_parameters_names(poseidon, tmp_path):
    done = run(poseidon, tmp_path, "for a, b in loader: step(a, b)\n", 2, "--scheme", "ps,1.weight=sfb")
    assert done.returncode == 0, done.stderr
    layers = json.loads((tmp_path / "out/plan.json").read_text())["layers"]
    assert {layer["name"]: layer["scheme"] for layer in layers} == {"0.weight": "ps", "0.bias": "ps", "1.weight": "sfb", "1.bias": "ps"}


def test_the_folder_of_a_run_tells_of_its_progress(poseidon, tmp_path):
    done = run(poseidon, tmp_path, "for epoch in range(3):\n    for a, b in loader: step(a, b)\n    time.sleep(0.6)\n", 2, "--timeline")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out/metrics.jsonl").read_text().splitlines()]
    assert {line["rank"] for line in lines} == {0, 1}
    for rank in (0, 1):
        own = [line for line in lines if line["rank"] == rank]
        assert [line["backward_passes"] for line in own] == sorted({line["backward_passes"] for line in own})
        assert own[-1]["backward_passes"] == 24
        assert all(0 <= line["waited_share"] <= 1 and line["seconds_each"] > 0 for line in own)
        # A parameter is 4 bytes, half of them travel to the other worker, and half of their sums, in each of the steps; and a little more.
        assert sum(line["bytes_sent"] for line in own) > 20 * 4 * (8 * 8 + 8 + 8 * 3 + 3)
    timeline = json.loads((tmp_path / "out/timeline.json").read_text())["traceEvents"]
    assert {event["pid"] for event in timeline} == {0, 1}
    names = {event["name"] for event in timeline}
    assert {"backward", "queued 0.weight", "synced 1.bias"} <= names, names
    assert not list((tmp_path / "out").glob("*.part"))


def test_a_worker_that_is_late_is_named(poseidon, tmp_path):
    done = run(poseidon, tmp_path, "if rank == 1: time.sleep(5)\nfor a, b in loader: step(a, b)\n", 2, "--screen", "none")
    assert done.returncode == 0, done.stderr
    assert "waiting for rank 1" in done.stderr, done.stderr


def test_sparse_gradients_travel_as_rows(poseidon, tmp_path):
    text = """
model = nn.Sequential(nn.Embedding(50_000, 16, sparse=True), nn.Flatten(), nn.Linear(48, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader = DataLoader(TensorDataset(torch.randint(0, 50_000, (64, 3)), y), batch_size=8)
from poseidon.torch import _attach
for epoch in range(2):
    for a, b in loader:
        step(a, b)
        print(_attach.gradients().job.bytes_sent())
"""
    done = run(poseidon, tmp_path, text, 2)
    assert done.returncode == 0, done.stderr
    sent = [int(line) for line in done.stdout.split()]
    assert len(sent) == 16
    # The first time nobody knows it, and before the second the model is agreed on anew; a step has at most 12 rows of 16 numbers, and their places.
    assert sent[0] > 50_000 * 16 * 4
    assert max(after - before for before, after in zip(sent[1:], sent[2:])) < 10_000


def test_what_is_downloaded_comes_to_a_host_once(poseidon, tmp_path):
    content = bytes(range(256)) * 4000
    asked = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path == "/absent":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for begin in range(0, len(content), 64_000):
                self.wfile.write(content[begin:begin + 64_000])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = run(poseidon, tmp_path, f"""
import urllib.error, urllib.request
base = "http://127.0.0.1:{server.server_port}"
os.makedirs("data", exist_ok=True)
urllib.request.urlretrieve(base + "/a", "data/a")
torch.hub.download_url_to_file(base + "/b", "data/b", progress=False)
content = bytes(range(256)) * 4000
assert open("data/a", "rb").read() == content and open("data/b", "rb").read() == content
try:
    urllib.request.urlopen(base + "/absent")
    raise SystemExit("it is there")
except urllib.error.HTTPError as error:
    assert error.code == 404
for a, b in loader: step(a, b)
""", 3)
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    assert asked.count("/a") == 1 and asked.count("/b") == 1
    assert asked.count("/absent") == 3, "what the first rank cannot fetch each tries by itself"


def test_gradients_that_pass_through_other_memory_are_the_same(poseidon, tmp_path):
    """As those of a device do."""
    text = """
model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
unused = nn.Linear(2, 2)
optimizer = torch.optim.Adam([*model.parameters(), *unused.parameters()], lr=0.01)
for epoch in range(2):
    for number, (a, b) in enumerate(loader):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(a), b)
        if number % 3 == 2: loss = loss + (unused.weight ** 2).sum()
        loss.backward()
        if number % 4 == 1: nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
print(*(value.hex() for p in [*model.parameters(), *unused.parameters()] for value in p.double().flatten().tolist()))
"""
    for scheme in ("ps", "sfb"):
        schemes = ("--scheme", "ps" if scheme == "ps" else "ps,0.weight=sfb,2.weight=sfb")
        direct, staged = (run(poseidon, tmp_path, text, 3, *schemes, *flags) for flags in ((), ("--env", "POSEIDON_STAGE=1")))
        assert direct.returncode == 0 and staged.returncode == 0, direct.stderr + staged.stderr
        assert direct.stdout == staged.stdout and len(direct.stdout.split()) == 8 * 8 + 8 + 3 * 8 + 3 + 6


@pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here")
def test_a_gpus_gradients_are_those_of_one_process(poseidon, tmp_path):
    text = """
torch.manual_seed(3)
model = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 3)).cuda().double()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for epoch in range(3):
    for a, b in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(a.cuda().double()), b.cuda()).backward()
        optimizer.step()
if rank == 0: torch.save([p.detach().cpu() for p in model.parameters()], "parameters.pt")
"""
    found = {}
    for workers in (1, 3):
        done = run(poseidon, tmp_path, text, workers)
        assert done.returncode == 0, done.stderr
        found[workers] = torch.load(tmp_path / "parameters.pt")
    assert all((a - b).abs().max() < 1e-10 for a, b in zip(found[1], found[3]))


def test_one_worker_is_plain_python(poseidon, tmp_path):
    text = "for a, b in loader: step(a, b)\nprint(*(value.hex() for p in model.parameters() for value in p.double().flatten().tolist()), 'poseidon.torch' in sys.modules)\n"
    done = run(poseidon, tmp_path, text, 1)
    alone = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    assert done.stdout.split()[:-1] == alone.stdout.split()[:-1]


def test_dropout_draws_other_masks_and_nothing_else_parts(poseidon, tmp_path):
    """Parts of three workers are of unequal size."""
    done = run(poseidon, tmp_path, """
from torch.utils.checkpoint import checkpoint
drop, recurrent = nn.Dropout(0.5), nn.LSTM(8, 8, 2, dropout=0.5, batch_first=True)
def dropped(a):
    a = F.scaled_dot_product_attention(a[:, None], a[:, None], a[:, None], dropout_p=0.3)
    return F.rrelu(F.alpha_dropout(recurrent(a)[0][:, 0], 0.2), training=True)
for a, b in DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True): step(dropped(a), b)
seen = []
def twice(a):
    seen.append(drop(torch.ones(20)).tolist())
    return a * a
checkpoint(twice, torch.ones(2, requires_grad=True), use_reentrant=False).sum().backward()
assert len(seen) == 2 and seen[0] == seen[1], seen
print("mask", drop(torch.ones(20)).tolist())
print("permutation", torch.randperm(10).tolist())
""", 3)
    assert done.returncode == 0, done.stderr
    lines = [(tmp_path / f"out/rank-0{rank}.log").read_text().splitlines() for rank in range(3)]
    assert len({line[0] for line in lines}) == 3
    assert len({line[1] for line in lines}) == 1


def test_parameters_that_have_parted_are_rank_0s_again(poseidon, tmp_path):
    done = run(poseidon, tmp_path, """
for number, (a, b) in enumerate(loader):
    step(a, b)
    if number == 2 and rank == 1:
        with torch.no_grad(): model[1].weight.add_(1.0)
print(f"{model[1].weight.sum().item():.9g} {model[0].bias.sum().item():.9g}")
""")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("parameters have parted: 1.weight of rank 1 has other values than rank 0's, which all take now") == 1, done.stderr
    lines = [(tmp_path / f"out/rank-0{rank}.log").read_text().splitlines() for rank in range(2)]
    assert [line for line in lines[0] if "poseidon" not in line] == lines[1]
