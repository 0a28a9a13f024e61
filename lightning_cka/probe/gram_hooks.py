"""The forward hooks that turn each layer's output into a Gram matrix."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cka.hsic.grams import Workspace
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.hsic.stack import GramStack
from lightning_cka.probe.features import read_tensor, to_features
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.layers import LayerPlan
from lightning_cka.runtime.temporary_hook import TemporaryHook
from lightning_cka.runtime.text import describe

Observer = Callable[[int, Tensor], None]
"""Called inside the forward hook, with a layer's row and its features ``(n, ...)``."""


class GramHooks:
    """Forward hooks that fill in the Gram matrices of one batch.

    An output is reduced to its Gram matrix inside the hook, so that activations of different layers are never held
    together.

    Args:
        num_samples: Number of samples n in the batch.
        plan: The layers, as `dry_run` found them.
        forward_settings: The feature function, and the device of the Gram matrices.
        workspace: Memory that the hooks of the next batch use again.
        observe: Called with the features of each layer. None: no observer.
        mask: ``(n, T)``: which tokens are averaged for ``feature_fn="mean"``. None: all.
    """

    def __init__(
        self,
        num_samples: int,
        plan: LayerPlan,
        forward_settings: ForwardSettings,
        workspace: Workspace,
        *,
        observe: Observer | None = None,
        mask: Tensor | None = None,
    ) -> None:
        self._n = num_samples
        self._plan = plan
        self._forward_settings = forward_settings
        self._observe = observe
        self._mask = mask
        self._pending = set(plan.names)
        self._stack = GramStack(
            len(plan.names), num_samples, dtype=torch.float32, device=forward_settings.device, workspace=workspace
        )

    @contextmanager
    def registered(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Register the hooks on the plan's layers, and remove them at the end."""
        with ExitStack() as handles:
            for row, name in enumerate(self._plan.names):
                handles.enter_context(modules[name].register_forward_hook(self._hook(row, name)))
            yield

    def _hook(self, row: int, name: str) -> TemporaryHook:
        def add(output: Any) -> None:
            if name in self._pending:  # If a module is called several times, the first call counts.
                self._pending.remove(name)
                self._add(row, name, output)

        return TemporaryHook(add)

    def _add(self, row: int, name: str, output: Any) -> None:
        """Compute the Gram matrix of one layer's output."""
        batch_dim, feature_fn = self._plan.batch_dims[name], self._forward_settings.feature_fn
        tensor = read_tensor(output, feature_fn)
        if tensor is None or tensor.ndim <= batch_dim or tensor.shape[batch_dim] != self._n:
            self._set_undefined(row, f"layer '{name}' gave {describe(output)} for a batch of {self._n} samples")
            return
        # A frozen layer may run in inference mode, in which memory that outlives it can be neither made nor written to.
        with torch.inference_mode(False), torch.no_grad():
            features = to_features(tensor, batch_dim, feature_fn, self._mask)
            if self._observe is not None:
                self._observe(row, features)
            self._stack.add(row, features)

    def _set_undefined(self, row: int, reason: str) -> None:
        # Only this process may see the reason, so it must not raise: the others would wait for it.
        warnings.warn(f"{reason}: its CKA is nan", stacklevel=3)
        with torch.inference_mode(False), torch.no_grad():
            self._stack.set_undefined(row)

    def packed(self) -> PackedGrams:
        """Return the Gram matrices. A layer that did not run has ``nan``, with a warning."""
        for row, name in enumerate(self._plan.names):
            if name in self._pending:
                self._set_undefined(row, f"layer '{name}' did not run on every probe batch")
        return self._stack.packed()
