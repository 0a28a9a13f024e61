"""Compare the layers of two trained networks, a CNN and an MLP, without a Trainer. Takes about 20 seconds."""

from __future__ import annotations

import argparse
import itertools
from collections import OrderedDict
from pathlib import Path

import torch
from digits import LAYERS, DigitsCNN, digits
from lightning_cka import compare_models
from torch import nn
from torch.utils.data import DataLoader


def make_mlp(widths):
    """Return linear layers named linear1, linear2, ... with ReLUs between them."""
    layers = OrderedDict(flatten=nn.Flatten())
    for i, (inputs, outputs) in enumerate(itertools.pairwise(widths), start=1):
        layers |= {f"linear{i}": nn.Linear(inputs, outputs), f"relu{i}": nn.ReLU()}
    layers.popitem()  # No ReLU after the logits.
    return nn.Sequential(layers)


def train(model, loader, epochs):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15, help="epochs to train each network")
    parser.add_argument("--output", type=Path, default=Path("runs/compare"), help="folder for the figure")
    args = parser.parse_args()

    torch.manual_seed(0)
    training, validation = digits()
    cnn, mlp = DigitsCNN(), make_mlp([64, 128, 128, 128, 64, 10])
    for model in (cnn, mlp):
        train(model, DataLoader(training, batch_size=64, shuffle=True), args.epochs)

    # The loader shuffles: batches of similar samples would bias CKA. Layers are patterns, names or classes.
    loader = DataLoader(validation, batch_size=112, shuffle=True)
    result = compare_models(cnn, mlp, loader, LAYERS, reference_layers=nn.Linear)

    print("\nFor each layer of the CNN, the most similar one of the MLP:")
    # Rows of the matrix are layers of the CNN, columns are layers of the MLP.
    for name, row, errors in zip(result.layers, result.matrix, result.standard_error, strict=True):
        best = int(row.argmax())
        print(f"  {name:6} {result.reference_layers[best]}  CKA {row[best]:.3f} ± {errors[best]:.3f}")
    path = args.output / "cnn_and_mlp.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, _ = result.plot(add_text=True)
    figure.savefig(path)
    print(f"Figure: {path}")


if __name__ == "__main__":
    main()
