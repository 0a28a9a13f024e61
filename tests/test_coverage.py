"""Intervals of nominal 95 % contain the true value: a fast part of examples/benchmarks/coverage.py.

Seeds are fixed. A coverage of 0.92 to 0.97 misses a bound in fewer than one of 1000 runs.
"""

import importlib
import sys
from pathlib import Path

import pytest
from scipy.stats import binom

# Populations with far samples are flagged, as they should be.
pytestmark = pytest.mark.filterwarnings("ignore:CKA. layers that", "ignore:CKA. layers whose")

FOLDER = Path(__file__).parents[1] / "examples" / "benchmarks"
REPEATS = 200


def bounds(count):
    """The smallest and the largest share of hits that a coverage of 0.92 to 0.97 allows."""
    return binom.ppf(1e-3, count, 0.92) / count, binom.ppf(1 - 1e-3, count, 0.97) / count


def module(name):
    """Import a script of the folder. Installed modules have the names of its modules, too, and stay importable."""
    names = ("populations", "markdown", name)
    before = {each: sys.modules.pop(each, None) for each in names}
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
        for each in names:
            sys.modules.pop(each, None)
        sys.modules.update({each: found for each, found in before.items() if found is not None})


coverage = module("coverage")
populations = module("populations")


@pytest.mark.parametrize("name", ["Gaussian", "near 1", "one-dimensional", "t3"])
def test_linear_intervals_cover(name):
    found = coverage.measure(name, "linear", 8, REPEATS, mean_repeats=50)
    for interval, count in (("value", REPEATS), ("difference", REPEATS), ("mean", 50)):
        least, most = bounds(count)
        assert least <= found[interval] <= most, interval
    assert found["value"] >= found["delta method"]
    assert abs(found["bias"]) < 4 / REPEATS**0.5
    assert found["error ratio"] == pytest.approx(1, abs=0.25)


def test_rbf_intervals_cover_where_the_bandwidth_matters():
    found = coverage.measure("near 1", "rbf", 16, REPEATS, mean_repeats=0)
    least, most = bounds(REPEATS)
    assert least <= found["value"] <= most
    assert least <= found["difference"] <= most
    assert found["value"] > found["delta method"]  # It ignores that bandwidths vary.
    assert found["MinibatchCKA"] < least  # Its bandwidths are those of one batch. So the bound can be missed.


def test_the_delta_method_misses_the_bound_with_far_samples():
    found = coverage.measure("1 % far", "linear", 8, REPEATS, mean_repeats=0)
    assert found["delta method"] < bounds(REPEATS)[0]
    assert found["value"] > found["delta method"] + 0.05


@pytest.mark.parametrize("name", ["Gaussian", "near 1", "one-dimensional"])
def test_values_from_samples_agree_with_the_closed_form(name):
    draw = populations.POPULATIONS[name]
    exact = draw.linear_truths()
    assert populations.sampled_truths(draw, "linear", 2**15) == pytest.approx(exact, abs=0.01)
    stored = populations.json.loads(populations.VALUES.read_text())[name]["linear"]
    assert stored == pytest.approx(exact, abs=1e-3)
