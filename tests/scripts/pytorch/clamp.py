"""A network whose weights stay small: they are clamped after each step, and their norms are logged every tenth."""
import sys

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from digits import load

dtype = getattr(torch, sys.argv[1])
torch.manual_seed(31)
(x, y), (test_x, test_y) = load(dtype)
net = nn.Sequential(nn.Linear(64, 48), nn.LeakyReLU(0.2), nn.Linear(48, 10)).to(dtype)
if sys.argv[2] == "sgd":
    opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.5)
else:
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)

step = 0
for epoch in range(2):
    for xb, yb in DataLoader(TensorDataset(x, y), batch_size=50, shuffle=True):
        loss = F.cross_entropy(net(xb), yb)
        opt.zero_grad()
        loss.backward()
        opt.step()
        for p in net.parameters():
            p.data.clamp_(-0.08, 0.08)
        step += 1
        if step % 10 == 0:
            grad_norm = torch.sqrt(sum((p.grad ** 2).sum() for p in net.parameters()))
            weight_norm = torch.sqrt(sum((p ** 2).sum() for p in net.parameters()))
            print("step %d |g| %.9f |w| %.9f" % (step, grad_norm.item(), weight_norm.item()))
net.eval()
with torch.no_grad():
    print("test loss %.9f" % F.cross_entropy(net(test_x), test_y).item())
torch.save({"net": net.state_dict(), "opt": opt.state_dict()}, sys.argv[3])
