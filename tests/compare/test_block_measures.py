"""`procrustes` and `predictivity` of banks: the values of the features, and those of permuted samples beside them."""

import math
from dataclasses import replace

import naive_blocks
import numpy as np
import pytest
import torch
from gram_banks import bank_of_features, make_bank
from lightning_cka import GramBank
from lightning_cka.compare import predictivity, procrustes

SIZES = (40, 40, 24)
MEASURES = [procrustes, predictivity]


def features(variant, widths=(5, 30), sizes=SIZES, noise=0.5, dtype=torch.float64):
    """Layers of these widths on each batch; other variants are variant 0 with noise."""
    base, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(variant)
    return [
        [
            torch.randn(n, d, generator=base).to(dtype) + noise * bool(variant) * torch.randn(n, d, generator=own)
            for d in widths
        ]
        for n in sizes
    ]


def banks(*batches, layers=("a", "b.c")):
    return [bank_of_features(each, layers) for each in batches]


def naive_procrustes(x, y):
    """The pooled distance: the cosine of the distances of the batches, weighted by their norms over the batches."""
    norms = [[np.linalg.norm(naive_blocks.centered(batch)) for batch in z] for z in (x, y)]
    cosines = [math.cos(naive_blocks.procrustes_distance(a, b)) for a, b in zip(x, y, strict=True)]
    total = sum(c * p * q for c, p, q in zip(cosines, *norms, strict=True))
    return math.acos(total / np.linalg.norm(norms[0]) / np.linalg.norm(norms[1]))


def naive_predictivity(x, y):
    errors = sum(naive_blocks.left_out_errors(a, b).sum(1) for a, b in zip(x, y, strict=True))
    return 1 - errors[0] / errors[1]


@pytest.mark.parametrize(("measure", "naive"), [(procrustes, naive_procrustes), (predictivity, naive_predictivity)])
def test_values_are_those_of_the_features(measure, naive):
    x, y = features(0), features(1, noise=1)
    y[1] = [8 * z for z in y[1]]  # A batch of larger features has more weight, as if all were one regression.
    result = measure(*banks(x, y), permutations=0, min_samples=20)
    expected = [[naive([b[i] for b in x], [b[j] for b in y]) for j in range(2)] for i in range(2)]
    assert result.matrix.numpy() == pytest.approx(np.array(expected), abs=1e-9)
    assert result.block_sizes == SIZES
    assert result.num_samples == 104
    assert result.p_value.isnan().all()


def test_float32_banks_have_the_values_of_float64():
    x, y = features(0, dtype=torch.float32), features(1, dtype=torch.float32)
    for measure, tolerance in ((procrustes, 1e-5), (predictivity, 1e-4)):
        narrow = measure(*banks(x, y), permutations=0, min_samples=20).matrix
        wide = [[[z.double() for z in batch] for batch in each] for each in (x, y)]
        assert narrow == pytest.approx(measure(*banks(*wide), permutations=0, min_samples=20).matrix, abs=tolerance)


@pytest.mark.parametrize("measure", MEASURES)
def test_permuted_samples_are_those_of_shuffled_features(measure):
    x, y = features(0, sizes=(40,)), features(1, sizes=(40,))
    order = np.random.default_rng([7, 0]).permuted(np.arange(40))
    shuffled = [[z[order] for z in x[0]]]
    expected = measure(*banks(shuffled, y), permutations=0, min_samples=4)
    result = measure(*banks(x, y), permutations=1, seed=7, min_samples=4)
    assert result.null_mean.numpy() == pytest.approx(expected.matrix.numpy(), abs=1e-9)


@pytest.mark.parametrize("measure", MEASURES)
def test_related_layers_are_significant(measure):
    result = measure(*banks(features(0), features(1)), min_samples=20)
    closer = (result.matrix - result.null_quantile) * (-1 if result.is_distance else 1) > 0
    assert closer.diagonal().all()
    assert result.p_value.diagonal() == pytest.approx(torch.full((2,), 1 / 101))
    assert (result.corrected_p_value.diagonal() < 0.05).all()
    assert result.is_distance == (measure is procrustes)


@pytest.mark.parametrize("measure", MEASURES)
def test_p_values_of_unrelated_layers_are_uniform(measure):
    each, corrected = [], []
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        x, y = ([[torch.randn(12, d, generator=generator) for d in (2, 20)]] for _ in range(2))
        result = measure(*banks(x, y), permutations=19, seed=seed, min_samples=4)
        each.append(result.p_value)
        corrected.append(result.corrected_p_value.min())
    each, corrected = torch.stack(each), torch.stack(corrected)
    assert each.min() >= 1 / 20
    assert each.mean().item() == pytest.approx(0.525, abs=0.08)  # Uniform on 1/20, ..., 1; a standard error is 0.023.
    assert (corrected <= 0.05).double().mean() < 0.2  # 0.05 is expected; without a correction, some 0.18 for 4 pairs.


def test_null_levels_depend_on_the_width():
    x, y = ([[torch.randn(40, d) for d in (2, 200)]] for _ in range(2))
    null = procrustes(*banks(x, y), permutations=20, min_samples=4).null_mean
    assert null[0, 0] > null[1, 1] + 0.5  # With more features than samples, everything is close.


