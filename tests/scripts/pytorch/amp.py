"""Mixed precision: forward passes in bfloat16."""
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import digits

torch.manual_seed(2)
(x, y), (test_x, test_y) = digits.load()
loader = DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1) if sys.argv[2] == "sgd" else torch.optim.Adam(model.parameters(), lr=1e-3)
scaler = torch.amp.GradScaler("cpu", enabled=False)
for epoch in range(2):
    for images, labels in loader:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
with torch.no_grad():
    print(f"test loss {nn.functional.cross_entropy(model(test_x), test_y):.4f}")
torch.save(model.state_dict(), sys.argv[3])
