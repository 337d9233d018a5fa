"""Keeps a moving average of the weights, and clamps the weights themselves."""
import copy
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import digits

dtype = getattr(torch, sys.argv[1])
torch.manual_seed(14)
(x, y), (test_x, test_y) = digits.load(dtype)
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).to(dtype)
average = copy.deepcopy(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.2) if sys.argv[2] == "sgd" else torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(2):
    for images, labels in DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        with torch.no_grad():
            for p in model.parameters():
                p.clamp_(-0.2, 0.2)
            for a, p in zip(average.parameters(), model.parameters()):
                a.lerp_(p, 0.1)
with torch.no_grad():
    print(f"test loss {nn.functional.cross_entropy(average(test_x), test_y):.9f}")
torch.save({"model": model.state_dict(), "average": average.state_dict()}, sys.argv[3])
