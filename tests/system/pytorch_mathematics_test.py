"""What scripts do with parameters, gradients, losses and data, one thing at a time: under `poseidon run` the parameters end as in one process, in
float64, with dense gradients and with sufficient factors."""
import os
import subprocess
import sys

import pytest
import torch
from support.selection import often

PRELUDE = """
import sys
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(1)
torch.set_default_dtype(torch.float64)
x = torch.randn(70, 12)
y = (x[:, :5].argmax(1) + (x[:, 6] > 0)) % 5
loader = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)  # the last batch is smaller, and parts of three are unequal
model = nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 16), nn.Tanh(), nn.Linear(16, 5))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
others = {}

def save():
    torch.save({"model": model.state_dict(), **others}, sys.argv[1])
"""

SCRIPTS = {
    "plain": """
for epoch in range(3):
    for a, b in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
save()
""",
    "zeroing after the step": """
for epoch in range(3):
    for a, b in loader:
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
        model.zero_grad()
save()
""",
    "gradients set to zero and not to nothing": """
for a, b in loader:
    optimizer.zero_grad(set_to_none=False)
    F.cross_entropy(model(a), b).backward()
    optimizer.step()
save()
""",
    "Adam with a schedule and groups": """
optimizer = torch.optim.AdamW([{"params": model[0].parameters(), "lr": 0.01}, {"params": model[2:].parameters()}], lr=0.02, weight_decay=0.1)
schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
for epoch in range(3):
    for a, b in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
    schedule.step()
save()
""",
    "a schedule that follows the training loss": """
schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0, threshold=0.1)
for epoch in range(6):
    total = 0.0
    for a, b in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(a), b)
        loss.backward()
        optimizer.step()
        total += loss.item()  # of this worker's parts
    schedule.step(total)
assert optimizer.param_groups[0]["lr"] < 0.2
save()
""",
    "trained in evaluation mode": """
loader = DataLoader(TensorDataset(x, y), batch_size=16)
for epoch in range(4):
    for a, b in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
    model.eval()
save()
""",
    "complex weights, single numbers and empty ones": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.spectrum = nn.Parameter(torch.randn(12, 6, dtype=torch.complex128))
        self.temperature = nn.Parameter(torch.tensor(1.5))
        self.none = nn.Parameter(torch.empty(0, 3))
        self.head = nn.Linear(12, 5)
    def forward(self, a):
        return self.head(torch.view_as_real((a + 1j * a.flip(1)) @ self.spectrum.conj()).flatten(1)) * self.temperature + self.none.sum()
model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for epoch in range(3):
    for a, b in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
save()
""",
    "class weights": """
weight = torch.tensor([1.0, 5.0, 0.5, 2.0, 0.0])
for epoch in range(2):
    for a, b in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(a), b, weight=weight).backward()
        optimizer.step()
save()
""",
    "targets that are ignored": """
criterion = nn.CrossEntropyLoss(ignore_index=3, label_smoothing=0.1)
for epoch in range(2):
    for a, b in loader:
        optimizer.zero_grad()
        criterion(model(a), b).backward()
        optimizer.step()
save()
""",
    "a sum and a regulariser": """
for epoch in range(2):
    for a, b in loader:
        optimizer.zero_grad()
        loss = 0.01 * F.cross_entropy(model(a), b, reduction="sum") + 1e-2 * sum((p ** 2).sum() for p in model.parameters())
        loss.backward()
        optimizer.step()
save()
""",
    "several backward passes before a step": """
for epoch in range(2):
    optimizer.zero_grad()
    for number, (a, b) in enumerate(loader):
        (F.cross_entropy(model(a), b) / 2).backward()
        if number % 2:
            optimizer.step()
            optimizer.zero_grad()
save()
""",
    "clipping from the second epoch on": """
norms = []
for epoch in range(3):
    for a, b in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        if epoch:
            norms.append(nn.utils.clip_grad_norm_(model.parameters(), 0.5))
        optimizer.step()
others["norms"] = torch.stack(norms)
save()
""",
    "weights that are clamped": """
for epoch in range(3):
    for a, b in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
        with torch.no_grad():
            for p in model.parameters():
                p.clamp_(-0.3, 0.3)
save()
""",
    "views of the weights that are kept": """
views = [p.data for p in model.parameters()]
average = [view.clone() for view in views]
for epoch in range(3):
    for a, b in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
        for mean, view in zip(average, views):
            mean.lerp_(view, 0.1)
others["average"] = average
save()
""",
    "norms every third step": """
norms = []
for epoch in range(3):
    for number, (a, b) in enumerate(loader):
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
        if number % 3 == 0:
            norms.append(torch.stack([p.grad.norm() for p in model.parameters()] + [p.norm() for p in model.parameters()]).detach())
others["norms"] = torch.stack(norms)
save()
""",
    "frozen at first": """
for p in model[0].parameters():
    p.requires_grad_(False)
for epoch in range(3):
    if epoch == 1:
        for p in model[0].parameters():
            p.requires_grad_(True)
    for a, b in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
