"""The forward hooks that turn each layer's output into a Gram matrix."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cka.hsic.grams import MIN_SAMPLES
from lightning_cka.hsic.packed import PackedGrams
from lightning_cka.probe.block_grams import BlockGrams, BlockMemory, Observer
from lightning_cka.probe.features import read_tensor, to_features
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.layers import LayerPlan
from lightning_cka.probe.repeated_calls import RepeatedCalls
from lightning_cka.probe.tokens import TokenChoice
from lightning_cka.runtime.temporary_hook import TemporaryHook
from lightning_cka.runtime.text import describe

_REMOVED = "is no longer in the model"
_SIZES = re.compile(r"\([\d, ]*\)|\d+")
"""What may be different in each batch. A layer is warned of once."""
_NO_CALL = "call= needs to know before that its features must be kept"


class GramHooks:
    """Forward hooks that fill in the Gram matrices of one block.

    An output is reduced to its Gram matrix inside the hook, so that activations of different layers are never held
    together. If the block has several forward passes, the features of all layers are kept until the last one.

    Args:
        num_samples: Number of samples n in the block.
        plan: The layers, as `dry_run` found them.
        forward_settings: The feature function, and the device of the Gram matrices.
        memories: Memory that the hooks of the next block use again. For ``feature_fn="tokens"``, there is one for each
            token of a sequence: the block then has as many Gram matrices, each with one token of each sequence.
        observe: Called with the features of each layer, for the first Gram matrix only. None: no observer.
    """

    def __init__(
        self,
        num_samples: int,
        plan: LayerPlan,
        forward_settings: ForwardSettings,
        memories: Sequence[BlockMemory],
        *,
        observe: Observer | None = None,
    ) -> None:
        self._plan = plan
        self._forward_settings = forward_settings
        self._undefined: dict[str, str] = {}
        self._hints: dict[str, str] = {}
        self._blocks = [
            BlockGrams(len(plan.names), num_samples, forward_settings.device, memory, None if draw else observe)
            for draw, memory in enumerate(memories)
        ]

    @contextmanager
    def registered(
        self,
        modules: Mapping[str, nn.Module],
        num_samples: int,
        start: int = 0,
        *,
        mask: Tensor | None = None,
        tokens: TokenChoice | None = None,
    ) -> Iterator[None]:
        """Register the hooks on the plan's layers for one forward pass, and remove them at the end.

        Args:
            modules: The model's layers, by name.
            num_samples: Number of samples of the forward pass.
            start: Number of samples in the block's earlier forward passes.
            mask: ``(n, T)``: which tokens are not padding. None: all.
            tokens: Which tokens are samples. None: the sequences are.
        """
        self._n, self._first, self._mask, self._tokens = num_samples, start, mask, tokens
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
            self._hints[name] = self._hint(name, output)
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

    def _hint(self, name: str, output: Any) -> str:
        """Say what to do if the model may split its batches."""
        tensor, batch_dim = read_tensor(output, self._forward_settings.feature_fn), self._plan.batch_dims[name]
        rows = 0 if tensor is None or tensor.ndim <= batch_dim else tensor.shape[batch_dim]
        if not MIN_SAMPLES <= rows < self._n or self._n % rows:
            return ""
        return f". If the model splits batches into parts of {rows}, use batch_size={rows}"

    def _add(self, row: int, features: Tensor) -> None:
        # A draw of tokens has one of each sequence, so that the samples of a Gram matrix are independent.
        draws = [features] if self._tokens is None else self._tokens.of(features).unbind(1)
        for block, part in zip(self._blocks, draws, strict=True):
            if reason := block.add(row, part, self._first):
                self._reasons[self._plan.names[row]] = reason

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

    def packed(self) -> list[PackedGrams]:
        """Return the Gram matrices of each draw; ``nan`` for layers without one. A first warning tells why."""
        for row, name in enumerate(self._plan.names):
            if name in self._undefined:
                self._set_undefined(row, name, self._undefined[name])
        return [block.packed() for block in self._blocks]

    def _set_undefined(self, row: int, name: str, reason: str) -> None:
        # Only this process may see the reason, so it must not raise: the others would wait for it.
        problem = name, _SIZES.sub("", reason)
        if problem not in self._plan.warned:
            self._plan.warned.add(problem)
            warnings.warn(f"layer '{name}' {reason}: its CKA is nan{self._hints.get(name, '')}", stacklevel=3)
        for block in self._blocks:
            block.set_undefined(row)
