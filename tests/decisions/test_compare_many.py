"""`compare_many`: the CKA of many models with each other."""

import sys
import weakref
from functools import partial

import numpy as np
import pytest
import torch
from gram_banks import bank_of_features, make_bank
from lightning_cka import RBF, GramBank, compare_banks, compare_many
from lightning_cka.compare import layer_by_layer
from naive import jackknife, minibatch_cka

SIZES = (16, 16, 16, 16, 9)

pytestmark = pytest.mark.filterwarnings("ignore:(CKA|RSA).*:UserWarning")


def banks(count=4, **options):
    return [make_bank(variant, sizes=SIZES, **options) for variant in range(count)]


def compare(banks, layer=None, **options):
    return compare_many(banks, layer, progress_bar=False, **options)


def test_values_and_errors_are_those_of_the_features():
    """Against explicit loops: the mean over two layers, and the jackknife of this mean."""
    random = np.random.default_rng(0)
    base = [[random.normal(size=(n, d)) for d in (4, 7)] for n in (8, 8, 6, 9)]
    models = [[[x + random.normal(size=x.shape) for x in batch] for batch in base] for _ in range(3)]
    found = compare([bank_of_features(as_tensors(model), ("a", "b")) for model in models])

    def mean(xs, ys):
        return minibatch_cka(xs, ys).diagonal().mean()

    for row, one in enumerate(models):
        for column, other in enumerate(models):
            value, error, _ = jackknife(one, other, mean)
            assert float(found.matrix[row, column]) == pytest.approx(float(value), abs=1e-6)
            assert float(found.standard_error[row, column]) == pytest.approx(float(error), abs=1e-6)


def as_tensors(model):
    return [[torch.from_numpy(x) for x in batch] for batch in model]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel": "rbf"},
        {"kernel": RBF(0.3)},
        {"unbiased": False},
        {"measure": "rsa"},
        {"exclude": [2, 100]},
    ],
    ids=str,
)
def test_each_cell_is_the_mean_of_two_banks(options):
    models = banks()
    found = compare(models, **options)
    others = {"measures" if name == "measure" else name: value for name, value in options.items()}
    for row, a in enumerate(models):
        for column, b in enumerate(models):
            result = compare_banks(a, b, **others)
            assert float(found.matrix[row, column]) == pytest.approx(mean_of(result), abs=1e-12)
            assert float(found.standard_error[row, column]) ** 2 == pytest.approx(error_of(result) ** 2, abs=1e-14)
    assert found.matrix.diagonal().tolist() == [1.0] * 4


def mean_of(result):
    return 1.0 if result.self_comparison else result.mean()


def error_of(result):
    return 0.0 if result.self_comparison else result.mean_standard_error


def test_one_layer_and_patterns():
    models = banks()
    one = compare(models, "b.c")
    assert list(one.by_layer) == ["b.c"]
    assert torch.equal(one.matrix, one.by_layer["b.c"].matrix)
    assert torch.equal(compare(models, "b.*").matrix, one.matrix)
    both = compare(models)
    assert torch.allclose(both.matrix, (one.matrix + compare(models, "a").matrix) / 2)
    with pytest.raises(ValueError, match="layer: 'x' matches none"):
        compare(models, "x")


def test_layers_that_all_models_have_are_compared():
    models = [
        make_bank(0, sizes=SIZES),
        make_bank(1, ("b.c", "x"), sizes=SIZES),
        make_bank(2, ("a", "b.c"), sizes=SIZES),
    ]
    found = compare(models)
    assert list(found.by_layer) == ["b.c"]
    assert float(found.matrix[0, 1]) == pytest.approx(compare_banks(models[0], models[1]).mean(), abs=1e-12)
    with pytest.raises(ValueError, match=r"one and two have no common layers: a, b\.c, and x, y"):
        compare([models[0], make_bank(1, ("x", "y"), sizes=SIZES)], names=["one", "two"])
    with pytest.raises(ValueError, match="no layer of one is in all models"):
        compare([models[0], make_bank(1, ("a", "y"), sizes=SIZES), models[1]], names=["one", "two", "three"])