save()
""",
    "a layer that is used now and then": """
for epoch in range(3):
    for number, (a, b) in enumerate(loader):
        optimizer.zero_grad()
        h = torch.tanh(model[0](a))
        if number % 2 == 0:
            h = torch.tanh(model[2](h)) if number else torch.tanh(model[2](h))
            out = model[4](h)
        else:
            out = model[4](h[:, :16])
        F.cross_entropy(out, b).backward()
        optimizer.step()
save()
""",
    "a weight that is used twice": """
model = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 5))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for epoch in range(2):
    for number, (a, b) in enumerate(loader):
        optimizer.zero_grad()
        h = torch.tanh(model[0](a))
        if number:
            h = torch.tanh(model[0](h))
        F.cross_entropy(model[1](h), b).backward()
        optimizer.step()
save()
""",
    "a weight that is an embedding too": """
class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(5, 16)
        self.body = nn.Linear(16, 16)
    def forward(self, tokens):
        return F.linear(torch.tanh(self.body(self.embedding(tokens).mean(1))), self.embedding.weight)
model = Tied()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader = DataLoader(TensorDataset(torch.randint(0, 5, (70, 3)), y), batch_size=16, shuffle=True)
for epoch in range(3):
    for a, b in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
save()
""",
    "a penalty on gradients": """
for epoch in range(2):
    for number, (a, b) in enumerate(loader):
        optimizer.zero_grad()
        a.requires_grad_(number % 2 == 1)
        loss = F.cross_entropy(model(a), b)
        if number % 2:
            slope, = torch.autograd.grad(model(a).sum(), a, create_graph=True)
            # Over the batch: what each worker adds is of its own samples, as a mean over them.
            loss = loss + 0.1 * F.mse_loss(slope, torch.zeros_like(slope))
        loss.backward()
        optimizer.step()
save()
""",
    "gradients asked for and not accumulated": """
for epoch in range(2):
    for a, b in loader:
        optimizer.zero_grad()
        torch.autograd.grad(model(a).sum(), list(model.parameters()))
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
save()
""",
    "what is computed again": """
from torch.utils.checkpoint import checkpoint
for epoch in range(2):
    for number, (a, b) in enumerate(loader):
        optimizer.zero_grad()
        a.requires_grad_(True)
        h = checkpoint(model[:2], a, use_reentrant=number % 2 == 0)
        F.cross_entropy(model[2:](h), b).backward()
        optimizer.step()
save()
""",
    "torch.func": """
from torch.func import functional_call, grad
for epoch in range(2):
    for a, b in loader:
        optimizer.zero_grad()
        grad(lambda values: F.cross_entropy(functional_call(model, values, (a,)), b))({k: v.detach() for k, v in model.named_parameters()})
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
save()
""",
    "two optimisers, and one more later": """
head = torch.optim.Adam(model[4].parameters(), lr=0.01)
body = torch.optim.SGD(model[2].parameters(), lr=0.1)
for epoch in range(3):
    if epoch == 1:
        body.add_param_group({"params": list(model[0].parameters()), "lr": 0.05})
    for a, b in loader:
        head.zero_grad()
        body.zero_grad()
        F.cross_entropy(model(a), b).backward()
        head.step()
        body.step()
    model[0].zero_grad()
save()
""",
    "a hook on a weight": """
model[2].weight.register_hook(lambda gradient: 2 * gradient)
for epoch in range(2):
    for a, b in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
save()
""",
    "steps and settings saved and restored": """
import io
for epoch in range(2):
    for a, b in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
    stream = io.BytesIO()
    torch.save((model.state_dict(), optimizer.state_dict()), stream)
    stream.seek(0)
    weights, steps = torch.load(stream)
    model.load_state_dict(weights)
    optimizer.load_state_dict(steps)
save()
""",
    "copies of the model, while it is on its way": """
import copy, pickle
copies = []
for epoch in range(2):
    for number, (a, b) in enumerate(loader):
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
        if number % 3 == 0:
            copies += [copy.deepcopy(model).state_dict(), pickle.loads(pickle.dumps(model)).state_dict()]
others["copies"] = copies
others["scripted"] = torch.jit.script(model)(x[:4]).detach()
others["vector"] = nn.utils.parameters_to_vector(model.parameters()).detach()
save()
""",
    "a recurrent network": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(4, 6, num_layers=2, batch_first=True), nn.Linear(6, 5)
    def forward(self, x):
        return self.out(self.lstm(x.view(-1, 3, 4))[0][:, -1])
model = Net()
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
for epoch in range(2):
    for a, b in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
save()
""",
    "gradients with few rows": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(40, 6, sparse=True), nn.Linear(6, 5)
    def forward(self, tokens):
        return self.out(self.embedding(tokens).mean(1))
