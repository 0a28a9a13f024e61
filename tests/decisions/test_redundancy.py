"""Redundant layers: against naive intervals, on planted blocks, and what must not be claimed."""

import warnings
from dataclasses import replace
from pathlib import Path

import naive
import numpy as np
import pytest
import torch
from gram_banks import bank_of_features
from lightning_cka import CKAResult, Thresholds, compare_banks, compare_models
from lightning_cka.decisions.redundancy import batches_needed, redundancy, redundancy_table
from scipy.stats import t
from torch import nn

OFF = Thresholds.off()
OLD = Path(__file__).parents[1] / "data" / "v0.1.0" / "result-self.json"


def features(sizes, num_batches=8, n=32, noise=0.1, width=6, seed=0):
    """Features by batch and layer: the layers of a block are rotations of one latent representation, with noise."""
    random = np.random.RandomState(seed)
    rotations = [np.linalg.qr(random.randn(width, width))[0] for _ in range(sum(sizes))]
    batches = []
    for _ in range(num_batches):
        latent = [random.randn(n, width) for size in sizes for _ in range(size)]
        first = [place for size, start in zip(sizes, np.cumsum([0, *sizes]), strict=False) for place in [start] * size]
        layers = [latent[start] @ q + noise * random.randn(n, width) for start, q in zip(first, rotations, strict=True)]
        batches.append(layers)
    return batches


def result_of(batches, **kwargs):
    names = [f"layer{place}" for place in range(len(batches[0]))]
    bank = bank_of_features([[torch.tensor(x) for x in batch] for batch in batches], names)
    return compare_banks(bank, bank, thresholds=OFF, **kwargs)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_changes_and_intervals_are_those_of_the_naive_jackknife(level):
    batches = features([2, 1, 2], n=12, noise=0.5)
    found = result_of(batches).redundancy(level=level)
    value, error, _ = naive.jackknife(batches, batches)
    assert [(step.before, step.layer) for step in found.consecutive] == [
        (f"layer{place}", f"layer{place + 1}") for place in range(4)
    ]
    for place, step in enumerate(found.consecutive):
        change, half = 1 - value[place, place + 1], error[place, place + 1] * t.ppf((1 + level) / 2, len(batches) - 1)
        expected = (change, error[place, place + 1], change - half, change + half)
        assert (step.change, step.standard_error, step.low, step.high) == pytest.approx(expected, abs=1e-6)
    order = np.argsort([1 - value[place, place + 1] for place in range(4)])
    assert [step.layer for step in found.removable] == [f"layer{place + 1}" for place in order]
    assert set(found.removable) == set(found.consecutive)


@pytest.mark.parametrize("sizes", [[4], [1, 1, 1], [3, 1, 4], [2, 2, 2, 5]])
@pytest.mark.parametrize("seed", range(3))
def test_planted_blocks_are_found(sizes, seed):
    batches = features(sizes, seed=seed)
    found = redundancy(result_of(batches))
    names = iter(f"layer{place}" for place in range(sum(sizes)))
    assert found.blocks == [[next(names) for _ in range(size)] for size in sizes]
    first_of_blocks = {names[0] for names in found.blocks}
    changes = [step.layer in first_of_blocks for step in found.removable]
    assert changes == sorted(changes)  # Steps within blocks come before those to the next block.


def test_layers_are_alike_if_the_lower_end_is_above_the_limit():
    result = result_of(features([2]))
    (step,) = redundancy(result).consecutive
    together, apart = [["layer0", "layer1"]], [["layer0"], ["layer1"]]
    low, high = 1 - step.high, 1 - step.low
    assert low < 1 - step.change - 0.001
    for alike, is_alike, blocks in (
        (low - 1e-6, True, together),
        (low + 1e-6, None, apart),
        (1 - step.change, None, apart),
        (high - 1e-6, None, apart),
        (high + 1e-6, False, apart),
    ):
        found = redundancy(result, alike)
        assert (found.is_alike(step), found.blocks) == (is_alike, blocks)


def test_a_block_needs_all_pairs_and_not_only_neighbours():
    """A slow drift: neighbours are alike, the ends are not."""
    random = np.random.RandomState(0)
    batches = []
    for _ in range(16):
        start, end = random.randn(2, 64, 6)
        batches.append([np.cos(angle) * start + np.sin(angle) * end for angle in np.linspace(0, np.pi / 2, 9)])
    found = redundancy(result_of(batches))
    assert all(found.is_alike(step) for step in found.consecutive)
    assert 1 < len(found.blocks) < 9