def test_layers_by_position_and_with_a_prefix():
    models = [make_bank(0, sizes=SIZES), make_bank(1, ("net.a", "net.b.c"), sizes=SIZES)]
    expected = compare([models[0], make_bank(1, sizes=SIZES)]).matrix
    assert torch.equal(compare(models).matrix, expected)
    other = make_bank(1, ("x", "y"), sizes=SIZES)
    assert torch.equal(compare([models[0], other], pair="position").matrix, expected)
    with pytest.raises(ValueError, match="pair must be 'name' or 'position', but is 'depth'"):
        compare(models, pair="depth")


def test_undefined_layers_are_left_out_with_a_warning():
    random = torch.Generator().manual_seed(0)
    features = [[[torch.randn(12, 5, generator=random) for _ in "ab"] for _ in range(4)] for _ in range(3)]
    for batch in features[1]:
        batch[0] = torch.zeros(12, 5)
    models = [bank_of_features(each, ("a", "b")) for each in features]
    with pytest.warns(UserWarning, match="CKA of m1 is nan for layers a, which its means leave out"):
        found = compare(models, names=["m0", "m1", "m2"])
    assert float(found.matrix[0, 1]) == pytest.approx(compare_banks(models[0], models[1]).mean(), abs=1e-12)
    assert float(found.matrix[0, 2]) == pytest.approx(compare_banks(models[0], models[2]).mean(), abs=1e-12)
    with pytest.warns(UserWarning, match="nan"):
        assert compare(models, "a").matrix[1].isnan().all()


def test_flagged_layers_are_named():
    random = torch.Generator().manual_seed(0)
    features = [[[torch.randn(12, 5, generator=random) for _ in "ab"] for _ in range(4)] for _ in range(2)]
    features[1][0][1][3] *= 1000
    with pytest.warns(UserWarning, match=r"CKA of layers b can mislead for some models: see the flags"):
        found = compare([bank_of_features(each, ("a", "b")) for each in features])
    assert {flag.layer for flag in found.by_layer["b"].flags} >= {found.names[1]}


def test_banks_of_other_probe_sets_are_named():
    models = [*banks(), make_bank(4, sizes=SIZES, seed=3)]
    with pytest.raises(ValueError, match=r"that of m4 is not that of m0: m4 differs in the seed \(0 and 3\)"):
        compare(models, names=[f"m{i}" for i in range(5)])
    with pytest.raises(
        ValueError, match="that of first is not that of m0"
    ):  # The odd one out is named, not the others.
        compare(models[::-1], names=["first", "m0", "m1", "m2", "m3"])


def test_names(tmp_path):
    run = [tmp_path / f"seed{seed}" / "cka" for seed in range(2)]
    for seed, folder in enumerate(run):
        for epoch in (0, 10):
            make_bank(seed + epoch, sizes=SIZES, epoch=epoch).save(
                folder / "banks" / f"epoch={epoch:03d}-step={epoch:06d}.safetensors"
            )
    found = compare(run)
    assert found.names == ("seed0", "seed1")
    expected = compare([make_bank(10, sizes=SIZES), make_bank(11, sizes=SIZES)])  # The last ones.
    assert torch.equal(found.matrix, expected.matrix)
    assert expected.names == ("Net", "Net (2)")
    make_bank(3, sizes=SIZES).save(tmp_path / "teacher.safetensors")
    assert compare([*run, tmp_path / "teacher.safetensors", make_bank(0, sizes=SIZES)]).names == (
        "seed0/cka",
        "seed1/cka",
        "teacher",
        "Net",
    )
    with pytest.raises(ValueError, match="names: expected 2 different names, but got a, a"):
        compare(run, names=["a", "a"])
    with pytest.raises(ValueError, match=r"needs the banks of at least one epoch, but '.*' has 0"):
        compare([tmp_path, run[0]])


