"""A language model of letters: an LSTM whose embedding is also its output layer."""
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

TEXT = "the quick brown fox jumps over the lazy dog; a gradient leaves the moment it exists. " * 40
LETTERS = sorted(set(TEXT))

dtype = getattr(torch, sys.argv[1])
torch.manual_seed(6)
codes = torch.tensor([LETTERS.index(c) for c in TEXT])
windows = codes.unfold(0, 33, 8)
loader = DataLoader(TensorDataset(windows[:, :-1], windows[:, 1:]), batch_size=24, shuffle=True)


class Model(nn.Module):
    def __init__(self, letters, width):
        super().__init__()
        self.embedding = nn.Embedding(letters, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Linear(width, letters, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.lstm(self.embedding(x))[0])


model = Model(len(LETTERS), 32).to(dtype)
optimizer = torch.optim.SGD(model.parameters(), lr=0.5) if sys.argv[2] == "sgd" else torch.optim.Adam(model.parameters(), lr=5e-3)
for epoch in range(3):
    for x, y in loader:
        optimizer.zero_grad()
        logits = model(x)
        loss = nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))
        loss.backward()
        optimizer.step()
with torch.no_grad():
    logits = model(windows[:50, :-1])
    print(f"loss {nn.functional.cross_entropy(logits.reshape(-1, len(LETTERS)), windows[:50, 1:].reshape(-1)):.9f}")
torch.save(model.state_dict(), sys.argv[3])