def test_few_batches_give_no_advice():
    result = result_of(features([2, 2], num_batches=3))
    with pytest.warns(UserWarning, match=r"no advice: .* the probe set has 3\.0 effective batches"):
        found = result.redundancy()
    assert "needs about four batches" in found.note
    assert (found.blocks, found.removable) == ([], [])
    assert [step.change for step in found.consecutive] == pytest.approx(1 - result.matrix.diagonal(1).numpy())
    assert all(np.isnan([step.low, step.high]).all() for step in found.consecutive)
    assert "no advice" in repr(found)
    assert "no advice" in redundancy_table(found)
    without_errors = redundancy(replace(result, standard_error=None))
    assert "no standard errors. Compare the Gram banks again" in without_errors.note
    assert (without_errors.blocks, without_errors.removable) == ([], [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result_of(features([2, 2], num_batches=4)).redundancy()


@pytest.mark.filterwarnings("ignore:CKA is nan:UserWarning")
def test_undefined_layers_are_left_out_and_said():
    batches = features([2, 3])
    for batch in batches:
        batch[3][:] = 1.0
    found = redundancy(result_of(batches))
    assert found.undefined == ["layer3"]
    assert [(step.before, step.layer) for step in found.consecutive][-1] == ("layer2", "layer4")
    assert found.blocks == [["layer0", "layer1"], ["layer2", "layer4"]]
    assert "left out, because their CKA is nan: layer3" in redundancy_table(found)


def test_what_is_refused():
    batches = features([2])
    one, other = (bank_of_features([[torch.tensor(x) for x in batch] for batch in batches], ("a", "b")) for _ in "ab")
    other.model_name = "other"
    with pytest.raises(ValueError, match=r"compares model with other: take a result of reference=\"self\""):
        compare_banks(one, other, thresholds=OFF).redundancy()
    for arguments, message in (
        ({"alike": 1.0}, r"alike must be in \(0, 1\), but is 1\.0"),
        ({"alike": 0}, "alike must be in"),
        ({"level": 1.0}, r"level must be in \(0, 1\), but is 1\.0"),
    ):
        with pytest.raises(ValueError, match=message):
            compare_banks(one, one, thresholds=OFF).redundancy(**arguments)


def test_files_of_version_0_1_0_and_saved_results_have_what_it_takes(tmp_path):
    result = CKAResult.load(OLD)
    found = result.redundancy(alike=0.8)
    low, _ = result.confidence_interval()
    assert found.blocks == [["net.0", "net.1"], ["net.4"], ["head"]]
    assert low[0, 1] > 0.8 > low[0, 2]
    assert found.removable[0].layer == "net.1"
    result = result_of(features([3, 2]))
    result.save(tmp_path / "result.json")
    again = CKAResult.load(tmp_path / "result.json").redundancy()
    assert (again.blocks, again.to_rows()) == (result.redundancy().blocks, result.redundancy().to_rows())


def test_rows_and_table_have_the_blocks():
    found = redundancy(result_of(features([2, 1])))
    first, second = found.to_rows()
    assert (first["layer"], first["next_layer"], first["alike"]) == ("layer0", "layer1", True)
    assert (second["alike"], second["block"], second["next_block"]) == (False, 0, 1)
    assert first["low"] < first["change"] < first["high"]
    text = redundancy_table(found)
    assert "layer   next layer  1 - CKA     95 % interval  alike" in text
    assert f"{first['change']:.4f}  {first['low']:.4f} to {first['high']:.4f}    yes" in text
    assert "each pair has a CKA above 0.9, at a level of 95 %):\n  layer0 to layer1 (2 layers)" in text
    assert f"least change if removed: layer1 ({first['change']:.4f}), layer2 (" in text
    assert repr(found).startswith("Redundancy(model: 3 layers in 2 blocks of CKA above 0.9, least change 0.0")


class Backwards(nn.Module):
    """The layer that is made last runs first."""

    def __init__(self):
        super().__init__()
        self.last, self.middle, self.first = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        return self.last(self.middle(self.first(x)).relu())


def test_layers_are_consecutive_in_the_order_of_execution():
    batches, net = [torch.randn(32, 8) for _ in range(4)], Backwards()
    for layers in (None, "*"):
        found = compare_models(net, net, batches, layers, progress_bar=False, thresholds=OFF).redundancy()
        assert [(step.before, step.layer) for step in found.consecutive] == [("first", "middle"), ("middle", "last")]
    found = compare_models(net, net, batches, ["last", "first"], progress_bar=False, thresholds=OFF).redundancy()
    assert [(step.before, step.layer) for step in found.consecutive] == [("last", "first")]  # As the patterns say.


def test_other_measures_have_their_names():
    batches = features([2, 1], n=40)
    results = result_of(batches, measures=["cka", "mutual_knn"])
    found = redundancy(results["mutual_knn"], alike=0.3)
    assert found.consecutive[0].change == pytest.approx(1 - float(results["mutual_knn"].matrix[0, 1]))
    assert "1 - mutual kNN" in redundancy_table(found)


def test_how_many_batches_would_decide():
    """From errors of 0.01 with 8 batches: the half width at the returned number is just below the distance."""
    result = CKAResult(
        torch.tensor([[1.0, 0.905], [0.905, 1.0]]),
        ("a", "b"),
        ("a", "b"),
        torch.full((2, 2), 0.01),
        self_comparison=True,
        effective_batches=8.0,
    )
    found = redundancy(result)
    (step,) = found.consecutive
    assert found.is_alike(step) is None
    number = batches_needed(found, step)

    def half(count):
        return 0.01 * (8 / count) ** 0.5 * t.ppf(0.975, count - 1)

    assert half(number) < 0.005 <= half(number / 1.06)
    assert f"undecided (about {number} batches would do)" in redundancy_table(found)
    exact = redundancy(replace(result, matrix=torch.tensor([[1.0, 0.9], [0.9, 1.0]])))
    assert batches_needed(exact, exact.consecutive[0]) is None
