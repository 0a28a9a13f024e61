"""What would have been frozen in a finished run: the same as `FreezeConverged` freezes first, and what is said."""

import numpy as np
import pytest
from lightning_cka import Thresholds, compare_banks, would_freeze
from lightning_cka.decisions.converged_prefix import converged_prefix
from moving_layers import banks_of, moving

STEPS = (0, 0.5, 0.9, 0.99, 1.0, 1.001, 1.002)

pytestmark = pytest.mark.filterwarnings("ignore:CKA:UserWarning")


@pytest.fixture(scope="module")
def banks():
    """A layer that stays comes first, because only first layers can be frozen."""
    moments = moving(STEPS, sizes=(24,) * 8)
    found = banks_of([[batch[::-1] for batch in each] for each in moments], ("stays", "moves"))
    for epoch, bank in enumerate(found, -1):
        bank.epoch, bank.step = (None, 0) if epoch < 0 else (epoch, 10 * epoch + 9)
    return found


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_a_layer_is_frozen_at_the_first_comparison_that_it_passes(banks, patience):
    found = would_freeze(banks, 0.05, patience)
    passed = {}
    for place in range(patience, len(banks)):
        result = compare_banks(banks[place], banks[place - patience], thresholds=Thresholds.off())
        for name in converged_prefix(result, ["stays", "moves"], 0.05, known=passed).bounds:
            passed[name] = place - patience
    assert {each.layer: each.place for each in found.found} == passed
    assert 0 == passed["stays"] < passed["moves"]
    assert len(found.results) == len(banks) - patience
    stays, moves = found.found
    assert (stays.epoch, moves.epoch) == (patience - 1, patience - 1 + passed["moves"])
    assert moves.cka > moves.low > 0.95
    assert moves.cka == pytest.approx(found.results[moves.place].same_named()["moves"])
    assert found.note == ""


def test_layers_that_stay_trainable_and_why(banks):
    found = would_freeze(banks[:4], 0.01, 3)
    assert [each.place for each in found.found] == [0, None]
    assert found.note == "layer 'moves' is not above 0.99 with confidence at the end"
    heading, _, header, stays, moves, _, note = repr(found).splitlines()
    assert heading == "FreezeConverged(tolerance=0.01, patience=3) would have frozen, if training went on like this:"
    assert header.split()[:3] == ["layer", "after", "CKA"]
    assert stays.split()[:3] == ["stays", "epoch", "2"]
    assert moves.split()[:2] == ["moves", "no"]
    assert note == found.note
    assert [row["layer"] for row in found.to_rows()] == ["stays", "moves"]


def test_too_few_batches_and_moments(banks):
    few = would_freeze(banks_of(moving(STEPS, sizes=(24, 24))), patience=1)
    assert {each.place for each in few.found} == {None}
    assert "no confidence interval: the probe set has 2.0 effective batches" in few.note
    assert np.isnan(few.found[0].low)
    with pytest.raises(ValueError, match=r"patience=3 needs the banks of at least 4 moments, .* but there are 3; or"):
        would_freeze(banks[:3])
    with pytest.raises(ValueError, match="patience must be at least 1"):
        would_freeze(banks, patience=0)
    with pytest.raises(ValueError, match=r"tolerance must be in \(0, 1\)"):
        would_freeze(banks, 2)


def test_the_map_has_a_mark_where_a_layer_is_frozen(banks):
    found = would_freeze(banks, 0.05, 2)
    figure, (ax,) = found.plot()
    assert ax.get_title() == "CKA with the state 2 comparisons ago"
    (marks,) = [line for line in ax.lines if line.get_label() == "_settled"]
    assert marks.get_xydata().tolist() == [[each.place, row] for row, each in enumerate(found.found)]
    written = " ".join(" ".join(text.get_text() for text in ax.texts + figure.texts).split())
    assert "◇ after this one, FreezeConverged(tolerance=0.05) would have frozen the layer" in written
