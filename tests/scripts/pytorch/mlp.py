"""A multilayer perceptron, the way of the first tutorial."""
import sys

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import digits

dtype = getattr(torch, sys.argv[1])
torch.manual_seed(0)
train, test = digits.load(dtype)
loader = DataLoader(TensorDataset(*train), batch_size=64, shuffle=True)

model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10)).to(dtype)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) if sys.argv[2] == "sgd" else torch.optim.Adam(model.parameters(), lr=1e-3)
criterion = nn.CrossEntropyLoss()

for epoch in range(3):
    model.train()
    for images, labels in loader:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        outputs = model(test[0])
        accuracy = (outputs.argmax(1) == test[1]).double().mean()
        print(f"epoch {epoch}: test loss {criterion(outputs, test[1]):.9f}, accuracy {accuracy:.4f}")
torch.save(model.state_dict(), sys.argv[3])