def test_batches_of_the_same_sequences_have_the_same_permutations():
    same = features(0, sizes=(40,))[0]
    (bank,) = banks([same, same])
    clustered = bank.empty()
    for batch in bank:
        clustered.add(replace(batch, cluster=0))
    one, two, independent = (
        predictivity(each, each, permutations=40, min_samples=4) for each in (banks([same])[0], clustered, bank)
    )
    assert torch.allclose(one.null_quantile, two.null_quantile)
    assert not torch.allclose(one.null_quantile, independent.null_quantile)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_model_with_itself(measure):
    (bank,) = banks(features(0))
    result = measure(bank, bank, permutations=0, min_samples=20)
    assert result.self_comparison
    if measure is procrustes:
        assert result.matrix.diagonal() == pytest.approx(torch.zeros(2), abs=1e-12)
        assert torch.allclose(result.matrix.T, result.matrix, atol=1e-12)
    else:
        assert result.matrix[0, 0] > 0.99  # 5 features of 24 to 40 samples
        assert (result.matrix.T - result.matrix).abs().max() > 0.1


@pytest.mark.parametrize("measure", MEASURES)
def test_layers_without_variance_or_with_nan_are_nan(measure):
    x, y = features(0), features(1)
    x[0][0][3] = math.nan
    result = measure(*banks(x, y), permutations=5, min_samples=20)
    for values in (result.matrix, result.null_mean, result.p_value, result.corrected_p_value):
        assert values.isnan().tolist() == [[True, True], [False, False]]
    excluded = measure(*banks(x, y), permutations=5, min_samples=20, exclude=[3])
    assert not excluded.matrix.isnan().any()
    assert excluded.num_samples == 103
    constant = [[torch.ones(n, 3), batch[1]] for n, batch in zip(SIZES, y, strict=True)]
    found = measure(*banks(features(0), constant), permutations=5, min_samples=20).matrix
    assert found.isnan().tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize("measure", MEASURES)
def test_small_blocks_are_refused_or_left_out(measure):
    pair = banks(features(0), features(1))
    message = r"needs at least 256, but the largest of the banks has 40. Pass gram_batch_size=256 or more to GramBank"
    with pytest.raises(ValueError, match=f"{measure.__name__} depends on .* {message}"):
        measure(*pair)
    assert measure(*pair, permutations=0, min_samples=30).block_sizes == (40, 40)


@pytest.mark.parametrize("measure", MEASURES)
def test_layers_and_files_are_chosen_as_in_compare_banks(measure, tmp_path):
    a, b = banks(features(0), features(1))
    b.save(tmp_path / "b.safetensors")
    options = {"permutations": 0, "min_samples": 20}
    whole = measure(a, b, **options)
    part = measure(a, tmp_path / "b.safetensors", layers="a", reference_layers="b.*", **options)
    assert (part.layers, part.reference_layers) == (("a",), ("b.c",))
    assert part.matrix.item() == pytest.approx(whole.matrix[0, 1].item(), abs=1e-9)
    assert measure(a, b, layers="b.*", **options).same_named() == pytest.approx({"b.c": whole.matrix[1, 1].item()})
    with pytest.raises(ValueError, match="reference_layers: 'x' matches none"):
        measure(a, b, reference_layers="x", **options)


@pytest.mark.parametrize("measure", MEASURES)
def test_probe_sets_must_agree(measure):
    a, other = make_bank(sizes=(16, 16)), make_bank(seed=1, sizes=(16, 16))
    with pytest.raises(ValueError, match="different probe sets"):
        measure(a, other, min_samples=4)
    with pytest.warns(UserWarning, match="different probe sets") as caught:
        assert measure(a, other, min_samples=4, permutations=0, strict=False).num_samples == 32
    assert caught[0].filename == __file__


def test_wrong_numbers_raise():
    a = make_bank()
    for options, message in (
        ({"permutations": -1}, "permutations must be at least 0, but is -1"),
        ({"min_samples": 3}, "min_samples must be at least 4, but is 3"),
        ({"seed": -1}, "seed must be from 0"),
    ):
        with pytest.raises(ValueError, match=message):
            procrustes(a, a, **{"min_samples": 4} | options)
    with pytest.raises(TypeError, match="permutations must be an integer"):
        predictivity(a, a, min_samples=4, permutations=2.5)
    with pytest.raises(ValueError, match="alpha must be"):
        predictivity(a, a, min_samples=4, alpha=0)
    with pytest.raises(ValueError, match=r"exclude: .*999 is not in the probe set"):
        procrustes(a, a, min_samples=4, exclude=[999])


def test_rows_of_a_table():
    result = procrustes(*banks(features(0), features(1)), permutations=5, min_samples=20)
    row = result.to_rows()[1]
    assert (row["layer"], row["reference_layer"]) == ("a", "b.c")
    assert row["procrustes"] == result.matrix[0, 1].item()
    assert row["p_value"] == result.p_value[0, 1].item()
    assert "2 x 2 layers, 104 samples in 3 blocks" in repr(result)


def test_banks_of_models_have_large_blocks_on_request():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(8, 4))
    batches = list(torch.randn(600, 8).split(50))
    bank = GramBank.from_model(net, batches, gram_batch_size=300, progress_bar=False)
    assert procrustes(bank, bank, permutations=0).block_sizes == (300, 300)
