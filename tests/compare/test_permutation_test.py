"""`CKAResult.null`: permuted values against features that are permuted, error rates, and what it needs."""

import copy
import pickle
from dataclasses import replace

import naive
import numpy as np
import pytest
import torch
from gram_banks import bank_of_features, make_bank
from lightning_cka import RBF, RSA, CKAResult, GramBank, MinibatchCKA, MutualKNN, Ridge, Thresholds, compare_banks
from lightning_cka.compare.permutation_test import null_summary, sample_orders
from lightning_cka.hsic.entry_positions import permuted_products
from lightning_cka.hsic.measure import CKA
from lightning_cka.hsic.stack import pack_features
from lightning_cka.probe.tokens import MAX_TOKENS, token_kind

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(has a standard error|with random|layers whose|groups. )", "ignore:CKA.*:UserWarning"
)

SIZES = (12, 12, 9)
SEED, PERMUTATIONS = 7, 5


def u_vector(gram):
    """The vector of unbiased CKA: entries of the U-centered Gram matrix."""
    n = len(gram)
    k = np.array(gram, dtype=np.float64)
    np.fill_diagonal(k, 0.0)
    sums = k.sum(1)
    for i in range(n):
        for j in range(n):
            k[i, j] -= (sums[i] + sums[j]) / (n - 2) - sums.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(k, 0.0)
    return k.ravel()


def centered_vector(gram):
    k = np.asarray(gram)
    return (k - k.mean(0) - k.mean(1)[:, None] + k.mean()).ravel()


NAIVE = {
    "linear": ({}, lambda x: u_vector(naive.fast_gram(x - x.mean(0)))),
    "distance": ({"kernel": "distance"}, lambda x: u_vector(naive.distance_gram(x))),
    "biased": ({"unbiased": False}, lambda x: centered_vector(naive.fast_gram(x - x.mean(0)))),
    "mutual_knn": ({"measures": "mutual_knn"}, naive.knn_vector),
    "uncorrected": (
        {"measures": MutualKNN(0.3, corrected=False)},
        lambda x: naive.knn_vector(x, 0.3, corrected=False),
    ),
    "rsa": ({"measures": "rsa"}, naive.rsa_vector),
    "ridge": ({"measures": "ridge"}, naive.ridge_vector),
}


def features(sizes=SIZES, seed=0, widths=(4, 9), others=(3, 5, 8), noise=1.0):
    """The batches of two models. The first layer of the reference is made of that of the model."""
    random = np.random.default_rng(seed)
    xs = [[random.normal(size=(n, d)) for d in widths] for n in sizes]
    ys = [[random.normal(size=(len(x[0]), d)) for d in others] for x in xs]
    for x, y in zip(xs, ys, strict=True):
        y[0] = x[0][:, : others[0]] + noise * y[0]
    return xs, ys


def banks(xs, ys):
    return [
        bank_of_features([list(map(torch.as_tensor, batch)) for batch in each], names)
        for each, names in ((xs, tuple("abcdef"[: len(xs[0])])), (ys, tuple("abcdef"[: len(ys[0])])))
    ]


def compared(xs, ys, **options):
    a, b = banks(xs, ys)
    return compare_banks(a, b, reference_layers="*", **options)


def orders(n, index, permutations=PERMUTATIONS, seed=SEED):
    return np.random.default_rng([seed, index]).permuted(np.tile(np.arange(n), (permutations, 1)), axis=1)


def naive_null(xs, ys, vector, permutations=PERMUTATIONS, groups=None):
    """Return values ``(P, L, R)`` of features whose samples are permuted: each is computed from its features."""
    chosen = [orders(len(x[0]), index, permutations) for index, x in enumerate(xs)]
    return np.array(
        [
            naive.minibatch_similarity([[z[chosen[b][p]] for z in x] for b, x in enumerate(xs)], ys, vector)
            for p in range(permutations)
        ]
    )


def naive_p_values(null, observed):
    """Return p-values and corrected ones, cell by cell. Values that differ by rounding errors are equal."""
    mean, spread = null.mean(0), null.std(0)
    p, corrected = np.zeros_like(observed), np.zeros_like(observed)
    for i in range(observed.shape[0]):
        for j in range(observed.shape[1]):
            excess = (observed[i, j] - mean[i, j]) / spread[i, j] - 1e-7
            p[i, j] = (1 + sum(each[i, j] >= observed[i, j] - 1e-9 for each in null)) / (1 + len(null))
            corrected[i, j] = (1 + sum(((each - mean) / spread).max() >= excess for each in null)) / (1 + len(null))
    return p, corrected


