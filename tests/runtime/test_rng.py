"""Random states are seeded for a while and then restored."""

import random

import numpy as np
import pytest
import torch
from lightning_cka.runtime.rng import isolated_rng, seed_rng, seeded_generators
from torch.utils.data import DataLoader


def draw():
    return torch.rand(2).tolist(), random.random(), np.random.rand()


def test_random_numbers_are_restored_also_after_an_error():
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


def test_the_seed_determines_all_three_generators():
    numbers = []
    for seed in (3, 3, 4):
        with isolated_rng(seed):
            numbers.append(draw())
    assert numbers[0] == numbers[1]
    assert all(a != b for a, b in zip(numbers[1], numbers[2], strict=True))


def test_numpy_takes_large_seeds_too():
    with isolated_rng(2**32 + 5):
        large = draw()
        seed_rng(5)
        assert np.isclose(draw()[2], large[2])


def test_generators_of_a_loader_are_seeded_and_restored():
    generator = torch.Generator().manual_seed(5)
    loader = DataLoader(range(16), shuffle=True, generator=generator, batch_size=16)
    state = generator.get_state()
    orders = []
    for _ in range(2):
        with seeded_generators(loader, 7):
            orders.append(next(iter(loader)).tolist())
    assert orders[0] == orders[1] != list(range(16))
    assert torch.equal(generator.get_state(), state)
    with pytest.raises(RuntimeError, match="inside"), seeded_generators(loader, 7):
        raise RuntimeError("inside")
    assert torch.equal(generator.get_state(), state)
