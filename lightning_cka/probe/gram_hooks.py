"""The forward hooks that reduce each layer's output to a Gram matrix."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cka.hsic.grams import Workspace
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.hsic.stack import GramStack
from lightning_cka.probe.features import read_tensor, to_features, token_mask
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.layers import LayerPlan
from lightning_cka.probe.probe_set import ProbeBatch
from lightning_cka.runtime.text import describe

Observer = Callable[[int, Tensor], None]
"""Called with a layer's row and its features ``(n, ...)``, inside the forward hook."""


def batch_token_mask(batch: ProbeBatch, data: Any, sample_kind: str) -> Tensor | None:
    """Which tokens of a batch are no padding, if it tells."""
    mask = token_mask(data, batch.num_samples)
    if mask is not None and not mask.any(1).all():
        told = zip(batch.samples, mask.any(1).tolist(), strict=True)
        names = ", ".join(str(sample) for sample, has_tokens in told if not has_tokens)
        warn(f"attention_mask leaves no token of samples ({sample_kind}) {names}: their mean is nan")
    return mask


class BatchGrams:
    """Gram matrices of one batch, filled in as the hooks fire."""

    def __init__(
        self,
        num_samples: int,
        plan: LayerPlan,
        forward_settings: ForwardSettings,
        workspace: Workspace,
        observe: Observer | None,
        mask: Tensor | None,
    ) -> None:
        self._observe = observe
        self._mask = mask
        self._n = num_samples
        self._plan = plan
        self._forward_settings = forward_settings
        self._missing = dict.fromkeys(plan.names)
        self._stack = GramStack(
            len(plan.names), num_samples, dtype=torch.float32, device=forward_settings.device, workspace=workspace
        )

    def hook(self, row: int, name: str) -> Callable[[nn.Module, Any, Any], None]:
        """A forward hook that reduces the layer's first output to row ``row``."""
        batch_dim = self._plan.batch_dims[name]

        def reduce(_module: nn.Module, _args: Any, output: Any) -> None:
            if name not in self._missing:
                return  # A module that is called again: the first call counts.
            del self._missing[name]
            tensor = read_tensor(output, self._forward_settings.feature_fn)
            if tensor is None or tensor.ndim <= batch_dim or tensor.shape[batch_dim] != self._n:
                warn(f"layer '{name}' gave {describe(output)} for a batch of {self._n} samples: its CKA is nan")
                self._stack.set_undefined(row)
                return
            features = to_features(tensor, batch_dim, self._forward_settings.feature_fn, self._mask)
            if self._observe is not None:
                self._observe(row, features)
            self._stack.add(row, features)

        return reduce

    def finish(self) -> PackedGrams:
        """The Gram matrices; ``nan`` for layers that gave none."""
        for row, name in enumerate(self._plan.names):
            if name in self._missing:
                warn(f"layer '{name}' did not run on every probe batch: its CKA is nan")
                self._stack.set_undefined(row)
        return self._stack.packed()


def warn(message: str) -> None:
    """Warn on this process: what it saw, others may not have seen."""
    warnings.warn(message, stacklevel=2)
