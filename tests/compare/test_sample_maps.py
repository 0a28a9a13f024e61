"""Where samples lie in a layer: against classical MDS of the features themselves, over epochs, with bad samples."""

from __future__ import annotations

import naive
import numpy as np
import pytest
import torch
from gram_banks import bank_of_features, make_bank
from lightning_cka.compare.diagnostics import Diagnostics
from lightning_cka.compare.flags import INPUT, Flag
from lightning_cka.compare.sample_maps import LOST, NO_VARIANCE, TOO_FEW, sample_maps
from lightning_cka.compare.sample_marks import SampleMarks
from sample_result import make_result


def naive_map(features):
    """Two coordinates in units of the samples' RMS distance from their mean, and the shares of variance."""
    gram = naive.fast_gram(features - features.mean(0))
    values, vectors = np.linalg.eigh(gram)
    coordinates = vectors[:, :-3:-1] * np.sqrt(values[:-3:-1]) / np.sqrt(np.trace(gram) / len(gram))
    signs = np.sign(coordinates[np.abs(coordinates).argmax(0), [0, 1]])
    return coordinates * signs, values[:-3:-1] / np.trace(gram)


def features(n=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=generator) * torch.tensor([5, 3, 1, 1, 1, 1]) + 2


def at_epochs(*batches, start=0):
    """Banks of one layer on one batch, at consecutive epochs."""
    banks = [bank_of_features([[each]]) for each in batches]
    for epoch, bank in enumerate(banks, start):
        bank.epoch, bank.step = epoch, 10 * epoch + 9
    return banks


def test_a_map_is_classical_mds_of_the_features():
    first, second = features(), features(9, seed=1)
    maps = sample_maps(bank_of_features([[first, first], [second, 100 * second]], ("a", "b")), None, batch=1)
    assert list(maps.by_layer) == ["a", "b"]
    coordinates, shares = naive_map(second.double().numpy())
    for (found,) in maps.by_layer.values():
        assert np.allclose(found.coordinates, coordinates, atol=1e-5)
        assert np.allclose(found.shares, shares, atol=1e-6)
        assert found.samples == tuple(range(20, 29))
        assert (found.left_out, found.marked, found.problem) == ((), (), "")
    assert (maps.batch, maps.sample_kind, maps.title) == (1, "dataset index", "model")


def test_maps_of_several_epochs_are_rotated_to_fit_the_next_one():
    x = features()
    turn = torch.linalg.qr(torch.randn(6, 6)).Q
    banks = at_epochs(-3 * x @ turn, x * torch.tensor([-1, 1, 1, 1, 1, 1]), x * torch.tensor([1, 1.8, 1, 1, 1, 1]), x)
    (maps,) = sample_maps(banks, "a").by_layer.values()
    assert [each.moment for each in maps] == ["0", "1", "2", "3"]
    expected, shares = naive_map(x.double().numpy())
    for each in (maps[0], maps[1], maps[3]):  # All have the same Gram matrix up to a factor.
        assert np.allclose(each.coordinates, expected, atol=1e-4)
        assert np.allclose(each.shares, shares, atol=1e-5)
    # The second axis has most variance at epoch 2. There, the axes have nearly changed places.
    own, own_shares = naive_map((x * torch.tensor([1, 1.8, 1, 1, 1, 1])).double().numpy())
    assert np.abs(own[:, 0] - expected[:, 0]).max() > 1
    assert np.abs(maps[2].coordinates.numpy() - expected).max() < 0.5
    assert sum(maps[2].shares) == pytest.approx(sum(own_shares), abs=1e-5)
    variance = maps[2].coordinates.square().mean(0).numpy()  # In units of all variance.
    assert np.allclose(variance, maps[2].shares, atol=1e-5)
    assert maps[2].shares[1] > maps[2].shares[0]


def test_epochs_are_chosen_by_number_and_thinned():
    banks = at_epochs(*(features(seed=seed) for seed in range(9)))
    banks.insert(0, bank_of_features([[features()]]))
    banks[0].step = 0
    shown = {
        key: [each.moment for each in sample_maps(banks, "a", **options).by_layer["a"]]
        for key, options in {
            "all": {},
            "thinned": {"max_moments": 4},
            "one": {"max_moments": 1},
            "chosen": {"epochs": [7, "init", 2]},
        }.items()
    }
    assert shown["all"] == ["init", *map(str, range(9))]
    assert shown["thinned"] == ["init", "2", "5", "8"]
    assert shown["one"] == ["init"]
    assert shown["chosen"] == ["init", "2", "7"]
    with pytest.raises(ValueError, match=r"epochs: expected some of init, 0, 1, 2, .* 8, but got 9, 12"):
        sample_maps(banks, "a", epochs=[9, 1, 12])
    with pytest.raises(ValueError, match=r"epochs: expected some of .* but got none"):
        sample_maps(banks, "a", epochs=[])


def test_the_last_bank_of_an_epoch_counts():
    banks = at_epochs(features(), features(seed=1), features(seed=2))
    banks[1].epoch = 0
    (found,) = sample_maps(banks, "a", epochs=[0]).by_layer["a"]
    assert found.moment == "step 19"
    assert np.allclose(found.coordinates, naive_map(features(seed=1).double().numpy())[0], atol=1e-5)


