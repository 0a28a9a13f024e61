"""Keep what a forward pass may write to that is neither a parameter nor a buffer, and put it back afterwards."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from enum import Enum
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import _global_forward_hooks, _global_forward_pre_hooks

from lightning_cka.runtime.attribute_tables import (
    HOOKS,
    AttributeTable,
    class_table,
    hook_table,
    instance_table,
    mapping_table,
    script_table,
    sequence_table,
    set_table,
    slot_table,
)
from lightning_cka.runtime.bounded_copies import BoundedCopies
from lightning_cka.runtime.functions import (
    ReachableMethods,
    code_names,
    function_tables,
    is_installed,
    is_own,
    namespace_table,
)
from lightning_cka.runtime.generator_states import GENERATORS, keep_generator
from lightning_cka.runtime.iterators import IteratorCopies, is_python_iterator
from lightning_cka.runtime.left_alone import is_atom, is_left_alone
from lightning_cka.runtime.metric_states import metric_state_names
from lightning_cka.runtime.tensor_copies import Restore, keep_buffers, restore_all

MAX_ENTRIES = 10_000
"""Of longer containers, the entries are kept, but not what is inside them."""

MAX_OBJECTS = 50_000
"""Further objects are left alone."""

_OWN_OF_MODULES = frozenset({"_parameters", "_buffers", "training"})
"""Entries of a module's ``__dict__`` that have their own way of being restored."""

_WITHOUT_ATTRIBUTES = frozenset({dict, list, set, tuple, frozenset})
"""Classes whose objects have entries, but no attributes."""

_KEPT_OTHERWISE = (nn.Module, Tensor, FunctionType, type)
"""Classes whose objects have attributes that are found in another way."""


