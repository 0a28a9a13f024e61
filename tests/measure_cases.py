"""All measures with their naive references, for tests that run over every measure."""

from functools import partial

import naive
import pytest
from lightning_cka import RSA, MutualKNN, Ridge
from lightning_cka.hsic.measure import CKA

MEASURES = ("cka", "mutual_knn", "rsa", "ridge")

OBJECTS = {"cka": CKA(), "mutual_knn": MutualKNN(), "rsa": RSA(), "ridge": Ridge()}

TITLES = {"cka": "CKA", "mutual_knn": "mutual kNN", "rsa": "RSA", "ridge": "ridge CKA"}

WEIGHTS = {
    "cka": lambda n: n * (n - 3),
    "mutual_knn": lambda n: n * max(1, round(0.1 * n)) * (1 - max(1, round(0.1 * n)) / (n - 1)),
    "rsa": lambda n: n * (n - 1) / 2,
    "ridge": lambda n: n,
}
"""Weights of batches, from the definitions: the expected squared norm of a vector."""

NAIVE = {
    "cka": naive.minibatch_cka,
    "mutual_knn": partial(naive.minibatch_similarity, vector=naive.knn_vector),
    "rsa": partial(naive.minibatch_similarity, vector=naive.rsa_vector),
    "ridge": partial(naive.minibatch_similarity, vector=naive.ridge_vector),
}
"""Similarity of all pairs of layers, from the features."""

over_measures = pytest.mark.parametrize("measure", MEASURES)
over_others = pytest.mark.parametrize("measure", MEASURES[1:])
