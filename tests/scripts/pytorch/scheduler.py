#!/usr/bin/env python
"""Command line, two groups of parameters, warm-up and cosine decay."""
import argparse
import math

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, TensorDataset

import digits

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("dtype")
parser.add_argument("optimizer", choices=["sgd", "adam"])
parser.add_argument("out")
parser.add_argument("--lr", type=float, default=0.05)
parser.add_argument("--weight-decay", type=float, default=1e-3)
parser.add_argument("--warmup", type=int, default=5)
args = parser.parse_args()

torch.manual_seed(11)
dtype = getattr(torch, args.dtype)
torch.set_default_dtype(dtype)
(train_x, train_y), (test_x, test_y) = digits.load(dtype)
loader = DataLoader(TensorDataset(train_x, train_y), batch_size=40, shuffle=True, drop_last=True)

model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.LayerNorm(64), nn.Linear(64, 10))
decayed = [p for p in model.parameters() if p.dim() > 1]
others = [p for p in model.parameters() if p.dim() <= 1]
groups = [{"params": decayed, "weight_decay": args.weight_decay}, {"params": others, "weight_decay": 0.0}]
optimizer = torch.optim.SGD(groups, lr=args.lr) if args.optimizer == "sgd" else torch.optim.AdamW(groups, lr=args.lr / 10)
steps = 2 * len(loader)
scheduler = LambdaLR(optimizer, lambda step: min(1, (step + 1) / args.warmup) * 0.5 * (1 + math.cos(math.pi * step / steps)))

step = 0
for epoch in range(2):
    for x, y in loader:
        loss = nn.functional.cross_entropy(model(x), y, label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        step += 1
    with torch.no_grad():
        print(f"step {step}, rate {scheduler.get_last_lr()[0]:.6f}, test loss {nn.functional.cross_entropy(model(test_x), test_y):.9f}")
torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, args.out)
