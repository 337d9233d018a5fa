"""Data in worker processes; the best model so far is saved to a temporary file, which then takes the other's place."""
import os
import sys
import tempfile

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import digits


class Digits(Dataset):
    def __init__(self, images, labels):
        self.images, self.labels = images, labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.images[i], self.labels[i]


def save(model, path):
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(os.path.abspath(path)), delete=False) as file:
        torch.save(model.state_dict(), file)
    os.replace(file.name, path)


if __name__ == "__main__":
    dtype = getattr(torch, sys.argv[1])
    torch.manual_seed(23)
    train, (test_x, test_y) = digits.load(dtype)
    loader = DataLoader(Digits(*train), batch_size=64, shuffle=True, num_workers=2, persistent_workers=True)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2) if sys.argv[2] == "sgd" else torch.optim.Adam(model.parameters(), lr=3e-3)
    best = float("inf")
    for epoch in range(3):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        with torch.no_grad():
            loss = nn.functional.cross_entropy(model(test_x), test_y).item()
        print(f"epoch {epoch}: test loss {loss:.9f}")
        if loss < best:
            best = loss
            save(model, sys.argv[3])