def test_banks_come_from_files_and_folders(tmp_path):
    banks = [make_bank(variant, epoch=variant, step=variant) for variant in range(3)]
    for bank in banks:
        bank.save(tmp_path / "banks" / f"epoch={bank.epoch:03d}-step=000001.safetensors")
    expected = sample_maps(banks, ["a", "b.*"], batch=2)
    found = sample_maps(tmp_path, ["a", "b.*"], batch=2)
    assert list(found.by_layer) == ["a", "b.c"]
    for name, maps in found.by_layer.items():
        for one, other in zip(maps, expected.by_layer[name], strict=True):
            assert torch.equal(one.coordinates, other.coordinates)
    (path, *_) = sorted((tmp_path / "banks").iterdir())
    assert sample_maps(path, "a").title == "Net, epoch 0"
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        sample_maps(tmp_path / "nothing", "a")
    with pytest.raises(ValueError, match=r"a picture of samples needs the banks of at least one epoch, but .* has 0"):
        sample_maps(tmp_path.joinpath("empty").mkdir() or tmp_path / "empty", "a")


def test_banks_must_fit_together_and_have_the_layer_and_the_batch():
    with pytest.raises(ValueError, match="different layers"):
        sample_maps([make_bank(), make_bank(layers=("a", "d"))], "a")
    with pytest.raises(ValueError, match="different probe sets"):
        sample_maps([make_bank(), make_bank(sizes=(16, 16))], "a")
    with pytest.raises(ValueError, match=r"layer: 'x' matches none of the bank's layers: a, b.c"):
        sample_maps(make_bank(), "x")
    with pytest.raises(ValueError, match="batch: expected one of 0, 1, 2, but got 3"):
        sample_maps(make_bank(), "a", batch=3)
    with pytest.raises(ValueError, match="there is no probe batch that all banks have"):
        sample_maps(make_bank().empty(), "a")
    with pytest.raises(ValueError, match="at least one bank, but got 0"):
        sample_maps([], "a")


def test_bad_samples_are_left_out_where_they_are_bad():
    x = features()
    bad = x.clone()
    bad[[3, 8]] = torch.nan
    (first, last) = sample_maps(at_epochs(bad, x), "a").by_layer["a"]
    kept = [sample for sample in range(20) if sample not in (3, 8)]
    assert (first.left_out, first.samples, last.left_out) == ((3, 8), tuple(kept), ())
    expected, _ = naive_map(x[kept].double().numpy())
    distances = torch.cdist(torch.from_numpy(expected), torch.from_numpy(expected))
    assert torch.allclose(torch.cdist(first.coordinates, first.coordinates), distances, atol=1e-4)
    assert (first.coordinates - last.coordinates[kept]).abs().max() < 0.3


def test_layers_without_a_map_say_why():
    x = features()
    far = x.clone()
    far[5] = 1e9
    bank = bank_of_features([[x, torch.full((20, 2), 0.1), x * torch.nan, far]], ("good", "constant", "nan", "far"))
    maps = sample_maps(bank, None)
    problems = {name: each.problem for name, (each,) in maps.by_layer.items()}
    assert problems == {"good": "", "constant": NO_VARIANCE, "nan": TOO_FEW, "far": ""}
    assert len(maps.by_layer["nan"][0].left_out) == 20
    without = sample_maps(bank, "far", exclude=[5])
    assert (without.by_layer["far"][0].problem, without.excluded) == (LOST, [5])
    assert sample_maps(bank, "good", exclude=range(17)).by_layer["good"][0].problem == TOO_FEW


def test_an_epoch_without_a_map_is_skipped_in_the_alignment():
    x = features()
    flipped = x * torch.tensor([-1, 1, 1, 1, 1, 1])
    before, broken, after = sample_maps(at_epochs(flipped, x * torch.nan, x), "a").by_layer["a"]
    assert broken.problem == TOO_FEW
    assert torch.allclose(before.coordinates, after.coordinates, atol=1e-4)


def test_excluded_samples_are_left_out():
    x = features()
    x[4] *= 100
    (found,) = sample_maps(bank_of_features([[x]]), "a", exclude=[4]).by_layer["a"]
    expected, shares = naive_map(np.delete(x.double().numpy(), 4, axis=0))
    assert np.allclose(found.coordinates, expected, atol=1e-3)
    assert np.allclose(found.shares, shares, atol=1e-3)


def test_flags_mark_samples_in_their_layer():
    flags = (
        Flag("a", "trace_ratio", 83.0, 20.0, (7, 5)),
        Flag("b.c", "influence", 3.0, 2.5, (1,)),
        Flag("a", "leave_one_out", 0.3, 0.05, (5, 2)),
        Flag("a", "trace_ratio", 83.0, 20.0, (11,), of_reference=True),
        Flag(INPUT, "copies", 3.0, 0.01, (4,)),
        Flag("d", "standard_error", 3.0, 0.05),
    )
    marks = SampleMarks([9], [make_result(diagnostics=Diagnostics(flags=flags))])
    assert {name: marks.of(name) for name in ("a", "b.c", "d")} == {"a": [9, 7, 5, 2, 4], "b.c": [9, 1, 4], "d": [9, 4]}
    assert marks.layers == ["a", "b.c"]


def test_marked_samples_choose_the_batch():
    bank = make_bank()  # Samples 0 to 15, 100 to 115 and 200 to 208.
    maps = sample_maps(bank, None, marks=SampleMarks([205, 101, 203]))
    assert (maps.batch, maps.elsewhere) == (2, [101])
    assert [each.marked for (each,) in maps.by_layer.values()] == [(205, 203)] * 2
    assert sample_maps(bank, None, marks=SampleMarks([999, 101])).batch == 1
    assert sample_maps(bank, None, marks=SampleMarks([205]), batch=0).elsewhere == [205]
    assert sample_maps(bank, None, exclude=[101]).batch == 1
    assert sample_maps(bank, None).batch == 0
