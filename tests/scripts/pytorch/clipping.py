"""Clips the norm of the gradients from the second epoch on, and logs it every tenth step."""
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import digits

dtype = getattr(torch, sys.argv[1])
torch.manual_seed(8)
(x, y), (test_x, test_y) = digits.load(dtype)
loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(dtype)
optimizer = torch.optim.SGD(model.parameters(), lr=0.3) if sys.argv[2] == "sgd" else torch.optim.Adam(model.parameters(), lr=2e-3)
criterion = nn.CrossEntropyLoss()

step = 0
for epoch in range(3):
    for images, labels in loader:
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        if epoch > 0:
            norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.5)
            if step % 10 == 0:
                print(f"step {step}: norm of the gradients {norm:.9f}")
        optimizer.step()
        step += 1
with torch.no_grad():
    print(f"test loss {criterion(model(test_x), test_y):.9f}")
torch.save(model.state_dict(), sys.argv[3])
