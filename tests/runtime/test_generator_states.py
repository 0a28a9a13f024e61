"""Random generators are found, seeded and restored."""

import random
from functools import partial

import numpy as np
import pytest
import torch
from lightning_cka.runtime.generator_states import find_generators, kept_generators, seed_generator

GENERATORS = {
    "torch": (lambda: torch.Generator(), lambda g: torch.rand(3, generator=g).tolist()),
    "numpy": (np.random.default_rng, lambda g: g.random(3).tolist()),
    "old numpy": (np.random.RandomState, lambda g: g.rand(3).tolist()),
    "philox": (lambda: np.random.Generator(np.random.Philox()), lambda g: g.random(3).tolist()),
    "old philox": (lambda: np.random.RandomState(np.random.Philox()), lambda g: g.rand(3).tolist()),
    "bits": (np.random.PCG64, lambda g: g.random_raw(3).tolist()),
    "python": (random.Random, lambda g: [g.random(), g.gauss(0, 1), g.random()]),
}


@pytest.mark.parametrize(("make", "draw"), GENERATORS.values(), ids=GENERATORS)
def test_a_generator_is_seeded_and_restored(make, draw):
    first, second = make(), make()
    draw(first)
    with kept_generators([first]):
        after = draw(first)
    assert draw(first) == after
    seed_generator(first, 7)
    seed_generator(second, 7)
    assert draw(first) == draw(second)
    seed_generator(second, 8)
    assert draw(first) != draw(second)


class Transform:
    __slots__ = ("rng",)

    def __init__(self):
        self.rng = np.random.default_rng(0)


def test_generators_are_found_at_any_depth():
    class Data:
        def __init__(self):
            inner = torch.Generator()
            self.transforms = [Transform(), lambda x: x + torch.rand(1, generator=inner)]
            self.options = {"python": random.Random(0)}
            self.function = partial(np.random.RandomState(0).rand, 3)
            self.samples = list(range(5000))
            self.owner = self

    found = find_generators(Data())
    assert {type(each) for each in found} == {
        np.random.Generator,
        torch.Generator,
        random.Random,
        np.random.RandomState,
    }
    assert find_generators(None) == []
