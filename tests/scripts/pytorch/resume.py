"""Stops after an epoch, and goes on from its checkpoint."""
import os
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import digits


def build(dtype, kind):
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) if kind == "sgd" else torch.optim.Adam(model.parameters(), lr=1e-3)
    return model, optimizer


def train_epochs(model, optimizer, loader, first, last, checkpoint):
    for epoch in range(first, last):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        torch.save({"epoch": epoch + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint)


if __name__ == "__main__":
    dtype, kind, out = getattr(torch, sys.argv[1]), sys.argv[2], sys.argv[3]
    checkpoint = out + ".checkpoint"
    torch.manual_seed(31)
    (x, y), (test_x, test_y) = digits.load(dtype)
    loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
    if os.path.exists(checkpoint):
        os.remove(checkpoint)
    model, optimizer = build(dtype, kind)
    train_epochs(model, optimizer, loader, 0, 2, checkpoint)

    torch.manual_seed(99)
    model, optimizer = build(dtype, kind)
    saved = torch.load(checkpoint)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    train_epochs(model, optimizer, loader, saved["epoch"], 3, checkpoint)
    with torch.no_grad():
        print(f"resumed at epoch {saved['epoch']}; test loss {nn.functional.cross_entropy(model(test_x), test_y):.9f}")
    torch.save(model.state_dict(), out)