@pytest.mark.parametrize("name", NAIVE)
@pytest.mark.parametrize("others", [(3, 5, 8), (3,)])  # The model with fewer layers is the one that is permuted.
def test_permuted_values_are_those_of_permuted_features(name, others):
    options, vector = NAIVE[name]
    xs, ys = features(others=others)
    result = compared(xs, ys, **options)
    found = result.null(PERMUTATIONS, seed=SEED)
    null = naive_null(xs, ys, vector)
    p, corrected = naive_p_values(null, result.matrix.numpy())
    assert np.allclose(found.null_mean, null.mean(0), atol=1e-9)
    assert np.allclose(found.null_quantile, np.quantile(null, 0.95, axis=0), atol=1e-9)
    assert np.allclose(found.p_value, p)
    assert np.allclose(found.corrected_p_value, corrected)
    assert torch.equal(found.matrix, result.matrix)
    assert (found.layers, found.reference_layers) == (result.layers, result.reference_layers)
    assert found.block_sizes == SIZES


def test_bandwidths_do_not_depend_on_the_order():
    xs, ys = features()
    result = compared(xs, ys, kernel=RBF(0.7))
    medians = [
        [np.mean([np.median(naive.squared_distances(batch[i])) for batch in each]) for i in range(len(each[0]))]
        for each in (xs, ys)
    ]
    for i in range(2):
        for j in range(3):
            grams = [
                [[naive.rbf_gram(batch[k], 0.7, medians[side][k])] for batch in each]
                for side, (each, k) in enumerate(((xs, i), (ys, j)))
            ]
            null = []
            for p in range(PERMUTATIONS):
                chosen = [orders(n, b)[p] for b, n in enumerate(SIZES)]
                moved = [[g[0][o][:, o]] for g, o in zip(grams[0], chosen, strict=True)]
                null.append(naive.minibatch_similarity(moved, grams[1], u_vector)[0, 0])
            assert result.null(PERMUTATIONS, seed=SEED).null_mean[i, j].item() == pytest.approx(np.mean(null), abs=1e-9)


@pytest.mark.parametrize("measure", [CKA(), CKA(unbiased=False), CKA(RBF(0.5)), MutualKNN(0.3), RSA(), Ridge()])
@pytest.mark.parametrize("n", [4, 7, 10])
def test_every_measure_is_equivariant(measure, n):
    x, y = ([torch.randn(n, d, dtype=torch.float64) for d in widths] for widths in ((3, 2), (5, 4, 1)))
    own, others = (measure.vectors(measure.grams(pack_features(z))) for z in (x, y))
    order = torch.randperm(n)
    moved = measure.vectors(measure.grams(pack_features([z[order] for z in x])))
    found = permuted_products(own, others, measure.positions(n), order[None])
    expected = moved.products(others)[0]
    assert torch.allclose(found[0], expected, atol=1e-9 * expected.abs().max().item())
    backwards = permuted_products(others, own, measure.positions(n), order.argsort()[None])
    assert torch.allclose(backwards[0], expected.T, atol=1e-9 * expected.abs().max().item())


