"""Random state is restored."""

import random

import numpy as np
import pytest
import torch
from lightning_cka.runtime.rng import isolated_rng


def test_random_state_is_restored_after_an_error():
    def draw():
        return torch.rand(2).tolist(), random.random(), np.random.rand()

    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    expected = draw()
    torch.set_rng_state(states[0]), random.setstate(states[1]), np.random.set_state(states[2])

    def fail():
        with isolated_rng(3):
            draw()
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert draw() == expected
