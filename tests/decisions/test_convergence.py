"""Since when layers have converged: what is found, what it must not claim, and what it says is missing."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gram_banks import bank_of_features
from lightning_cka import CKAResult, Thresholds, compare_banks, convergence
from lightning_cka.compare.pairing import Pairing
from lightning_cka.decisions.convergence import DEFAULT_CONVERGED
from lightning_cka.decisions.last_state import similarity_to_last
from lightning_cka.decisions.settled import changes_between, settled_count, settled_since
from moving_layers import banks_of, moving

STEPS = (0, 0.5, 0.9, 0.99, 1.0, 1.02)


def dated(banks):
    """Banks before training, and of epochs 0, 1, 2, ..."""
    for epoch, bank in enumerate(banks, -1):
        bank.epoch, bank.step = (None, 0) if epoch < 0 else (epoch, 10 * epoch + 9)
    return banks


def results_of(banks, reference=None):
    off = Thresholds.off()
    start = banks[0] if reference is None else reference
    return [replace(compare_banks(bank, start, thresholds=off), reference_name="initial") for bank in banks[1:]]


@pytest.fixture(scope="module")
def banks():
    return dated(banks_of(moving(STEPS, sizes=(24,) * 8)))


@pytest.fixture(scope="module")
def results(banks):
    return results_of(banks)


def test_both_criteria_are_what_they_say(banks, results):
    found = convergence({"initial": results}, banks)
    assert (found.layers, found.criteria, found.notes) == (("moves", "stays"), ("initial", "last state"), ())
    by_last = similarity_to_last(banks).converged_since(0.02, 0.95)
    by_reference = settled_since(results, 0.02, 0.95)
    assert by_last["moves"] is not None
    for name in found.layers:
        assert found.of(name).place == by_last[name]
        assert found.of(name, "initial").place == by_reference[name]
        for each, moments in ((found.of(name), banks), (found.of(name, "initial"), results)):
            assert each.converged
            assert (each.epoch, each.step) == (moments[each.place].epoch, moments[each.place].step)
    moves = found.of("moves", "initial")
    change = results[-1].difference(results[moves.place])
    low, high = change.bounds(0.95)
    assert moves[-3:] == pytest.approx((float(change.matrix[0, 0]), float(low[0, 0]), float(high[0, 0])))
    value = found.of("moves")
    assert value.low > 0.98
    assert value.value == pytest.approx(float(compare_banks(banks[value.place], banks[-1]).matrix[0, 0]), abs=1e-6)


def test_a_layer_may_move_at_the_same_distance_from_the_reference():
    """The change against the reference settles, and CKA with the last state does not."""
    near, far = moving((0, 1), sizes=(64,) * 8)
    other = moving((0, 1), sizes=(64,) * 8, seed=1)[1]
    states = dated(banks_of([near, far, other], ("moves", "stays")))
    found = convergence(results_of(states), states, tolerance=0.05)
    assert found.of("moves", "initial").converged
    assert not found.of("moves").converged


def test_words_rows_and_table(banks, results):
    found = convergence(results, banks)
    assert found.of("stays").since == "the start"
    assert found.of("moves").since == "epoch 1"
    assert [row["compared_with"] for row in found.to_rows()] == ["initial"] * 2 + ["last state"] * 2
    lines = repr(found).splitlines()
    assert lines[0].endswith("CKA with the last state above 0.98; change of CKA with the reference within ±0.02")
    assert [line.split()[0] for line in lines[2:]] == ["layer", "moves", "stays"]
    wide = convergence(results, banks, tolerance=1e-5)
    assert [(each.since, each.converged) for each in wide.found if each.layer == "moves"] == [("no", False)] * 2
    with pytest.raises(KeyError, match="nothing was found for layer 'moves' and 'x'; notes say what is missing"):
        found.of("moves", "x")


def test_what_is_missing_is_said(banks, results):
    none = convergence(results)
    assert none.last is None
    assert none.criteria == ("initial",)
    assert "there are no banks: CKAMonitor(save_banks=True) keeps" in none.notes[0]
    assert "there is one bank only" in convergence(results, banks[:1]).notes[0]
    assert "the bank of epoch 4 was not kept" in convergence(results, banks[:-1]).notes[0]
    gap = convergence(results, [banks[0], *banks[3:]])
    (note,) = gap.notes
    assert note.startswith("2 of 5 comparisons have no bank and are not looked at: CKAMonitor(save_banks=True) keeps")
    assert gap.of("moves").converged
    one = convergence(results[:1], banks[:2])
    assert "there is one comparison with 'initial': convergence needs at least one more" in one.notes
    assert one.of("moves", "initial").converged is None
    old = convergence([replace(each, left_out_batches=None) for each in results], banks)
    assert any("5 of 5 results with 'initial' have no records of their batches" in note for note in old.notes)
    assert {old.of(name, "initial").converged for name in old.layers} == {None}
    assert old.of("stays", "initial").since == ""


def test_layers_without_cka_are_named(banks, results):
    """A layer that does not vary at the end, by either criterion; not one that is unknown for another reason."""
    dead = [replace(each, matrix=each.matrix * torch.tensor([1, torch.nan])) for each in results]
    (note,) = convergence(dead, banks).notes
    assert note == "nothing is known of stays, whose CKA is nan: they do not vary, or the last comparison failed"
    flat = dated(banks_of([[[x, 0 * y] for x, y in batch] for batch in moving(STEPS, sizes=(24,) * 8)]))
    assert "nothing is known of stays, whose CKA is nan" in convergence([], [banks[0], *flat[1:]]).notes[0]
    assert not any("nan" in note for note in convergence(results[:1], banks[:2]).notes)


def test_too_few_batches_give_no_answer():
    few = dated(banks_of(moving(STEPS, sizes=(24, 24))))
    found = convergence(results_of(few), few)
    assert {each.converged for each in found.found} == {None}
    assert any("2.0 effective batches, but an interval needs about four" in note for note in found.notes)


def test_intervals_that_are_too_wide_say_how_many_batches_it_takes():
    small = dated(banks_of(moving((0, 0.5, 0.9, 0.97, 1.0), sizes=(8,) * 5)))
    found = convergence(results_of(small), small, tolerance=0.02)
    (note,) = [note for note in found.notes if "too wide" in note]
    number = int(note.split("about ")[1].split()[0])
    assert number > 5
    failing = [
        each
        for each in found.found
        if not each.converged and (each.value > 0.98 if each.compared_with == "last state" else abs(each.value) < 0.02)
    ]
    assert failing


def test_results_that_move_and_those_of_a_model_with_itself_do_not_count(banks, results):
    own = [replace(each, self_comparison=True) for each in results]
    moving_reference = [replace(each, reference_name="previous:3") for each in results]
    again = [replace(each, reference_name="previous, restarted at step 9") for each in results]
    other = [replace(each, reference_name="previous run (frozen)") for each in results]
    histories = {"self": own, "previous-3": moving_reference, "previous": again, "run": other, "initial": results}
    assert convergence(histories, banks).criteria == ("run", "initial", "last state")
    with pytest.raises(ValueError, match=r"no results of a reference that does not move, and .*there are no banks"):
        convergence({"self": own})


@pytest.mark.parametrize("arguments", [{"tolerance": 0}, {"level": 1}])
def test_numbers_out_of_range_raise(results, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        convergence(results, **arguments)


def test_changes_are_those_of_differences(results):
    renamed = replace(results[-1], pairing=Pairing({"moves": "stays", "stays": "stays"}))
    for later, earlier in ((results[-1], results[1]), (renamed, renamed), (renamed, results[0])):
        found = changes_between(later, earlier, 0.9)
        if later is not renamed:
            difference = later.difference(earlier)
            low, high = difference.bounds(0.9)
            for name, cell in difference.same_named_pairs().items():
                expected = (float(difference.matrix[cell]), float(low[cell]), float(high[cell]))
                assert found[name] == pytest.approx(expected, abs=1e-12)
    assert set(changes_between(renamed, results[0], 0.9)) <= {"stays"}
    other = dated(banks_of(moving(STEPS, sizes=(24,) * 7)))
    assert changes_between(results[-1], results_of(other)[0], 0.9) == {}
    assert changes_between(replace(results[-1], unbiased=False), results[0], 0.9) == {}


@pytest.mark.parametrize("patience", [1, 2, 3, 4, 5])
def test_the_count_needs_all_of_the_last_comparisons(results, patience):
    for count in range(1, len(results) + 1):
        history = results[:count]
        expected = 0
        if count > patience:
            changes = [changes_between(history[-1], each, 0.95) for each in history[-patience - 1 : -1]]
            expected = sum(
                all(each[name].low >= -0.02 and each[name].high <= 0.02 for each in changes)
                for name in ("moves", "stays")
            )
        assert settled_count(history, 0.02, patience) == expected
    outside = replace(results[-1], epoch=None, step=None)  # Of trainer.validate().
    assert settled_count([*results, outside], 0.02, patience) == settled_count(results, 0.02, patience)


def test_the_counts_differ(results):
    """Otherwise the test above could not fail."""
    counts = [settled_count(results[: count + 1], 0.02, 1) for count in range(len(results))]
    assert counts[0] == 0
    assert set(counts) == {0, 1, 2}


def test_a_folder_gives_the_same(tmp_path, banks, results):
    for bank in banks:
        name = "initial" if bank.epoch is None else f"epoch={bank.epoch:03d}-step={bank.step:06d}"
        bank.save(tmp_path / "cka" / "banks" / f"{name}.safetensors")
    for each in results:
        each.save(tmp_path / "cka" / "initial" / f"epoch={each.epoch:03d}-step={each.step:06d}.json")
    expected = convergence({"initial": results}, banks)
    assert repr(convergence(tmp_path / "cka")) == repr(expected)
    assert repr(convergence(str(tmp_path / "cka" / "initial"))) == repr(expected)
    assert repr(convergence({"initial": results}, tmp_path / "cka")) == repr(expected)
    assert convergence(tmp_path / "cka").tolerance == DEFAULT_CONVERGED
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has no results \(.json\) and no banks"):
        convergence(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        convergence(tmp_path / "missing")


def test_layers_of_one_batch_only_have_no_answer():
    one = dated([bank_of_features([[torch.randn(16, 4)] * 2], ("moves", "stays")) for _ in range(3)])
    assert {each.converged for each in convergence([], one).found} == {None}


@pytest.mark.filterwarnings("ignore:CKA:UserWarning")
def test_files_of_version_0_1_0_answer_what_they_hold():
    old = Path(__file__).parents[1] / "data" / "v0.1.0"
    found = convergence([], old / "banks")
    assert found.criteria == ("last state",)
    assert found.last.moments == ("init", "0", "1")
    assert {each.converged for each in found.found} <= {True, False}
    result = CKAResult.load(old / "result.json")  # It has no records of its batches.
    without = convergence([result, result], old / "banks")
    assert {without.of(name, "initial").converged for name in result.layers} == {None}
    assert any("have no records of their batches" in note for note in without.notes)
