"""Find layers that adapt another layer, as LoRA does: their own output counts, not those of their parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_cka.probe.features import float_tensors
from lightning_cka.runtime.module_names import takes_hooks
from lightning_cka.runtime.nested import tensors_in
from lightning_cka.runtime.temporary_hook import TemporaryHook, TemporaryInputHook


@dataclass
class _Trial:
    """What is seen of a layer that may adapt its child ``base``."""

    base: str
    parts: list[str]
    """The other layers inside it that have weights."""
    input: Tensor | None = None
    shape: torch.Size | None = None
    base_shape: torch.Size | None = None
    reads_input: dict[str, bool] = field(default_factory=dict)
    """Whether a part's input is that of the layer."""
    shapes: dict[str, torch.Size] = field(default_factory=dict)
    """Shapes of the parts' inputs."""

    @property
    def is_adapter(self) -> bool:
        parts = [name for name in self.parts if name in self.reads_input]
        if self.shape is None or self.shape != self.base_shape or not self.reads_input.get(self.base):
            return False
        # A part that reads what the base gives is the next layer of a block.
        is_block = any(self.shapes[name] == self.base_shape and not self.reads_input[name] for name in parts)
        return not is_block and (not parts or any(self.reads_input[name] for name in parts))


class AdapterSearch:
    """Looks for adapters while a model runs.

    A layer adapts its child if both have the same input and the same output shape, the child has most of the weights,
    and the others read the layer's input, or are used by the layer itself.

    Args:
        modules: The model's layers, by name.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        modules = {name: module for name, module in modules.items() if takes_hooks(module)}
        self._modules = modules
        self._trials: dict[str, _Trial] = {}
        for name, module in modules.items():
            base = _largest_child(name, module, modules)
            if base is not None:
                inside = [other for other in modules if other.startswith(f"{name}.") and other != base]
                parts = [other for other in inside if _has_weights(modules[other])]
                self._trials[name] = _Trial(base, parts)

    @property
    def found(self) -> list[str]:
        """Return the names of the adapters. Those inside another one are left out."""
        names = [name for name, trial in self._trials.items() if trial.is_adapter]
        return [name for name in names if not any(name.startswith(f"{other}.") for other in names)]

    @contextmanager
    def registered(self) -> Iterator[None]:
        """Register the hooks, and remove them at the end."""
        with ExitStack() as handles:
            for name, trial in self._trials.items():
                module, base = self._modules[name], self._modules[trial.base]
                handles.enter_context(module.register_forward_pre_hook(_keep_input(trial), with_kwargs=True))
                for part in (trial.base, *trial.parts):
                    hook = _compare_input(trial, part)
                    handles.enter_context(self._modules[part].register_forward_pre_hook(hook, with_kwargs=True))
                handles.enter_context(base.register_forward_hook(_keep_base_shape(trial)))
                handles.enter_context(module.register_forward_hook(_keep_shape(trial)))
            yield


def _largest_child(name: str, module: nn.Module, modules: Mapping[str, nn.Module]) -> str | None:
    """Return the child that has more than half of a module's weights, but not all, and no child with weights."""
    total = _num_weights(module)
    depth = name.count(".") + 1
    children = [other for other in modules if other.startswith(f"{name}.") and other.count(".") == depth]
    for child in children:
        inner = modules[child]
        if total / 2 < _num_weights(inner) < total and not any(map(_has_weights, inner.children())):
            return child
    return None


def _num_weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _has_weights(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _keep_input(trial: _Trial) -> TemporaryInputHook:
    def keep(inputs: Any) -> None:
        trial.input = _first_tensor(inputs)

    return TemporaryInputHook(keep)


def _compare_input(trial: _Trial, name: str) -> TemporaryInputHook:
    def compare(inputs: Any) -> None:
        tensor = _first_tensor(inputs)
        if trial.input is not None and tensor is not None:
            trial.reads_input[name] = _is_same(trial.input, tensor)
            trial.shapes[name] = tensor.shape

    return TemporaryInputHook(compare)


def _keep_base_shape(trial: _Trial) -> TemporaryHook:
    def keep(output: Any) -> None:
        trial.base_shape = _shape(output)

    return TemporaryHook(keep)


def _keep_shape(trial: _Trial) -> TemporaryHook:
    def keep(output: Any) -> None:
        trial.shape, trial.input = _shape(output), None

    return TemporaryHook(keep)


def _first_tensor(inputs: Any) -> Tensor | None:
    """Return the first tensor among a call's arguments, if its entries can be compared."""
    tensor = next(tensors_in(inputs), None)
    return None if tensor is None or tensor.is_nested or tensor.layout is not torch.strided else tensor


def _shape(output: Any) -> torch.Size | None:
    found = next(float_tensors(output), None)
    return found.shape if isinstance(found, Tensor) and not found.is_nested else None


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal, apart from their dtype."""
    return one is other or (one.shape == other.shape and one.device == other.device and bool((one == other).all()))
