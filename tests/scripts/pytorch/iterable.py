"""A stream of samples, whose length nobody knows."""
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

import digits

dtype = getattr(torch, sys.argv[1])
torch.manual_seed(21)
(x, y), (test_x, test_y) = digits.load(dtype)


class Stream(IterableDataset):
    def __iter__(self):
        for i in range(1000):
            yield x[i], y[i]


model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).to(dtype)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1) if sys.argv[2] == "sgd" else torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(2):
    for images, labels in DataLoader(Stream(), batch_size=48):
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
with torch.no_grad():
    print(f"test loss {nn.functional.cross_entropy(model(test_x), test_y):.9f}")
torch.save(model.state_dict(), sys.argv[3])