model = Net()
rows = torch.optim.SparseAdam(model.embedding.parameters(), lr=0.05)
optimizer = torch.optim.SGD(model.out.parameters(), lr=0.1)
loader = DataLoader(TensorDataset(torch.randint(0, 40, (70, 3)), y), batch_size=16, shuffle=True)
for epoch in range(2):
    for a, b in loader:
        optimizer.zero_grad()
        rows.zero_grad()
        F.cross_entropy(model(a), b).backward()
        assert model.embedding.weight.grad.is_sparse
        optimizer.step()
        rows.step()
save()
""",
    "attention": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.out = nn.Linear(4, 5)
    def forward(self, x):
        return self.out(self.layer(x.view(-1, 3, 4)).mean(1))
model = Net()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
for epoch in range(2):
    for a, b in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
save()
""",
    "batches that are smaller than the workers are many": """
loader = DataLoader(TensorDataset(x[:10], y[:10]), batch_size=3, shuffle=True)
for epoch in range(3):
    for a, b in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(a), b).backward()
        optimizer.step()
save()
""",
}


LOOP = """
for epoch in range(3):
    for a, b in loader:
        optimizer.zero_grad()
        (LOSS).backward()
        optimizer.step()
save()
"""
# By name: the flags that a script needs, the script, and what it is compared with where that is another one.
FLAGGED = {
    "BatchNorm over the global batch": (["--sync-batch-norm"], """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc, self.norm1, self.out = nn.Conv1d(3, 4, 2), nn.BatchNorm1d(4), nn.Linear(12, 8), nn.BatchNorm1d(8, affine=False), nn.Linear(8, 5)
    def forward(self, x):
        return self.out(self.norm1(self.fc(torch.tanh(self.norm(self.conv(x.view(-1, 3, 4)))).flatten(1))))
model = Net()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
""" + LOOP.replace("LOSS", "F.cross_entropy(model(a), b)"), None),
    "a mean written by hand": (["--loss", "mean"], LOOP.replace("LOSS", "-torch.log_softmax(model(a), 1)[torch.arange(len(b)), b].mean()"), None),
    "a sum written by hand": (["--loss", "sum"], LOOP.replace("LOSS", "-0.05 * torch.log_softmax(model(a), 1)[torch.arange(len(b)), b].sum()"), None),
    "batches of each worker": (["--batch", "per-worker"], LOOP.replace("LOSS", "F.cross_entropy(model(a), b)"),
                               "loader = DataLoader(TensorDataset(x, y), batch_size=16 * 3, shuffle=True)" + LOOP.replace("LOSS", "F.cross_entropy(model(a), b)")),
}


def train(command, folder, text):
    (folder / "script.py").write_text(PRELUDE + text)
    out = folder / "model.pt"
    done = subprocess.run([*map(str, command), sys.executable, "script.py", str(out)], cwd=folder, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return torch.load(out), done.stderr


def tensors_of(saved, prefix=""):
    for key, value in saved.items() if isinstance(saved, dict) else enumerate(saved):
        if isinstance(value, torch.Tensor):
            yield f"{prefix}{key}", value
        else:
            yield from tensors_of(value, f"{prefix}{key}.")


@pytest.fixture(scope="session")
def alone(tmp_path_factory):
    known = {}

    def result(name):
        if name not in known:
            known[name] = train([], tmp_path_factory.mktemp("alone"), SCRIPTS[name])[0]
        return known[name]

    return result


def expect_alike(saved, alone):
    expected, got = dict(tensors_of(alone)), dict(tensors_of(saved))
    assert got.keys() == expected.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(got[key], tensor, rtol=0, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}")


# Parts of three workers are unequal, and sums of factors take the longer way; the plain scheme is tried with what differs most.
# Every second one always runs.
@pytest.mark.parametrize("name, scheme, workers", often(
    [(name, "sfb", 3) for name in SCRIPTS] +
    [(name, "ps", 2) for name in ("plain", "class weights", "several backward passes before a step", "views of the weights that are kept", "frozen at first")],
    lambda _, number: number % 2 == 0))
def test_parameters_end_as_in_one_process(poseidon, alone, tmp_path, name, scheme, workers):
    saved, _ = train([poseidon, "run", "-n", workers, "-o", "out", "--scheme", scheme], tmp_path, SCRIPTS[name])
    expect_alike(saved, alone(name))


@pytest.mark.parametrize("name", FLAGGED)
def test_flags_say_what_the_script_means(poseidon, tmp_path, name):
    flags, text, other = FLAGGED[name]
    saved, _ = train([poseidon, "run", "-n", 3, "-o", "out", *flags], tmp_path, text)
    expect_alike(saved, train([], tmp_path, other or text)[0])


def test_the_comparison_sees_a_gradient_that_is_not_averaged(poseidon, alone, tmp_path):
    """By the loss of one worker's part alone, nothing would end alike."""
    text = SCRIPTS["plain"].replace("F.cross_entropy(model(a), b).backward()", "(F.cross_entropy(model(a), b) / 2).backward()")
    saved, _ = train([poseidon, "run", "-n", 2, "-o", "out"], tmp_path, text)
    key, expected = next(tensors_of(alone("plain")))
    assert (dict(tensors_of(saved))[key] - expected).abs().max() > 1e-3
