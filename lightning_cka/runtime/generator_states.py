"""Find, seed and restore random generators that a model or a dataset owns."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch

from lightning_cka.runtime.attribute_tables import cell_table, instance_table, slot_table
from lightning_cka.runtime.left_alone import is_atom

GENERATORS = (torch.Generator, random.Random, np.random.RandomState, np.random.Generator, np.random.BitGenerator)

_MAX_OBJECTS = 10_000
_MAX_ENTRIES = 1000
"""Longer containers hold samples."""


def find_generators(root: object) -> list[Any]:
    """Return the random generators that an object holds at any depth, for example a dataset in its transforms.

    Attributes, containers and closures are searched. No code of the object runs.
    """
    found, pending, seen = [], [root], {id(root): root}
    while pending and len(seen) < _MAX_OBJECTS:
        value = pending.pop()
        if isinstance(value, GENERATORS):
            found.append(value)
            continue
        for part in _parts(value):
            if not is_atom(part) and not isinstance(part, torch.Tensor | np.ndarray | type) and id(part) not in seen:
                seen[id(part)] = part
                pending.append(part)
    return found


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list | tuple | set | frozenset):
        if len(value) <= _MAX_ENTRIES:
            yield from dict.values(value) if isinstance(value, dict) else value
    elif isinstance(value, FunctionType):
        for cell in value.__closure__ or ():
            yield from cell_table(cell).kept.values()
    elif isinstance(value, MethodType):
        yield value.__self__
    elif isinstance(value, partial):
        yield from (value.func, *value.args, *value.keywords.values())
    yield from instance_table(value).kept.values()
    yield from slot_table(value).kept.values()


@contextmanager
def kept_generators(generators: list[Any]) -> Iterator[None]:
    """Restore the states of generators at the end, also after an error."""
    with ExitStack() as stack:
        for generator in generators:
            stack.callback(keep_generator(generator))
        yield


def seed_generator(generator: Any, seed: int) -> None:
    """Put a random generator into the state that it has after seeding."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, random.Random):
        generator.seed(seed)
    else:
        source = getattr(generator, "bit_generator", getattr(generator, "_bit_generator", generator))
        source.state = type(source)(seed).state


def keep_generator(generator: Any) -> Callable[[], object]:
    """Return a function that restores the state that a random generator has now.

    Args:
        generator: An object of one of the classes `GENERATORS`.
    """
    if isinstance(generator, torch.Generator):
        torch_state = generator.get_state().clone()
        return lambda: generator.set_state(torch_state)
    if isinstance(generator, random.Random):
        python_state = generator.getstate()
        return lambda: generator.setstate(python_state)
    if isinstance(generator, np.random.RandomState):
        numpy_state = generator.get_state(legacy=False)
        return lambda: generator.set_state(numpy_state)
    source = generator.bit_generator if isinstance(generator, np.random.Generator) else generator
    state = source.state
    return lambda: setattr(source, "state", state)
