"""Small batches, four of them to a step."""
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import digits

ACCUMULATE = 4
dtype = getattr(torch, sys.argv[1])
torch.manual_seed(5)
(x, y), (test_x, test_y) = digits.load(dtype)
loader = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
model = nn.Sequential(nn.Linear(64, 40), nn.GELU(), nn.Linear(40, 10)).to(dtype)
optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9) if sys.argv[2] == "sgd" else torch.optim.Adam(model.parameters(), lr=3e-3)
loss_fn = nn.CrossEntropyLoss()

optimizer.zero_grad()
for epoch in range(2):
    for i, (images, labels) in enumerate(loader):
        loss = loss_fn(model(images), labels) / ACCUMULATE
        loss.backward()
        if (i + 1) % ACCUMULATE == 0:
            optimizer.step()
            optimizer.zero_grad()
with torch.no_grad():
    print(f"test loss {loss_fn(model(test_x), test_y):.9f}")
torch.save(model.state_dict(), sys.argv[3])
