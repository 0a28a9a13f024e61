"""Keep the states of random generators that a model owns."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

GENERATORS = (torch.Generator, random.Random, np.random.RandomState, np.random.Generator, np.random.BitGenerator)


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
        numpy_state = generator.get_state()
        return lambda: generator.set_state(numpy_state)
    source = generator.bit_generator if isinstance(generator, np.random.Generator) else generator
    state = source.state
    return lambda: setattr(source, "state", state)