def test_other_arguments_raise():
    with pytest.raises(ValueError, match="expected at least 2 banks, files or folders of runs, but got 1"):
        compare(banks(1))
    with pytest.raises(TypeError, match="expected a sequence of banks"):
        compare("runs")
    with pytest.raises(FileNotFoundError):
        compare(["missing.safetensors", *banks(1)])


def test_rows_and_intervals():
    found = compare(banks(3), names=["a", "b", "c"])
    rows = found.to_rows(0.9)
    assert [(row["model"], row["other_model"]) for row in rows] == [("a", "b"), ("a", "c"), ("b", "c")]
    low, high = found.confidence_interval(0.9)
    assert rows[1] == {
        "model": "a",
        "other_model": "c",
        "cka": float(found.matrix[0, 2]),
        "standard_error": float(found.standard_error[0, 2]),
        "low": float(low[0, 2]),
        "high": float(high[0, 2]),
    }
    assert repr(found) == "ModelComparison(3 models, linear CKA, mean over 2 layers)"
    few = compare([make_bank(variant) for variant in range(2)])
    with pytest.warns(UserWarning, match="no confidence interval: the probe set has"):
        assert few.confidence_interval()[0].isnan().all()


def test_linkage_joins_the_models_that_are_alike():
    close = [make_bank(variant, noise=0.1, sizes=SIZES) for variant in (1, 2)]
    far = [make_bank(variant, noise=3.0, sizes=SIZES) for variant in (3, 4)]
    found = compare([close[0], far[0], close[1], far[1]])
    first = found.linkage()[0]
    assert sorted(first[:2]) == [0, 2]
    assert first[2] == pytest.approx(1 - float(found.matrix[0, 2]))
    # Average linkage: a model joins a cluster at its mean distance to the members.
    three = compare([close[0], far[0], close[1]])
    assert three.linkage()[1][2] == pytest.approx(1 - float(three.matrix[1, [0, 2]].mean()))


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_few_banks_are_in_memory_at_a_time(tmp_path, monkeypatch, kernel):
    """One batch of one bank is read at a time, and what is kept of twelve banks takes less than two."""
    layers, paths, sizes = tuple(f"layer{i}" for i in range(8)), [], (64, 64, 64, 64)
    for model in range(12):
        random = torch.Generator().manual_seed(model)
        bank = bank_of_features([[torch.randn(n, 6, generator=random) for _ in layers] for n in sizes], layers)
        paths.append(tmp_path / f"{model:02d}.safetensors")
        bank.save(paths[-1])
    expected = compare([GramBank.load(path) for path in paths], kernel=kernel)
    read, kept, counts = weakref.WeakSet(), weakref.WeakSet(), []
    load, replace = GramBank.load.__func__, layer_by_layer.replace

    def counting_load(cls, path, *, batches=None):
        bank = load(cls, path, batches=batches)
        assert len(bank.batches) <= 1
        read.update(bank)
        counts.append((len(read), sum(len(grams) for grams in kept) / len(layers) / len(sizes)))
        return bank

    def counting_replace(batch, grams):
        kept.add(grams.halves)
        return replace(batch, grams=grams)

    monkeypatch.setattr(GramBank, "load", classmethod(counting_load))
    monkeypatch.setattr(layer_by_layer, "replace", counting_replace)
    module = sys.modules["lightning_cka.decisions.compare_many"]  # The package has the function under this name.
    monkeypatch.setattr(module, "LayerByLayer", partial(layer_by_layer.LayerByLayer, least_bytes=0))
    found = compare(paths, kernel=kernel)
    assert len(counts) > 12 * (1 + len(sizes))  # Files are read several times.
    assert max(number for number, _ in counts) <= 2
    assert max(banks for _, banks in counts) < 2
    assert torch.equal(found.matrix, expected.matrix)
    assert torch.equal(found.standard_error, expected.standard_error)
