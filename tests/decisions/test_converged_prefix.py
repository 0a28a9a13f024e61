"""Which first layers have converged: the lower end of an interval against the tolerance, layer by layer."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_cka import CKAResult
from lightning_cka.compare.diagnostics import Diagnostics
from lightning_cka.compare.flags import Flag
from lightning_cka.decisions.converged_prefix import converged_prefix
from scipy.stats import t as student

LAYERS = ("a", "b", "c", "d")


def result(values, errors, batches=8.0):
    """Return a result of a model with its own earlier state; layers other than the same have a CKA of 0."""
    matrix, error = (torch.diag(torch.tensor(each, dtype=torch.float64)) for each in (values, errors))
    return CKAResult(matrix, LAYERS, LAYERS, standard_error=error, effective_batches=batches)


def naive(values, errors, order, tolerance, level, batches=8.0):
    """Return the layers up to the first one whose lower bound is at most 1 - tolerance."""
    passed = []
    for name in order:
        place = LAYERS.index(name)
        if values[place] - student.ppf((1 + level) / 2, batches - 1) * errors[place] <= 1 - tolerance:
            break
        passed.append(name)
    return passed


def test_the_prefix_is_that_of_the_naive_rule():
    """For random values and orders. All lengths occur."""
    random = np.random.default_rng(0)
    lengths = set()
    for _ in range(200):
        values, errors = 1 - random.exponential(0.006, 4), random.exponential(0.002, 4)
        order = list(random.permutation(LAYERS))
        tolerance, level = random.uniform(0.005, 0.05), random.uniform(0.5, 0.99)
        found = converged_prefix(result(values, errors), order, tolerance, level)
        expected = naive(values, errors, order, tolerance, level)
        assert list(found.bounds) == expected
        assert found.stopped_by == (order[len(expected)] if len(expected) < 4 else "")
        assert found.problem == ""
        lengths.add(len(expected))
    assert lengths == {0, 1, 2, 3, 4}


def test_the_bound_is_the_end_of_the_interval():
    bounds = converged_prefix(result([0.999, 0.5, 1, 1], [1e-4, 0, 0, 0]), LAYERS, 0.01).bounds
    assert bounds == {"a": pytest.approx(0.999 - student.ppf(0.975, 7) * 1e-4)}


def test_known_layers_pass_without_a_test():
    found = converged_prefix(result([0.1, 0.999, 0.2, 1], [0.0] * 4), LAYERS, 0.01, known={"a"})
    assert list(found.bounds) == ["b"]
    assert found.stopped_by == "c"


@pytest.mark.parametrize(
    ("change", "passed", "problem"),
    [
        (
            lambda r: replace(r, effective_batches=2.0),
            [],
            r"has no confidence interval: the probe set has 2.0 effective",
        ),
        (lambda r: replace(r, standard_error=None), [], "has no confidence interval"),
        (lambda r: replace(r, matrix=r.matrix * torch.tensor([1, 1, torch.nan, 1])), ["a", "b"], "has no CKA"),
        (lambda r: flagged(r, "b"), ["a"], r"is flagged \(trace_ratio\)"),
        (lambda r: flagged(r, "b", of_reference=True), ["a"], r"is flagged \(trace_ratio\)"),
        (lambda r: replace(r, layers=("a", "x", "c", "d")), ["a"], "has no CKA"),
    ],
)
def test_layers_about_which_nothing_can_be_said_stop_the_prefix(change, passed, problem):
    good = result([1.0] * 4, [0.0] * 4)
    assert list(converged_prefix(good, LAYERS, 0.01).bounds) == list(LAYERS)
    found = converged_prefix(change(good), LAYERS, 0.01)
    assert list(found.bounds) == passed
    assert re.match(problem, found.problem)


def test_lost_rank_does_not_make_cka_unreliable():
    """So that `log_ranks` of a monitor changes no training."""
    lost = flagged(result([1.0] * 4, [0.0] * 4), "b", reason="rank_loss")
    assert list(converged_prefix(lost, LAYERS, 0.01).bounds) == list(LAYERS)


def flagged(good, layer, reason="trace_ratio", **options):
    flags = (Flag(layer, reason, 30.0, 20.0, **options), Flag("the input", "copies", 3.0, 0.01))
    return replace(good, diagnostics=Diagnostics(flags=flags))


@pytest.mark.parametrize("tolerance", [0, 1, -0.1, 1.5])
def test_a_tolerance_out_of_range_raises(tolerance):
    with pytest.raises(ValueError, match=r"tolerance must be in \(0, 1\)"):
        converged_prefix(result([1.0] * 4, [0.0] * 4), LAYERS, tolerance)