@pytest.mark.parametrize("name", ["linear", "mutual_knn", "rsa", "ridge"])
def test_groups_are_permuted_within_themselves(name):
    options, vector = NAIVE[name]
    xs, ys = features(sizes=(16, 12))
    labels = [i % 2 for i in range(16)] + [int(i > 5) for i in range(12)]
    parts, start = [], 0
    for n in (16, 12):
        parts += [np.flatnonzero(np.array(labels[start : start + n]) == label) for label in (0, 1)]
        start += n
    result = compared(xs, ys, groups=labels, **options)
    split = [[[z[own] for z in each[k // 2]] for k, own in enumerate(parts)] for each in (xs, ys)]
    found = result.null(PERMUTATIONS, seed=SEED)
    assert np.allclose(found.null_mean, naive_null(*split, vector).mean(0), atol=1e-9)
    assert found.block_sizes == (8, 8, 6, 6)


def test_labels_that_explain_a_layer_have_no_power_within_groups():
    """Both layers depend on the label alone, and on noise of their own: they are related, but not within groups."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 160)
    xs, ys = ([[5 * labels[k : k + 40, None] + random.normal(size=(40, 4))] for k in range(0, 160, 40)] for _ in "ab")
    whole, within = compared(xs, ys), compared(xs, ys, groups=labels.tolist())
    assert whole.null(99).p_value.item() == pytest.approx(0.01)
    assert within.null(99).p_value.item() > 0.05


def test_excluded_samples_are_not_permuted():
    xs, ys = features()
    keep = np.arange(12) != 4
    fewer = [[[z[keep] for z in each[0]], *each[1:]] for each in (xs, ys)]
    found = compared(xs, ys, exclude=[4]).null(PERMUTATIONS, seed=SEED)
    expected = naive_null(*fewer, NAIVE["linear"][1])
    assert np.allclose(found.null_mean, expected.mean(0), atol=1e-9)
    assert found.num_samples == sum(SIZES) - 1


def tokens(xs, names="ab"):
    """Two batches of tokens of the same sequences, and one of others."""
    bank = GramBank(tuple(names), "Net", token_kind("dataset index", "tokens"))
    for batch in bank_of_features([list(map(torch.as_tensor, x)) for x in xs], tuple(names)):
        first = 100 if batch.index == 2 else 0
        numbers = tuple((first + s) * MAX_TOKENS + batch.index for s in range(len(batch.samples)))
        bank.add(replace(batch, samples=numbers))
    return bank


def test_tokens_of_the_same_sequences_are_permuted_in_the_same_way():
    xs, ys = features(sizes=(10, 10, 10), widths=(4, 9), others=(3, 5))
    result = compare_banks(tokens(xs), tokens(ys))
    null = []
    for p in range(PERMUTATIONS):
        chosen = [orders(10, index)[p] for index in (0, 0, 2)]
        moved = [[z[order] for z in x] for x, order in zip(xs, chosen, strict=True)]
        null.append(naive.minibatch_similarity(moved, ys, NAIVE["linear"][1]))
    assert np.allclose(result.null(PERMUTATIONS, seed=SEED).null_mean, np.mean(null, 0), atol=1e-9)


@pytest.mark.parametrize("measure", ["cka", "mutual_knn", "rsa", "ridge"])
def test_false_alarms(measure):
    """Of pairs of unrelated models, one in 20 has a corrected p-value of at most .05 in any cell."""
    alarms, uncorrected = 0, []
    for seed in range(100):
        random = np.random.default_rng(seed)
        xs, ys = ([[random.normal(size=(12, d)) for d in (3, 6)] for _ in range(2)] for _ in "ab")
        null = compared(xs, ys, measures=measure, thresholds=Thresholds.off()).null(39, seed=seed)
        alarms += bool(null.corrected_p_value.min() <= 0.05)
        uncorrected.append(null.p_value.mean().item())
        assert (null.corrected_p_value >= null.p_value).all()
        assert null.p_value.min() >= 1 / 40
    # 5 of 100 are expected; more than 12 have a probability of .0015, and none of .006.
    assert 1 <= alarms <= 12
    # Uniform on 1/40, ..., 1. Mutual kNN has ties with one neighbour of 11, which make p-values larger.
    assert 0.43 < np.mean(uncorrected) < (0.7 if measure == "mutual_knn" else 0.59)


@pytest.mark.parametrize("measure", ["cka", "mutual_knn", "rsa", "ridge"])
def test_related_layers_are_found(measure):
    xs, ys = features(sizes=(40, 40), others=(3, 5), noise=0.3)
    null = compared(xs, ys, measures=measure).null(99)
    assert null.corrected_p_value[0, 0].item() == pytest.approx(0.01)
    assert (null.corrected_p_value.flatten()[1:] > 0.05).all()
    assert null.matrix[0, 0] > null.null_quantile[0, 0]


def test_equal_seeds_give_equal_values_and_global_generators_are_not_touched():
    result = compared(*features())
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again, other = result.null(20), result.null(20, seed=0), result.null(20, seed=1)
    assert torch.equal(first.null_mean, again.null_mean)
    assert not torch.equal(first.null_mean, other.null_mean)
    assert first.num_permutations == 20
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()


@pytest.mark.parametrize("measure", ["cka", "mutual_knn", "rsa", "ridge"])
def test_undefined_layers_stay_undefined(measure):
    xs, ys = features()
    xs[1][1][:] = 2.0 * np.arange(len(xs[1][1]))[:, None]  # A layer of one direction is defined.
    xs[0][0][2] = np.nan
    ys[0][1][:] = ys[1][1][:] = ys[2][1][:] = 1.0
    with pytest.warns(UserWarning, match="nan"):
        result = compared(xs, ys, measures=measure)
    null = result.null(9)
    for values in (null.null_mean, null.null_quantile, null.p_value, null.corrected_p_value):
        assert values.isnan().tolist() == [[True, True, True], [False, True, False]]


@pytest.mark.parametrize("measure", ["cka", "mutual_knn", "rsa", "ridge"])
def test_a_model_with_itself(measure):
    xs, _ = features()
    (bank, _) = banks(xs, xs)
    null = compare_banks(bank, bank, measures=measure).null(99)
    assert null.self_comparison
    assert null.matrix.diagonal() == pytest.approx(torch.ones(2))
    assert null.p_value.diagonal() == pytest.approx(torch.full((2,), 0.01))
    assert (null.null_mean.abs() < 0.2).all()


def test_a_layer_whose_samples_cannot_be_told_apart_has_no_small_p_value():
    simplex = [[torch.eye(12, dtype=torch.float64)] for _ in range(2)]  # All distances are equal.
    bank = bank_of_features(simplex)
    null = compare_banks(bank, bank, unbiased=False).null(9)
    assert null.matrix.item() == pytest.approx(1)
    assert null.p_value.item() == null.corrected_p_value.item() == 1


def test_results_without_banks_raise(tmp_path):
    message = r"has no Gram banks.*compare_banks\(a, b\)"
    metric = MinibatchCKA(1)
    metric.update([torch.randn(16, 3)], [torch.randn(16, 3)])
    result = compared(*features())
    result.save(tmp_path / "result.json")
    for each in (
        metric.result(),
        CKAResult.load(tmp_path / "result.json"),
        CKAResult.from_state(result.state()),
        pickle.loads(pickle.dumps(result)),
    ):
        with pytest.raises(ValueError, match=message):
            each.null()
    assert "banks" not in result.state()


def test_copies_refer_to_the_same_banks():
    a, b = banks(*features())
    result = compare_banks(a, b, layers="a")
    for each in (copy.deepcopy(result), copy.copy(result), replace(result, model_name="x")):
        assert each.banks.a is a
        assert each.banks.b is b
        assert torch.equal(each.null(5).p_value, result.null(5).p_value)
    assert pickle.loads(pickle.dumps(result)).layers == result.layers


def test_files_are_read_again(tmp_path):
    a, b = banks(*features())
    for name, bank in (("a", a), ("b", b)):
        bank.save(tmp_path / name)
    result = compare_banks(tmp_path / "a", tmp_path / "b", layers="b")
    assert result.banks.a == tmp_path / "a"
    null = result.null(9)
    assert torch.allclose(null.null_mean, compare_banks(a, b, layers="b").null(9).null_mean)
    a.save(tmp_path / "b")
    with pytest.raises(ValueError, match="the banks have changed since they were compared; call compare_banks again"):
        result.null(9)
    (tmp_path / "b").unlink()
    with pytest.raises(FileNotFoundError):
        result.null(9)


def test_a_list_of_measures_has_a_test_of_each():
    a, b = banks(*features(others=(3, 5)))
    results = compare_banks(a, b, measures=["cka", RSA(), "ridge"])
    assert [result.null(5).measure for result in results.values()] == ["cka", "rsa", "ridge"]
    by_kernel = compare_banks(a, b, kernel=RBF(0.5)).null(5)
    assert by_kernel.measure.startswith("cka(rbf")
    assert by_kernel.to_rows()[0][by_kernel.measure] == by_kernel.matrix[0, 0].item()


def test_banks_of_other_probe_sets_are_compared_batch_by_batch():
    a, other = make_bank(sizes=(16, 16)), make_bank(1, seed=1, sizes=(16, 16))
    with pytest.warns(UserWarning, match="different probe sets"):
        result = compare_banks(a, other, strict=False)
    with pytest.warns(UserWarning, match="different probe sets") as caught:
        null = result.null(9)
    assert null.block_sizes == (16, 16)
    assert caught[0].filename == __file__


def test_wrong_numbers_raise():
    result = compared(*features())
    with pytest.raises(ValueError, match="permutations must be at least 0, but is -1"):
        result.null(-1)
    with pytest.raises(TypeError, match="permutations must be an integer"):
        result.null(2.5)
    with pytest.raises(ValueError, match="seed must be from 0"):
        result.null(5, seed=-1)
    assert result.null(0).p_value.isnan().all()


def test_values_that_all_permutations_share_are_no_evidence():
    values = torch.full((2, 1, 1), 0.5)  # One permutation, which has the value of the samples as they are.
    summary = null_summary(values, is_distance=False)
    assert summary["p_value"].item() == summary["corrected_p_value"].item() == 1


def test_orders_are_permutations():
    (batch, *_) = make_bank()
    found = sample_orders(batch, 3, 0)
    assert found[0].tolist() == list(range(16))
    assert found.sort(1).values.unique(dim=0).tolist() == [list(range(16))]
    assert len(found.unique(dim=0)) == 4
