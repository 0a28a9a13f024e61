"""Keep what a forward pass may write to that is neither a parameter nor a buffer, and put it back afterwards."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

Restore = Callable[[], object]

MAX_COPIED_BYTES = 64 * 2**20
"""Larger tensors and arrays are not copied: see `AttributeSnapshot.changed_large_tensors`."""

_NOT_COPIED = frozenset({"torch", "torchmetrics", "lightning", "pytorch_lightning", "lightning_fabric", "logging"})
"""Objects of these packages (a Trainer, an optimizer, a data loader) are left alone."""

_OWN_OF_MODULES = frozenset({"_parameters", "_buffers", "training"})
"""Entries of a module's ``__dict__`` that `lightning_cka.runtime.restore` restores itself."""

_ATOMS = (bool, int, float, complex, str, bytes, type, type(None), torch.dtype, torch.device, torch.Size)


class AttributeSnapshot:
    """The plain attributes of modules: numbers, tensors, arrays, random generators, containers and simple objects.

    Containers and objects are copied level by level and restored in place, so that all references to them stay valid.

    Args:
        modules: The modules whose attributes are kept. Modules that are found inside their attributes (for example in
            a list, which hides them from ``modules()``) are kept too, with their buffers.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self._restores: list[Restore] = []
        self._seen: set[int] = set()
        self._alive: list[Any] = []
        self._large: list[tuple[str, Tensor, int]] = []
        found = list(modules)
        self._seen.update(map(id, found))
        for module in found:
            self._keep_module(module)

    def restore(self) -> None:
        """Put everything back."""
        for restore in reversed(self._restores):
            restore()

    def changed_large_tensors(self) -> list[str]:
        """Return the names of attributes with a tensor that is too large to be copied and was written to."""
        return [name for name, tensor, version in self._large if tensor._version != version]

    def _keep_module(self, module: nn.Module) -> None:
        # The tables of hooks hold functions, and the hooks of this package while it runs.
        left_alone = {name for name in vars(module) if "_hooks" in name} | _OWN_OF_MODULES
        self._keep_attributes(module, left_alone)
        if isinstance(module._modules, dict):
            self._keep_mapping(module._modules)

    def _keep_attributes(self, owner: Any, left_alone: Iterable[str] = ()) -> None:
        attributes = owner.__dict__
        kept = {name: value for name, value in attributes.items() if name not in left_alone}

        def restore() -> None:
            for name in [name for name in attributes if name not in kept and name not in left_alone]:
                del attributes[name]
            attributes.update(kept)

        self._restores.append(restore)
        for name, value in kept.items():
            self._keep(value, f"{type(owner).__name__}.{name}")

    def _keep(self, value: Any, name: str) -> None:
        is_function = callable(value) and not isinstance(value, nn.Module)
        if is_function or isinstance(value, _ATOMS) or id(value) in self._seen:
            return
        self._seen.add(id(value))
        self._alive.append(value)  # An id is unique only while its object lives.
        for kinds, keep in self._keepers():
            if isinstance(value, kinds):
                keep(value, name)
                return
        if type(value).__module__.split(".")[0] not in _NOT_COPIED and hasattr(value, "__dict__"):
            self._keep_attributes(value)

    def _keepers(self) -> list[tuple[Any, Callable[[Any, str], None]]]:
        return [
            (nn.Module, lambda module, _: self._keep_hidden_module(module)),
            (nn.Parameter, lambda *_: None),
            (Tensor, self._keep_tensor),
            (np.ndarray, lambda array, _: self._keep_array(array)),
            (MutableMapping, self._keep_mapping),
            ((list, deque), self._keep_sequence),
            (set, lambda values, _: self._keep_set(values)),
            ((tuple, frozenset), self._keep_entries),
            (torch.Generator, lambda g, _: self._keep_state(g.get_state().clone(), g.set_state)),
            (random.Random, lambda g, _: self._keep_state(g.getstate(), g.setstate)),
            (np.random.RandomState, lambda g, _: self._keep_state(g.get_state(), g.set_state)),
            (np.random.Generator, lambda g, _: self._keep_numpy_generator(g)),
        ]

    def _keep_hidden_module(self, module: nn.Module) -> None:
        for inner in module.modules():
            self._seen.add(id(inner))
            self._alive.append(inner)
            self._keep_module(inner)
            self._keep_mapping(inner._buffers)

    def _keep_tensor(self, tensor: Tensor, name: str) -> None:
        if tensor.layout is not torch.strided or tensor.is_nested or tensor.is_meta:
            return
        if tensor.nbytes > MAX_COPIED_BYTES:
            if not tensor.is_inference():  # Inference tensors have no version.
                self._large.append((name, tensor, tensor._version))
            return
        copied = tensor.detach().clone()

        def restore() -> None:
            # Compared by value: some kernels (batch norm's) write without a new version. Not copied back if equal: a
            # graph that still needs this tensor would be invalid.
            if not torch.equal(tensor, copied):
                with torch.inference_mode():  # Else a tensor that was made in it could not be written to.
                    tensor.copy_(copied)

        self._restores.append(restore)

    def _keep_array(self, array: np.ndarray[Any, Any]) -> None:
        if array.dtype.hasobject or array.nbytes > MAX_COPIED_BYTES or not array.flags.writeable:
            return
        copied = array.copy()

        def restore() -> None:
            array[...] = copied

        self._restores.append(restore)

    def _keep_mapping(self, mapping: MutableMapping[Any, Any], name: str = "") -> None:
        kept = dict(mapping)

        def restore() -> None:
            if list(mapping) != list(kept) or any(mapping[key] is not value for key, value in kept.items()):
                mapping.clear()
                mapping.update(kept)

        self._restores.append(restore)
        self._keep_entries(kept.values(), name)

    def _keep_sequence(self, values: list[Any] | deque[Any], name: str) -> None:
        kept = list(values)

        def restore() -> None:
            if len(values) != len(kept) or any(one is not other for one, other in zip(values, kept, strict=True)):
                values.clear()
                values.extend(kept)

        self._restores.append(restore)
        self._keep_entries(kept, name)

    def _keep_set(self, values: set[Any]) -> None:
        kept = set(values)

        def restore() -> None:
            values.clear()
            values.update(kept)

        self._restores.append(restore)

    def _keep_entries(self, values: Iterable[Any], name: str) -> None:
        for value in values:
            self._keep(value, name)

    def _keep_numpy_generator(self, generator: np.random.Generator) -> None:
        source = generator.bit_generator
        self._keep_state(source.state, lambda state: setattr(source, "state", state))

    def _keep_state(self, state: Any, put_back: Callable[[Any], object]) -> None:
        self._restores.append(lambda: put_back(state))
