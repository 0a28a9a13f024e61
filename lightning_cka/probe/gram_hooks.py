"""The forward hooks that turn each layer's output into a Gram matrix."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cka.hsic.grams import Workspace
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.hsic.stack import GramStack
from lightning_cka.probe.block_features import BlockFeatures
from lightning_cka.probe.features import read_tensor, to_features
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.layers import LayerPlan
from lightning_cka.probe.repeated_calls import RepeatedCalls
from lightning_cka.runtime.temporary_hook import TemporaryHook
from lightning_cka.runtime.text import describe

_REMOVED = "is no longer in the model"
_SIZES = re.compile(r"\([\d, ]*\)|\d+")
"""What may be different in each batch. A layer is warned of once."""
_NO_CALL = "call= needs to know before that its features must be kept"

Observer = Callable[[int, Tensor], None]
"""Called inside the forward hook, with a layer's row and its features ``(n, ...)``."""


@dataclass
class BlockMemory:
    """Memory that is used again from block to block."""

    grams: Workspace = field(default_factory=Workspace)
    """Memory of Gram matrices."""
    features: dict[int, Tensor] = field(default_factory=dict)
    """Features of a block that has several forward passes, by row."""


class GramHooks:
    """Forward hooks that fill in the Gram matrices of one block.

    An output is reduced to its Gram matrix inside the hook, so that activations of different layers are never held
    together. If the block has several forward passes, the features of all layers are kept until the last one.

    Args:
        num_samples: Number of samples n in the block.
        plan: The layers, as `dry_run` found them.
        forward_settings: The feature function, and the device of the Gram matrices.
        memory: Memory that the hooks of the next block use again.
        observe: Called with the features of each layer. None: no observer.
    """

    def __init__(
        self,
        num_samples: int,
        plan: LayerPlan,
        forward_settings: ForwardSettings,
        memory: BlockMemory,
        *,
        observe: Observer | None = None,
    ) -> None:
        self._plan = plan
        self._forward_settings = forward_settings
        self._observe = observe
        self._joined = BlockFeatures(memory.features, num_samples)
        self._undefined: dict[str, str] = {}
        self._stack = GramStack(
            len(plan.names), num_samples, dtype=torch.float32, device=forward_settings.device, workspace=memory.grams
        )

    @contextmanager
    def registered(
        self, modules: Mapping[str, nn.Module], num_samples: int, start: int = 0, mask: Tensor | None = None
    ) -> Iterator[None]:
        """Register the hooks on the plan's layers for one forward pass, and remove them at the end.

        Args:
            modules: The model's layers, by name.
            num_samples: Number of samples of the forward pass.
            start: Number of samples in the block's earlier forward passes.
            mask: ``(n, T)``: which tokens are not padding. None: all.
        """
        self._n, self._first, self._mask = num_samples, start, mask
        self._pending = set(self._plan.names)
        self._calls = RepeatedCalls(self._forward_settings.call)
        self._reasons: dict[str, str] = {}
        with ExitStack() as handles:
            for row, name in enumerate(self._plan.names):
                if name in modules:
                    self._plan.warned.discard((name, _REMOVED))  # It may be removed again.
                    handles.enter_context(modules[name].register_forward_hook(self._hook(row, name)))
                else:
                    self._reasons[name] = _REMOVED
            yield
        self._finish_forward()

    def _hook(self, row: int, name: str) -> TemporaryHook:
        waits = self._forward_settings.call != "first" and name in self._plan.repeated

        def read(output: Any) -> None:
            if name in self._pending:
                self._pending.remove(name)
            elif self._forward_settings.call == "first":
                return
            elif not waits:
                self._reasons[name] = f"ran several times, though once in the first batch: {_NO_CALL}"
                return
            # A frozen layer may run in inference mode, in which lasting memory can be neither made nor written to.
            with torch.inference_mode(False), torch.no_grad():
                self._take(row, name, output, waits=waits)

        return TemporaryHook(read)

    def _take(self, row: int, name: str, output: Any, *, waits: bool) -> None:
        """Compute the Gram matrix of one layer's output, or keep its features until its last call."""
        if self._forward_settings.call == "last":
            self._reasons.pop(name, None)  # An earlier call does not count.
        features = self._features(name, output)
        if features is None:
            self._reasons[name] = f"gave {describe(output)} for a batch of {self._n} samples"
        elif not waits:
            self._add(row, features)
        elif reason := self._calls.add(name, features):
            self._reasons[name] = reason

    def _features(self, name: str, output: Any) -> Tensor | None:
        batch_dim, feature_fn = self._plan.batch_dims[name], self._forward_settings.feature_fn
        tensor = read_tensor(output, feature_fn)
        if tensor is None or tensor.ndim <= batch_dim or tensor.shape[batch_dim] != self._n:
            return None
        return to_features(tensor, batch_dim, feature_fn, self._mask)

    def _add(self, row: int, features: Tensor) -> None:
        block = self._joined.add(row, features, self._first)
        if isinstance(block, str):
            self._reasons[self._plan.names[row]] = block
        elif block is not None:
            if self._observe is not None:
                self._observe(row, block)
            self._stack.add(row, block)

    def _finish_forward(self) -> None:
        """Take the features of layers that ran several times, and remember which layers are undefined."""
        for row, name in enumerate(self._plan.names):
            features = self._calls.result(name)
            if name in self._pending:
                self._reasons.setdefault(name, "did not run on every probe batch")
            if features is not None and name not in self._reasons:
                self._add(row, features)
        for name, reason in self._reasons.items():
            self._undefined.setdefault(name, reason)

    def packed(self) -> PackedGrams:
        """Return the Gram matrices. A layer without one has ``nan``. The first time, a warning tells why."""
        for row, name in enumerate(self._plan.names):
            if name in self._undefined:
                self._set_undefined(row, name, self._undefined[name])
        return self._stack.packed()

    def _set_undefined(self, row: int, name: str, reason: str) -> None:
        # Only this process may see the reason, so it must not raise: the others would wait for it.
        problem = name, _SIZES.sub("", reason)
        if problem not in self._plan.warned:
            self._plan.warned.add(problem)
            warnings.warn(f"layer '{name}' {reason}: its CKA is nan", stacklevel=3)
        with torch.inference_mode(False), torch.no_grad():
            self._stack.set_undefined(row)
