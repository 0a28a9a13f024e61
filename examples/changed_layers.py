"""Changes of a layer, and what CKA, the second opinions and the flags say about each, for `reliability.py`.

A CNN learns scikit-learn's digits. The outputs of one of its layers are compared with changed copies of themselves.

In the changes, a class moves, near or far; half of the samples move, chosen by class or at random; one sample becomes
an outlier; or nothing but a dominant direction stays, which is five times as strong as all others together.
"""

from __future__ import annotations

import warnings

import torch
from digits import DigitsCNN, digits
from lightning_cka import MutualKNN, Thresholds, compare_models
from lightning_cka.compare.flag_messages import flag_label
from plain_cnn import minimise
from torch import nn
from torch.utils.data import DataLoader

SAMPLES = 256
"""Validation images, as one batch."""
MOVED_CLASS = 3
OUTLIER = 37
MEASURES = {
    "cka": "linear CKA",
    "rbf": "RBF CKA",
    "mutual_knn": "mutual kNN",
    "mutual_knn-2": "(uncorrected)",
    "rsa": "RSA",
    "ridge": "ridge CKA",
}
"""Heads of the columns, by the key of the measure in results; "rbf": CKA with this kernel."""


class Side(nn.Module):
    """A model whose layer "features" outputs one of the two representations in a batch (n, 2, d).

    `compare_models` compares models; here the features are given.
    """

    def __init__(self, index):
        super().__init__()
        self.index = index
        self.features = nn.Identity()

    def forward(self, batch):
        return self.features(batch[:, self.index])


def compared(x, y, **options):
    """Return the result of comparing two representations (n, d) as one batch, and the last warning or ""."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        batches = [torch.stack([x, y], 1)]
        result = compare_models(Side(1), Side(0), batches, ["features"], progress_bar=False, **options)
    return result, str(caught[-1].message) if caught else ""


def trained_layer(name, epochs):
    """Return the outputs (n, d) of a layer of a trained network for validation images, and their labels."""
    torch.manual_seed(0)
    model = DigitsCNN(16)
    training, validation = digits()
    loader = DataLoader(training, batch_size=64, shuffle=True, drop_last=True)
    batches = (batch for _ in range(epochs) for batch in loader)
    losses = (nn.functional.cross_entropy(model(images), labels) for images, labels in batches)
    minimise(model, losses, epochs * len(loader), max_lr=3e-3, weight_decay=0.01)
    images, labels = validation[:SAMPLES]
    outputs = []
    handle = model.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    with handle, torch.no_grad():
        model(images)
    return outputs[0].flatten(1), labels


def changes_of(x, labels):
    """Return pairs of representations by the name of a change: a layer (n, d), and its changed copy."""
    torch.manual_seed(0)
    std, rows = x.std(0), torch.arange(len(x))[:, None]
    in_class, is_even, in_half = (
        (labels == MOVED_CLASS)[:, None],
        (labels % 2 == 0)[:, None],
        torch.rand(len(x), 1) < 0.5,
    )
    shift = 10 * std.norm() * nn.functional.normalize(torch.randn(x.shape[1]), dim=0)
    along = torch.randn(len(x), 1) * shift / 2
    return {
        "one class moved by 3 SD": (x, x + 3 * std * in_class),
        "one class moved by 30 SD": (x, x + 30 * std * in_class),
        "even digits moved": (x, x + shift * is_even),
        "a random half moved": (x, x + shift * in_half),
        "one sample times 100": (x, torch.where(rows == OUTLIER, 100 * x, x)),
        "only a dominant direction shared": (x + along, std * torch.randn_like(x) + along),
    }


def print_changes(layer="fc1", epochs=10):
    """Print what the measures and the flags say about each change."""
    x, labels = trained_layer(layer, epochs)
    print(f"\nChanges of a layer: {layer} of a trained network, and a changed copy of it (n = {SAMPLES})")
    print(f"{'':34}" + "".join(f"{head:>15}" for head in MEASURES.values()))
    for name, pair in changes_of(x, labels).items():
        results, _ = compared(*pair, measures=["cka", "mutual_knn", MutualKNN(corrected=False), "rsa", "ridge"])
        results["rbf"], _ = compared(*pair, kernel="rbf", thresholds=Thresholds.off())
        print(f"{name:34}" + "".join(f"{results[measure].matrix.item():15.2f}" for measure in MEASURES))
        for flag in results["cka"].flags:
            print(f"    {flag.reason}: {flag_label(flag._replace(layer=layer))}")
