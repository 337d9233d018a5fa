"""A small transformer over letters, with the head shared with the embedding."""
import math
import sys
from dataclasses import dataclass

import torch
import torch.nn as nn
from torch.nn import functional as F

dtype = getattr(torch, sys.argv[1])


@dataclass
class Config:
    block: int = 24
    vocabulary: int = 0
    layers: int = 2
    heads: int = 2
    width: int = 32


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.qkv = nn.Linear(c.width, 3 * c.width)
        self.out = nn.Linear(c.width, c.width)
        self.register_buffer("mask", torch.tril(torch.ones(c.block, c.block)).bool())

    def forward(self, x):
        b, t, w = x.shape
        q, k, v = (part.view(b, t, self.c.heads, -1).transpose(1, 2) for part in self.qkv(x).split(w, dim=2))
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(~self.mask[:t, :t], float("-inf"))
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, w))


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.attention = Attention(c)
        self.mlp = nn.Sequential(nn.Linear(c.width, 4 * c.width), nn.GELU(), nn.Linear(4 * c.width, c.width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.tokens = nn.Embedding(c.vocabulary, c.width)
        self.positions = nn.Parameter(torch.zeros(c.block, c.width))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = nn.LayerNorm(c.width)
        self.head = nn.Linear(c.width, c.vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, x, targets=None):
        h = self.tokens(x) + self.positions[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        logits = self.head(self.norm(h))
        loss = None if targets is None else F.cross_entropy(logits.flatten(0, 1), targets.flatten())
        return logits, loss


text = "poseidon sends each layer's gradient the moment it exists, and the next forward pass begins early. " * 30
letters = sorted(set(text))
data = torch.tensor([letters.index(c) for c in text])


class Windows(torch.utils.data.Dataset):
    def __init__(self, block):
        self.block = block

    def __len__(self):
        return (len(data) - 1) // self.block

    def __getitem__(self, i):
        piece = data[i * self.block : (i + 1) * self.block + 1]
        return piece[:-1], piece[1:]


torch.manual_seed(1337)
config = Config(vocabulary=len(letters))
model = GPT(config).to(dtype)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1) if sys.argv[2] == "sgd" else torch.optim.AdamW(model.parameters(), lr=1e-3)
loader = torch.utils.data.DataLoader(Windows(config.block), batch_size=8, shuffle=True)
step = 0
while step < 50:
    for x, y in loader:
        _, loss = model(x, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step == 50:
            break
model.eval()
with torch.no_grad():
    x, y = next(iter(torch.utils.data.DataLoader(Windows(config.block), batch_size=16)))
    print(f"loss {model(x, y)[1]:.9f}")
torch.save(model.state_dict(), sys.argv[3])
