"""Banks of a network with a layer that moves to its last state, and a layer that stays."""

import numpy as np
import torch
from gram_banks import bank_of_features

SIZES = (24, 24, 24, 24, 24, 9)
STEPS = (0, 0.5, 0.8, 0.95, 0.9, 1.0)


def moving(steps=STEPS, sizes=SIZES, seed=0):
    """Features by moment, batch and layer: the first layer moves to its last state, the second one stays."""
    random = np.random.RandomState(seed)
    parts = [[random.randn(n, 6) for n in sizes] for _ in range(3)]
    return [[[(1 - s) * x + s * y, z] for x, y, z in zip(*parts, strict=True)] for s in steps]


def banks_of(moments, layers=("moves", "stays")):
    return [bank_of_features([[*map(torch.tensor, batch)] for batch in each], layers) for each in moments]
