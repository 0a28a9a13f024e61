"""`seed_ceiling`: what trainings reach that differ in their seed alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from gram_banks import make_bank
from lightning_cka import CKAResult, compare_banks, seed_ceiling
from naive import jackknife_over_seeds

SIZES = (16, 16, 16, 16, 9)

pytestmark = pytest.mark.filterwarnings("ignore:(CKA|mutual kNN|RSA).*:UserWarning")


def seeds(count=4, **options):
    return [make_bank(1 + variant, sizes=SIZES, **options) for variant in range(count)]


def ceiling_of(banks, **options):
    return seed_ceiling(banks, progress_bar=False, **options)


@pytest.mark.parametrize("options", [{}, {"kernel": "rbf"}, {"unbiased": False}], ids=str)
def test_values_are_means_over_pairs_of_seeds(options):
    banks = seeds()
    found = ceiling_of(banks, **options)
    results = {(i, j): compare_banks(banks[i], banks[j], **options) for i in range(4) for j in range(4) if i != j}
    assert (found.layers, found.num_seeds) == (("a", "b.c"), 4)
    for row, name in enumerate(found.layers):
        matrix = np.eye(4)
        for pair, result in results.items():
            matrix[pair] = result.same_named()[name]
        pairs = np.triu_indices(4, 1)
        assert float(found.values[row]) == pytest.approx(matrix[pairs].mean(), abs=1e-12)
        assert float(found.seed_error[row]) == pytest.approx(jackknife_over_seeds(matrix), abs=1e-12)
        without = np.mean(
            [results[i, j].left_out_batches.all_pairs[:, row, row].numpy() for i, j in zip(*pairs, strict=True)], axis=0
        )
        batches = results[0, 1].effective_batches
        error = np.sqrt((1 - 1 / batches) * ((without - matrix[pairs].mean()) ** 2).sum())
        assert float(found.batch_error[row]) == pytest.approx(error, rel=1e-6)


def test_an_interval_respects_seeds_and_batches():
    found = ceiling_of(seeds())
    half = found.bounds(0.9)[1] - found.values
    for alone in (replace(found, seed_error=0 * found.seed_error), replace(found, batch_error=0 * found.batch_error)):
        assert ((alone.bounds(0.9)[1] - alone.values > 0) & (half > 0)).all()
    errors = (found.batch_error.square() + found.seed_error.square()).sqrt()
    assert (half > 1.64 * errors).all()
    rows = found.to_rows(0.9)
    assert rows[0] == {
        "layer": "a",
        "ceiling": float(found.values[0]),
        "batch_error": float(found.batch_error[0]),
        "seed_error": float(found.seed_error[0]),
        "low": float(found.bounds(0.9)[0][0]),
        "high": float(found.bounds(0.9)[1][0]),
    }


def test_too_few_seeds_or_batches_have_no_interval():
    two = ceiling_of(seeds(2))
    assert two.problem == "no interval of the seed ceiling: it has 2 seeds, and needs 3"
    assert two.bounds()[0].isnan().all()
    assert not two.values.isnan().any()
    few = ceiling_of([make_bank(variant) for variant in range(3)])
    assert few.problem.startswith("no confidence interval: the probe set has 2.")
    assert few.bounds()[0].isnan().all()
    assert ceiling_of(seeds(3)).problem == ""
    with pytest.raises(ValueError, match="expected at least 2 banks, files or folders of runs, but got 1"):
        ceiling_of(seeds(1))


def test_the_level_of_chance():
    assert ceiling_of(seeds(2)).chance == 0.0
    assert ceiling_of(seeds(2), measure="rsa").chance == 0.0
    assert ceiling_of(seeds(2), unbiased=False).chance is None
    random = [make_bank(variant, noise=1e3, sizes=(64,) * 16) for variant in range(1, 4)]
    found = ceiling_of(random)
    low, high = found.bounds(0.999)
    assert ((low < 0) & (high > 0)).all()  # Independent layers.


def test_how_far_a_result_is_below():
    banks = seeds()
    found, result = ceiling_of(banks), compare_banks(make_bank(9, sizes=SIZES, noise=2.0), banks[0])
    rows = found.below(result, 0.9)
    assert [row["layer"] for row in rows] == ["a", "b.c"]
    for place, row in enumerate(rows):
        assert row["cka"] == result.same_named()[row["layer"]]
        assert row["below"] == pytest.approx(row["ceiling"] - row["cka"])
        assert row["low"] < row["below"] < row["high"]
        assert row["ceiling"] == float(found.values[place])
    assert rows[1]["low"] > 0
    # Errors over batches are paired: of the difference to one of its own pairs, little is left but the seeds.
    own = found.below(compare_banks(banks[0], banks[1]), 0.9)
    unpaired = replace(
        found, left_out_batches=replace(found.left_out_batches, values=0 * found.left_out_batches.values)
    )
    assert all(
        row["high"] - row["low"] < other["high"] - other["low"]
        for row, other in zip(own, unpaired.below(compare_banks(banks[0], banks[1]), 0.9), strict=True)
    )
    assert all(np.isnan(row["low"]) for row in ceiling_of(banks[:2]).below(result))
    without = found.below(replace(result, left_out_batches=None))
    assert all(np.isnan(row["low"]) for row in without)


def test_results_that_do_not_fit_raise():
    banks = seeds(3)
    found = ceiling_of(banks)
    with pytest.raises(ValueError, match="the seed ceiling has kernel 'linear', but the result has 'rbf'"):
        found.below(compare_banks(banks[0], banks[1], kernel="rbf"))
    with pytest.raises(ValueError, match="has measure 'cka', but the result has 'rsa'"):
        found.check_fits(compare_banks(banks[0], banks[1], measures="rsa"))
    with pytest.raises(ValueError, match="not of one probe set: they have 5 and 3 batches"):
        found.check_fits(compare_banks(make_bank(0), make_bank(1)))
    other = CKAResult(torch.eye(1), ["x"], ["x"])
    with pytest.raises(ValueError, match=r"none of the result's paired layers: it has a, b\.c"):
        found.check_fits(other)


def test_results_with_other_samples_or_groups_say_what_the_ceiling_needs():
    drawn = seeds(3)
    ceiling = ceiling_of(drawn)
    for options in ({"exclude": [100]}, {"groups": [place % 2 for place in range(1000)]}):
        with pytest.raises(
            ValueError, match=r"not of one probe set: .* If the result has exclude= or groups=, the ceil"
        ):
            ceiling.check_fits(compare_banks(drawn[0], drawn[1], **options))
    same = compare_banks(drawn[0], drawn[1], exclude=[100])
    ceiling_of(drawn, exclude=[100]).check_fits(same)


def test_warnings_point_at_the_caller():
    banks = seeds(3)
    for batch in banks[0]:
        batch.grams.scales[1] = 0.0  # The layer has no variance.
    with pytest.warns(UserWarning, match=r"CKA of Net is nan for layers b\.c") as caught:
        ceiling_of(banks)
    assert {warning.filename for warning in caught} == {__file__}
