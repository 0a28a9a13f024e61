"""Train a small network with some callbacks."""

from __future__ import annotations

from conftest import Net, loaders, trainer
from lightning.pytorch import LightningModule, seed_everything


class NoValidation(Net):
    validation_step = LightningModule.validation_step


def fit(*callbacks, model=None, **kwargs):
    """Train from a fixed seed; return the model and the Trainer."""
    seed_everything(3, workers=True, verbose=False)
    model = Net() if model is None else model
    used = trainer(*callbacks, **kwargs)
    used.fit(model, *loaders())
    return model, used
