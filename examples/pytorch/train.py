"""An ordinary PyTorch script: a small convolutional network that reads handwritten digits. It knows of one process and nothing of Poseidon."""
import argparse
import csv
import gzip
import pathlib

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def load(path):
    """Images [n, 1, 8, 8] from 0 to 1, and what they show."""
    with gzip.open(path, "rt") as file:
        table = torch.tensor([[float(cell) for cell in row] for row in csv.reader(file) if row and row[0][0].isdigit()])
    return TensorDataset(table[:, 1:65].view(-1, 1, 8, 8) / 16, table[:, 0].long())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(__file__).parents[1] / "digits/digits.csv.gz")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=pathlib.Path, help="file for the trained parameters")
    options = parser.parse_args()
    torch.manual_seed(1)
    data = load(options.data)
    train, test = torch.utils.data.random_split(data, [len(data) - 400, 400])
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                          nn.Linear(512, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=options.lr, momentum=0.9)
    for epoch in range(options.epochs):
        model.train()
        for images, labels in DataLoader(train, batch_size=options.batch, shuffle=True):
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in DataLoader(test, batch_size=200))
        print(f"epoch {epoch}: {right / len(test):.1%} of the test images are read right", flush=True)
    if options.out:
        torch.save(model.state_dict(), options.out)


if __name__ == "__main__":
    main()
