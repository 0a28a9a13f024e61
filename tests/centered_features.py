"""Centered Gram matrices of features, for tests."""

import naive
import numpy as np
from lightning_cka.hsic.centered_grams import CenteredGrams
from lightning_cka.hsic.packed import diagonals
from lightning_cka.hsic.stack import pack_features
from lightning_cka.hsic.subset import first_samples


def centered(features, limit=10**6):
    packed = pack_features(features)
    u, offsets = first_samples(packed, limit)
    grams = CenteredGrams(u, diagonals(packed._replace(offsets=offsets)))
    return grams, packed.scales.double()


def gram(x):
    x = np.asarray(x, np.float64).reshape(len(x), -1)
    return naive.fast_gram(x - x.mean(0))
