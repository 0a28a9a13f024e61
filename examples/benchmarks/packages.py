"""Other packages that compute CKA, each behind the same function call.

Each gets conditions in its favour: a loader that does not shuffle, so that all packages see the same batches, and
``no_grad``. Hooks that it leaves in a model are removed after each comparison.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch


def pytorch_cka(live, reference, loader, names):
    from cka import compute_cka

    (matrix,) = compute_cka(live, reference, loader, layers=names, device=live.device, progress=False)
    return matrix


def torch_cka(live, reference, loader, names):
    from torch_cka import CKA

    comparison = CKA(live, reference, "live", "reference", names, names, device=str(live.device))
    comparison.compare(loader, loader)
    return comparison.export()["CKA"]


def ckatorch(live, reference, loader, names):
    from ckatorch import CKA

    class Flattened(CKA):
        """The package takes (1, samples, features). Without this, it would compare the tokens of each sample."""

        def _hook(self, model, module_name, module, inp, out):
            features = self.first_features if model == "first" else self.second_features
            features[module_name] = out.detach().flatten(1)[None]

    comparison = Flattened(live, reference, names, first_name="live", second_name="reference", device=live.device)
    return comparison(loader, epochs=1)


@dataclass(frozen=True)
class Package:
    """A package that documents the minibatch CKA of Nguyen et al. 2021, from the unbiased HSIC.

    Attributes:
        name: Its name on PyPI.
        module: The module to import.
        compute: A function of two models, a loader and the names of the layers that returns CKA (L, L).
        clamped: Whether it clamps CKA to [0, 1].
        last_batch_only: Whether its result is the CKA of the last batch: each batch overwrites the one before.
    """

    name: str
    module: str
    compute: Callable
    clamped: bool = False
    last_batch_only: bool = False

    @property
    def version(self):
        """The installed version."""
        return importlib.metadata.version(self.name)

    def compare(self, live, reference, loader, names):
        """Return CKA (L, L) without progress bars and warnings, and leave hooks and modes as they were."""
        with _restored_hooks(live, reference), _silent(), torch.no_grad():
            return self.compute(live, reference, loader, names)


PACKAGES = [
    Package("pytorch-cka", "cka", pytorch_cka, clamped=True),
    Package("torch-cka", "torch_cka", torch_cka),
    Package("ckatorch", "ckatorch", ckatorch, last_batch_only=True),
]


def find_installed():
    """Return the packages that can be imported, and the error of each other one by its name."""
    installed, errors = [], {}
    for package in PACKAGES:
        try:
            with _silent():
                importlib.import_module(package.module)
            installed.append(package)
        except ImportError as error:
            errors[package.name] = str(error)
    return installed, errors


@contextlib.contextmanager
def _silent():
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _restored_hooks(*models):
    hooks = [(module, dict(module._forward_hooks)) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for module, before in hooks:
            module._forward_hooks.clear()
            module._forward_hooks.update(before)
        for model in models:
            model.train()
