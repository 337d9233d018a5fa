"""A class that trains, with callbacks and early stopping."""
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import digits


class Trainer:
    def __init__(self, model, optimizer, loss, callbacks=()):
        self.model, self.optimizer, self.loss, self.callbacks = model, optimizer, loss, list(callbacks)
        self.stop = False

    def fit(self, train_loader, valid_loader, epochs):
        for epoch in range(epochs):
            self.model.train()
            for batch in train_loader:
                self.training_step(batch)
            metrics = self.validate(valid_loader)
            for callback in self.callbacks:
                callback(self, epoch, metrics)
            if self.stop:
                break

    def training_step(self, batch):
        inputs, targets = batch
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.model(inputs), targets)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def validate(self, loader):
        self.model.eval()
        total = sum(self.loss(self.model(x), y) * len(y) for x, y in loader)
        return {"valid_loss": (total / len(loader.dataset)).item()}


class EarlyStopping:
    def __init__(self, patience):
        self.patience, self.best, self.bad = patience, float("inf"), 0

    def __call__(self, trainer, epoch, metrics):
        print(f"epoch {epoch}: {metrics['valid_loss']:.9f}")
        self.bad = 0 if metrics["valid_loss"] < self.best else self.bad + 1
        self.best = min(self.best, metrics["valid_loss"])
        trainer.stop = self.bad >= self.patience


def main(dtype, kind, out):
    torch.manual_seed(17)
    train, valid = digits.load(dtype)
    model = nn.Sequential(nn.Linear(64, 40), nn.SiLU(), nn.Linear(40, 10)).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2) if kind == "sgd" else torch.optim.Adam(model.parameters(), lr=2e-3)
    trainer = Trainer(model, optimizer, nn.CrossEntropyLoss(), [EarlyStopping(2)])
    trainer.fit(DataLoader(TensorDataset(*train), batch_size=60, shuffle=True), DataLoader(TensorDataset(*valid), batch_size=100), epochs=3)
    torch.save(model.state_dict(), out)


main(getattr(torch, sys.argv[1]), sys.argv[2], sys.argv[3])
