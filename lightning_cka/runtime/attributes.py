"""Keep what a forward pass may write to that is neither a parameter nor a buffer, and put it back afterwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from functools import partial
from operator import is_
from types import MethodType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from lightning_cka.runtime.attribute_tables import (
    AttributeTable,
    class_table,
    instance_table,
    script_table,
    slot_table,
)
from lightning_cka.runtime.generator_states import GENERATORS, keep_generator
from lightning_cka.runtime.left_alone import belongs_to_framework, is_atom, is_left_alone
from lightning_cka.runtime.metric_states import metric_state_names
from lightning_cka.runtime.tensor_copies import Restore, keep_buffers, keep_tensor

MAX_COPIED_BYTES = 128 * 2**20
"""Tensors and arrays beyond this total are not copied: see `AttributeSnapshot.changed_large_tensors`."""

MAX_ENTRIES = 10_000
"""Of longer containers, the entries are kept, but not what is inside them."""

MAX_OBJECTS = 50_000
"""Further objects are left alone."""

_NUM_COMPARED = 2**16
"""Entries of a large array that are compared, evenly spaced."""

_OWN_OF_MODULES = frozenset({"_parameters", "_buffers", "training"})
"""Entries of a module's ``__dict__`` that have their own way of being restored."""


class AttributeSnapshot:
    """The plain attributes of modules: numbers, tensors, arrays, random generators, containers and simple objects.

    Containers and objects are copied level by level and restored in place, so that all references to them stay valid.
    Objects of frameworks are left alone: a Trainer, a dataset, a data loader, an optimizer, a logger.

    Args:
        modules: The modules whose attributes are kept, and those of their classes.
        parameters: Whether to keep which parameters the modules have. Values of parameters are not kept.

    Attributes:
        hidden_modules: Modules that were found inside attributes, for example in a list, which hides them from
            ``modules()``. They are kept too, with their buffers.
        hidden_parameters: Names and parameters that were found inside attributes and hidden modules.
        left_alone: What is not restored, in words.
    """

    def __init__(self, modules: Iterable[nn.Module], *, parameters: bool = True) -> None:
        self.hidden_modules: list[nn.Module] = []
        self.hidden_parameters: list[tuple[str, Tensor]] = []
        self.left_alone: list[str] = []
        self._keeps_parameters = parameters
        self._restores: list[Restore] = []
        self._seen: set[int] = set()
        self._alive: list[Any] = []
        self._large: list[tuple[str, Callable[[], bool]]] = []
        self._pending: list[tuple[Any, str]] = []
        self._free_bytes = MAX_COPIED_BYTES
        found = list(modules)
        self._seen.update(map(id, found))
        for module in found:
            self._keep_module(module, metric_state_names(module))
        self._keep_pending()

    def restore(self) -> None:
        """Put everything back. An error does not keep the rest from being restored."""
        with ExitStack() as stack:
            for restore in self._restores:
                stack.callback(restore)

    def changed_large_tensors(self) -> list[str]:
        """Return the names of attributes with a tensor or an array that could not be copied and was written to.

        Of arrays without a version, evenly spaced entries are compared.
        """
        return [name for name, has_changed in self._large if has_changed()]

    def _keep_module(self, module: nn.Module, left_alone: Collection[str] = ()) -> None:
        # The tables of hooks hold functions, and the hooks of this package while it runs.
        hooks = [name for name in vars(module) if "_hooks" in name]
        self._keep_table(instance_table(module, {*hooks, *left_alone, *_OWN_OF_MODULES}), type(module).__name__)
        if isinstance(module, torch.jit.ScriptModule):
            self._keep_table(script_table(module), type(module).__name__)
        for cls in type(module).__mro__:
            if id(cls) not in self._seen and not belongs_to_framework(cls) and cls is not object:
                self._seen.add(id(cls))
                self._keep_table(class_table(cls), cls.__name__)
        for table in (module._modules, module._parameters if self._keeps_parameters else None):
            if isinstance(table, dict):
                self._keep_mapping(table)

    def _keep_table(self, table: AttributeTable, owner: str) -> None:
        self._restores.append(table.restore)
        for name, value in table.kept.items():
            if not is_atom(value):
                self._pending.append((value, f"{owner}.{name}"))

    def _keep_pending(self) -> None:
        while self._pending:
            value, name = self._pending.pop()
            if id(value) in self._seen:
                continue
            if len(self._alive) >= MAX_OBJECTS:
                self.left_alone.append(f"attributes beyond the first {MAX_OBJECTS} objects, such as {name}")
                return
            self._seen.add(id(value))
            self._alive.append(value)  # An id is unique only while its object lives.
            self._keep(value, name)

    def _keep(self, value: Any, name: str) -> None:
        kind = type(value)
        for kinds, keep in self._keepers:
            if issubclass(kind, kinds):
                keep(self, value, name)
                break
        if not issubclass(kind, nn.Module | Tensor) and not is_left_alone(kind):
            for table in (instance_table(value), slot_table(value)):
                self._keep_table(table, kind.__name__)

    def _keep_hidden_module(self, module: nn.Module, name: str) -> None:
        for inner in module.modules():
            self._seen.add(id(inner))
            self._alive.append(inner)
            self.hidden_modules.append(inner)
            self._keep_module(inner)
            self.hidden_parameters += [(f"{name}.{each}", p) for each, p in inner.named_parameters(recurse=False)]
            restores, not_kept = keep_buffers(inner)
            self._restores += restores
            self.left_alone += [f"buffer {name}.{buffer}" for buffer in not_kept]

    def _keep_tensor(self, tensor: Tensor, name: str) -> None:
        if isinstance(tensor, nn.Parameter):
            self.hidden_parameters.append((name, tensor))
            return
        if tensor.is_meta:
            return
        if hasattr(tensor, "to_local"):  # A tensor that is sharded over processes: comparing it would communicate.
            tensor = tensor.to_local()
        is_plain = tensor.layout is torch.strided and not tensor.is_nested and not tensor.is_quantized
        if is_plain and tensor.nbytes <= self._free_bytes:
            try:
                self._restores.append(keep_tensor(tensor, compare=True))
                self._free_bytes -= tensor.nbytes
            except Exception:  # noqa: BLE001  # Any class of tensor may be an attribute.
                self.left_alone.append(f"attribute {name}")
        elif not tensor.is_inference():
            version = tensor._version
            self._large.append((name, lambda: tensor._version != version))
        elif is_plain:
            some = _evenly_spaced(tensor.detach().view(-1) if tensor.is_contiguous() else tensor.detach())
            copied = some.clone()
            self._large.append((name, lambda: not torch.equal(some, copied)))

    def _keep_array(self, array: np.ndarray[Any, Any], name: str) -> None:
        if array.dtype.hasobject or not array.flags.writeable:
            return
        is_small = array.nbytes <= self._free_bytes and not isinstance(array, np.memmap)
        watched = array if is_small else _evenly_spaced(array.reshape(-1) if array.flags.c_contiguous else array)
        copied = np.array(watched)
        if not is_small:
            self._large.append((name, lambda: watched.tobytes() != copied.tobytes()))
            return
        self._free_bytes -= array.nbytes

        def restore() -> None:
            if array.tobytes() != copied.tobytes():
                array[...] = copied

        self._restores.append(restore)

    def _keep_mapping(self, mapping: dict[Any, Any], name: str = "") -> None:
        kept = dict(mapping)

        def restore() -> None:
            if list(mapping) != list(kept) or not all(map(is_, mapping.values(), kept.values())):
                mapping.clear()
                for key, value in kept.items():
                    mapping[key] = value

        self._restores.append(restore)
        self._keep_entries(kept.values(), name)

    def _keep_sequence(self, values: list[Any] | deque[Any], name: str) -> None:
        kept = list(values)

        def restore() -> None:
            if len(values) != len(kept) or not all(map(is_, values, kept)):
                values.clear()
                values.extend(kept)

        self._restores.append(restore)
        self._keep_entries(kept, name)

    def _keep_set(self, values: set[Any], name: str) -> None:
        kept = set(values)

        def restore() -> None:
            if values != kept:
                values.clear()
                values.update(kept)

        self._restores.append(restore)
        self._keep_entries(kept, name)

    def _keep_entries(self, values: Collection[Any], name: str) -> None:
        if len(values) <= MAX_ENTRIES:
            self._pending += [(value, name) for value in values if not is_atom(value)]

    def _keep_method(self, method: MethodType, name: str) -> None:
        self._keep_entries([method.__self__], name)

    def _keep_partial(self, function: partial[Any], name: str) -> None:
        self._keep_entries([function.func, *function.args, *function.keywords.values()], name)

    def _keep_generator(self, generator: Any, _name: str) -> None:
        self._restores.append(keep_generator(generator))

    _keepers: ClassVar[tuple[tuple[Any, Callable[[Any, Any, str], None]], ...]] = (
        (nn.Module, _keep_hidden_module),
        (Tensor, _keep_tensor),
        (np.ndarray, _keep_array),
        (dict, _keep_mapping),
        ((list, deque), _keep_sequence),
        (set, _keep_set),
        ((tuple, frozenset), _keep_entries),
        (GENERATORS, _keep_generator),
        (MethodType, _keep_method),
        (partial, _keep_partial),
    )


def _evenly_spaced(values: Any) -> Any:
    """Return at most about `_NUM_COMPARED` entries of a tensor or an array, as a view."""
    return values[:: max(1, len(values) // _NUM_COMPARED)] if values.ndim else values
