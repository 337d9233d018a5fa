"""Two networks, two optimisers, each trained by the other."""
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import digits

dtype = getattr(torch, sys.argv[1])
torch.manual_seed(4)
(x, _), _ = digits.load(dtype)
# The noise belongs to the samples, so that it is the same whoever draws the batch.
noise = torch.randn(len(x), 16, generator=torch.Generator().manual_seed(9), dtype=dtype)
loader = DataLoader(TensorDataset(x, noise), batch_size=64, shuffle=True, drop_last=True)
generator = nn.Sequential(nn.Linear(16, 48), nn.LeakyReLU(0.2), nn.Linear(48, 64), nn.Sigmoid()).to(dtype)
discriminator = nn.Sequential(nn.Linear(64, 48), nn.LeakyReLU(0.2), nn.Linear(48, 1)).to(dtype)
make = (lambda p: torch.optim.SGD(p, lr=0.05)) if sys.argv[2] == "sgd" else (lambda p: torch.optim.Adam(p, lr=1e-3, betas=(0.5, 0.999)))
optimizer_d = make(discriminator.parameters())
optimizer_g = make(generator.parameters())
bce = nn.BCEWithLogitsLoss()

for epoch in range(2):
    for real, z in loader:
        ones, zeros = torch.ones(len(real), 1, dtype=dtype), torch.zeros(len(real), 1, dtype=dtype)
        fake = generator(z)
        optimizer_d.zero_grad()
        loss_d = bce(discriminator(real), ones) + bce(discriminator(fake.detach()), zeros)
        loss_d.backward()
        optimizer_d.step()
        optimizer_g.zero_grad()
        bce(discriminator(fake), ones).backward()
        optimizer_g.step()
with torch.no_grad():
    print(f"the discriminator gives {torch.sigmoid(discriminator(generator(noise[:200]))).mean():.9f}")
torch.save({"generator": generator.state_dict(), "discriminator": discriminator.state_dict()}, sys.argv[3])
