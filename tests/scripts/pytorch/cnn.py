import argparse

import torch
import torch.nn.functional as F
from torch import nn

from digits import load


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.fc1 = nn.Linear(16 * 2 * 2, 32)
        self.fc2 = nn.Linear(32, 10)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        return F.log_softmax(self.fc2(F.relu(self.fc1(x))), dim=1)


def train(model, loader, optimizer):
    model.train()
    for x, y in loader:
        optimizer.zero_grad(set_to_none=False)
        F.nll_loss(model(x), y).backward()
        optimizer.step()


def test(model, loader):
    model.eval()
    loss = correct = count = 0
    with torch.no_grad():
        for x, y in loader:
            output = model(x)
            loss += F.nll_loss(output, y, reduction="sum").item()
            correct += (output.argmax(1) == y).sum().item()
            count += len(y)
    return loss / count, correct / count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("dtype")
    parser.add_argument("optimizer")
    parser.add_argument("out")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=50)
    args = parser.parse_args()
    torch.manual_seed(3)
    dtype = getattr(torch, args.dtype)
    (x, y), (test_x, test_y) = load(dtype)
    image = lambda t: t.view(-1, 1, 8, 8)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(image(x), y), batch_size=args.batch_size, shuffle=True)
    test_loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(image(test_x), test_y), batch_size=100)
    model = Net().to(dtype)
    make = {"sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True), "adam": lambda p: torch.optim.Adam(p, lr=2e-3)}
    optimizer = make[args.optimizer](model.parameters())
    for epoch in range(args.epochs):
        train(model, loader, optimizer)
        print("epoch %d: test loss %.9f, accuracy %.4f" % (epoch, *test(model, test_loader)))
    torch.save(model.state_dict(), args.out)


if __name__ == "__main__":
    main()