class AttributeSnapshot:
    """What the code of modules may write to: numbers, tensors, arrays, random generators, containers, simple objects.

    They are found in attributes of the modules, of their classes and hooks, and in what the functions that may run
    hold: closures, defaults and the global names in their code. Containers and objects are copied level by level and
    restored in place, so that all references to them stay valid. Iterators are replaced by copies until then. Objects
    of frameworks are left alone: a Trainer, a dataset, a data loader, an optimizer, a logger.

    Args:
        modules: The modules whose attributes are kept, and those of their classes.
        parameters: Whether to keep which parameters the modules have. Values of parameters are not kept.
        callers: Functions that call methods of the modules. What they hold themselves is not kept.
        owners: Further objects whose attributes are kept, also if their class is a framework's.

    Attributes:
        hidden_modules: Modules that were found inside attributes, for example in a list, which hides them from
            ``modules()``. They are kept too, with their buffers.
        hidden_parameters: Names and parameters that were found inside attributes and hidden modules.
        left_alone: What is not restored, in words.
    """

    def __init__(
        self,
        modules: Iterable[nn.Module],
        *,
        parameters: bool = True,
        callers: Iterable[object] = (),
        owners: Iterable[object] = (),
    ) -> None:
        self.hidden_modules: list[nn.Module] = []
        self.hidden_parameters: list[tuple[str, Tensor]] = []
        self.left_alone: list[str] = []
        self._keeps_parameters = parameters
        self._copies = BoundedCopies()
        self._restores: list[Restore] = []
        self._seen: set[int] = set()
        self._alive: list[Any] = []
        self._pending: list[tuple[Any, str]] = []
        self._functions: list[FunctionType] = []
        self._methods = ReachableMethods(callers)
        self._classes: set[type] = set()
        self._iterators = IteratorCopies()
        found = list(modules)
        self._seen.update(map(id, found))
        for module in found:
            self._keep_module(module, metric_state_names(module))
        for owner in owners:
            self._keep_object(owner)
        for hooks in (_global_forward_pre_hooks, _global_forward_hooks):
            self._keep_container(mapping_table(hooks), "hooks of all modules")
        self._keep_pending()
        self.left_alone += self._iterators.not_copied

    def restore(self) -> None:
        """Put everything back. An error does not keep the rest from being restored."""
        restore_all([*self._restores, *self._copies.restores])

    def changed_large_tensors(self) -> list[str]:
        """See `BoundedCopies.changed`."""
        return self._copies.changed()

    def advanced_generators(self) -> list[str]:
        """See `IteratorCopies.advanced`."""
        return self._iterators.advanced()

    def _keep_module(self, module: nn.Module, left_alone: Collection[str] = ()) -> None:
        self._keep_table(instance_table(module, {*HOOKS, *left_alone, *_OWN_OF_MODULES}), type(module).__name__)
        self._keep_table(hook_table(module), f"a hook of {type(module).__name__}", with_names=False)
        if isinstance(module, torch.jit.ScriptModule):
            self._keep_table(script_table(module), type(module).__name__)
        self._keep_class(type(module))
        for table in (module._modules, module._parameters if self._keeps_parameters else None):
            if isinstance(table, dict):
                self._seen.add(id(table))  # It is an attribute, too.
                self._keep_container(mapping_table(table), "")

    def _keep_class(self, cls: type) -> None:
        """Keep the data of a class and its bases, and let their methods be searched."""
        for base in cls.__mro__:
            if base not in self._classes and is_own(base) and not issubclass(base, Enum):
                self._classes.add(base)
                self._keep_table(class_table(base), base.__name__)
                self._methods.add_class(base)

    def _keep_table(self, table: AttributeTable, owner: str, *, with_names: bool = True) -> None:
        self._restores.append(table.restore)
        for name, value in table.kept.items():
            if is_atom(value):
                continue
            path = f"{owner}.{name}" if with_names else owner
            if is_python_iterator(value):
                self._iterators.replace(table, name, path)
            else:
                self._pending.append((value, path))

    def _keep_pending(self) -> None:
        """Search what was found, then functions and classes: memory for copies is for attributes first."""
        while True:
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
            self._functions = self._functions or self._methods.new_methods()
            if not self._functions:
                return
            self._keep_function(self._functions.pop())

    def _keep(self, value: Any, name: str) -> None:
        kind = type(value)
        for kinds, keep in self._keepers:
            if issubclass(kind, kinds):
                keep(self, value, name)
                break
        if kind not in _WITHOUT_ATTRIBUTES and not issubclass(kind, _KEPT_OTHERWISE) and not is_left_alone(kind):
            self._keep_object(value)

    def _keep_object(self, value: object) -> None:
        self._keep_class(type(value))
        for table in (instance_table(value), slot_table(value)):
            self._keep_table(table, type(value).__name__)

    def _keep_function(self, function: FunctionType) -> None:
        if not is_own(function):
            return
        names = code_names(function.__code__)
        self._methods.names |= names
        found_before, self._pending = self._pending, []
        for table in function_tables(function, names):
            self._keep_table(table, function.__name__)
            for module in table.kept.values():
                if isinstance(module, ModuleType) and is_own(module) and not is_installed(module):
                    self._keep_table(namespace_table(vars(module), names), module.__name__)
        if is_installed(function):  # What they call in turn is too much to search.
            self._pending = [each for each in self._pending if not isinstance(each[0], FunctionType | type)]
        self._pending += found_before

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
        elif not self._copies.keep_tensor(tensor, name):
            self.left_alone.append(f"attribute {name}")

    def _keep_container(self, table: AttributeTable, name: str) -> None:
        if len(table.kept) <= MAX_ENTRIES:
            self._keep_table(table, name, with_names=False)
        else:
            self._restores.append(table.restore)

    def _keep_entries(self, values: Collection[Any], name: str) -> None:
        if len(values) <= MAX_ENTRIES:
            self._pending += [(value, name) for value in values if not is_atom(value)]

    def _keep_partial(self, function: partial[Any], name: str) -> None:
        self._keep_entries([function.func, *function.args, *function.keywords.values()], name)

    def _keep_generator(self, generator: Any, _name: str) -> None:
        self._restores.append(keep_generator(generator))

    _keepers: ClassVar[tuple[tuple[Any, Callable[[Any, Any, str], None]], ...]] = (
        (nn.Module, _keep_hidden_module),
        (Tensor, _keep_tensor),
        (np.ndarray, lambda self, array, name: self._copies.keep_array(array, name)),
        (dict, lambda self, mapping, name: self._keep_container(mapping_table(mapping), name)),
        ((list, deque), lambda self, values, name: self._keep_container(sequence_table(values), name)),
        (set, lambda self, values, name: self._keep_container(set_table(values), name)),
        ((tuple, frozenset), _keep_entries),
        (GENERATORS, _keep_generator),
        (MethodType, lambda self, method, name: self._keep_entries([method.__self__, method.__func__], name)),
        (partial, _keep_partial),
        (FunctionType, lambda self, function, _: self._functions.append(function)),
        (type, lambda self, cls, _: self._keep_class(cls)),
    )
