"""A loop in the style of libraries that prepare model, optimiser and loader, and whose accelerator calls backward and clips."""
import contextlib
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import digits


class Accelerator:
    """As much of such a library as the loop below needs."""

    def __init__(self, gradient_accumulation_steps=1):
        self.steps = gradient_accumulation_steps
        self.count = 0
        self.sync_gradients = True

    def prepare(self, *objects):
        return objects

    @contextlib.contextmanager
    def accumulate(self, model):
        self.count += 1
        self.sync_gradients = self.count % self.steps == 0
        yield

    def backward(self, loss):
        (loss / self.steps).backward()

    def clip_grad_norm_(self, parameters, norm):
        return torch.nn.utils.clip_grad_norm_(parameters, norm)


class Optimizer:
    """Steps only when gradients have been gathered."""

    def __init__(self, optimizer, accelerator):
        self.optimizer, self.accelerator = optimizer, accelerator

    def step(self):
        if self.accelerator.sync_gradients:
            self.optimizer.step()

    def zero_grad(self):
        if self.accelerator.sync_gradients:
            self.optimizer.zero_grad()


def main():
    dtype = getattr(torch, sys.argv[1])
    torch.manual_seed(41)
    (x, y), (test_x, test_y) = digits.load(dtype)
    accelerator = Accelerator(gradient_accumulation_steps=2)
    model = nn.Sequential(nn.Linear(64, 40), nn.GELU(), nn.Linear(40, 10)).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2) if sys.argv[2] == "sgd" else torch.optim.AdamW(model.parameters(), lr=2e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=60)
    train = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True, drop_last=True)
    test = DataLoader(TensorDataset(test_x, test_y), batch_size=100)
    model, train, test = accelerator.prepare(model, train, test)
    wrapped = Optimizer(optimizer, accelerator)
    for epoch in range(2):
        model.train()
        for inputs, targets in train:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(inputs), targets)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                    scheduler.step()
                wrapped.step()
                wrapped.zero_grad()
        model.eval()
        with torch.no_grad():
            right = sum(int((model(inputs).argmax(1) == targets).sum()) for inputs, targets in test)
            loss = sum(nn.functional.cross_entropy(model(inputs), targets, reduction="sum") for inputs, targets in test) / len(test_y)
        print(f"epoch {epoch}: accuracy {right / len(test_y):.6f}, test loss {loss.item():.9f}")
    torch.save(model.state_dict(), sys.argv[3])


if __name__ == "__main__":
    main()
