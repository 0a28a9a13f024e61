"""Values that are one per layer follow the pairing: mean, errors, differences, flags, tables, files, permutations."""

import json
from dataclasses import replace

import pytest
import torch
from gram_banks import bank_of_features, ignore_few_samples, make_bank
from lightning_cka import CKAResult, compare_banks, compare_models
from lightning_cka.compare import predictivity, procrustes
from lightning_cka.compare.pairing import Pairing
from lightning_cka.compare.tables import difference_table, result_table
from lightning_cka.decisions.settled import settled_since
from lightning_cka.figures.drift import plot_drift
from lightning_cka.figures.layer_history import layer_history
from naive import unbiased_hsic
from sample_result import make_left_out_batches, make_result
from torch import nn

pytestmark = ignore_few_samples

SIZES = (24, 24, 16, 20, 12, 24)
LIVE = ("net.a", "net.b", "head")
REFERENCE = ("b", "x", "a")
PAIRS = {"net.a": (0, 2), "net.b": (1, 0)}
HOW = "names without 'net.'"


def features(seed, noise=1.0):
    """Three layers on six batches, which share a signal."""
    shared, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    return [
        [torch.randn(n, 6, generator=shared) + noise * torch.randn(n, 6, generator=own) for _ in range(3)]
        for n in SIZES
    ]


def banks(seed=1, noise=1.0, layers=LIVE):
    return bank_of_features(features(seed, noise), layers), bank_of_features(features(9), REFERENCE)


def naive_values(own, other, leave_out=None):
    """CKA ``(3, 3)`` as the ratio of sums over batches, without one batch."""
    kept = [place for place in range(len(SIZES)) if place != leave_out]

    def total(xs, ys, i, j):
        return sum(
            unbiased_hsic(*(f.double().numpy() @ f.double().numpy().T for f in (xs[k][i], ys[k][j])))
            * (SIZES[k] * (SIZES[k] - 3))
            for k in kept
        )

    return torch.tensor(
        [
            [total(own, other, i, j) / (total(own, own, i, i) * total(other, other, j, j)) ** 0.5 for j in range(3)]
            for i in range(3)
        ],
        dtype=torch.float64,
    )


def naive_mean_error(own, other, cells):
    """Jackknife over batches, with weights n(n-3), of the mean over cells; see `jackknife_error`."""
    weights = torch.tensor([n * (n - 3) for n in SIZES], dtype=torch.float64)

    def mean(matrix):
        return sum(matrix[cell] for cell in cells) / len(cells)

    value = mean(naive_values(own, other))
    without = torch.stack([mean(naive_values(own, other, place)) for place in range(len(SIZES))])
    return ((1 - weights.square().sum() / weights.sum() ** 2) * (without - value).square().sum()).sqrt()


def test_mean_and_its_error_are_those_of_the_pairs():
    a, b = banks()
    own, other = features(1), features(9)
    result = compare_banks(a, b)
    assert result.pairing == Pairing({"net.a": "a", "net.b": "b"}, HOW)
    assert result.same_named_pairs() == PAIRS
    matrix = naive_values(own, other)
    assert result.same_named() == {name: pytest.approx(matrix[cell].item(), abs=1e-6) for name, cell in PAIRS.items()}
    assert result.mean() == pytest.approx((matrix[0, 2] + matrix[1, 0]).item() / 2, abs=1e-6)
    assert result.mean_all_pairs() == pytest.approx(matrix.mean().item(), abs=1e-6)
    expected = naive_mean_error(own, other, list(PAIRS.values()))
    assert result.mean_standard_error == pytest.approx(expected.item(), rel=1e-3)
    assert result.mean_name == "mean"
    assert f"mean {result.mean():.3f}" in repr(result)


def test_without_pairs_there_is_a_mean_of_all_pairs_with_its_error():
    a, b = banks()
    result = compare_banks(a, b, pair={})
    own, other = features(1), features(9)
    cells = [(row, column) for row in range(3) for column in range(3)]
    assert result.mean_all_pairs() == pytest.approx(naive_values(own, other).mean().item(), abs=1e-6)
    assert result.mean_standard_error == pytest.approx(naive_mean_error(own, other, cells).item(), rel=1e-3)
    assert result.mean_name == "mean_all_pairs"
    assert f"mean_all_pairs {result.mean_all_pairs():.3f}" in repr(result)
    with pytest.warns(UserWarning, match="no layers are paired"):
        assert result.mean() != result.mean()  # nan
    assert f"mean of all pairs {result.mean_all_pairs():.3f}" in result_table(result)


def test_position_and_mapping():
    a, b = banks()
    assert compare_banks(a, b, pair="position").same_named_pairs() == {name: (i, i) for i, name in enumerate(LIVE)}
    result = compare_banks(a, b, pair={"head": "x", "net.b": "x"}, measures=["cka", "mutual_knn"])
    assert {each.paired().how for each in result.values()} == {"mapping"}
    assert result["mutual_knn"].same_named_pairs() == {"net.b": (1, 1), "head": (2, 1)}
    with pytest.raises(ValueError, match="pair='position' needs equally many"):
        compare_banks(a, b, layers="net.a", reference_layers=["a", "b"], pair="position")
    with pytest.raises(ValueError, match="'heads' is no compared layer of the model; expected names such as head"):
        compare_banks(a, b, pair={"heads": "x"})
    with pytest.raises(ValueError, match="pair must be"):
        compare_banks(a, a, pair="depth")


def test_a_difference_is_by_pairs_also_after_files(tmp_path):
    (now, reference), (before, _) = banks(1, 0.4), banks(2, 1.2)
    results = [compare_banks(bank, reference) for bank in (now, before)]
    direct = results[0].difference(results[1])
    assert direct.same_named_pairs() == PAIRS
    assert direct.mean() == pytest.approx(results[0].mean() - results[1].mean())
    for place, result in enumerate(results):
        result.save(tmp_path / f"{place}.json")
    loaded = [CKAResult.load(tmp_path / f"{place}.json") for place in range(2)]
    assert loaded[0].pairing == results[0].pairing
    saved = loaded[0].difference(loaded[1])
    assert saved.mean_standard_error == pytest.approx(direct.mean_standard_error, rel=1e-9)
    for cell in PAIRS.values():
        assert saved.standard_error[cell] == pytest.approx(direct.standard_error[cell].item(), rel=1e-9)
    assert (~saved.standard_error.isnan()).sum() == len(PAIRS)
    assert [line.split()[0] for line in difference_table(saved).splitlines()[3:]] == ["net.a", "net.b"]
    assert set(settled_since(loaded)) == {"net.a", "net.b"}
    other = replace(loaded[1], pairing=Pairing({"net.a": "x"}, "mapping"))
    with pytest.raises(ValueError, match="keep errors for paired layers only, but the two results have no such pairs"):
        loaded[0].difference(other)


def test_a_saved_pairing_is_checked_and_files_of_the_same_names_stay_as_they_were(tmp_path):
    path = tmp_path / "r.json"
    make_result().save(path)
    assert "pairing" not in json.loads(path.read_text())
    assert CKAResult.load(path).paired() == Pairing({"a": "a", "b": "b"})
    result = make_result(pairing=Pairing({"b": "c"}, "mapping"))
    assert CKAResult.from_state(result.state()).pairing == result.pairing
    result.save(path)
    content = json.loads(path.read_text())
    assert content["pairing"] == {"layers": {"b": "c"}, "how": "mapping"}
    for damage in (
        {"layers": {"b": "zz"}, "how": "mapping"},
        {"layers": {"b": "a"}, "how": "mapping"},
        None,
        {"how": ""},
    ):
        path.write_text(json.dumps(content | {"pairing": damage}))
        with pytest.raises(ValueError, match="is not a result of lightning_cka"):
            CKAResult.load(path)
    with pytest.raises(ValueError, match="pair: 'zz' is no compared layer of the reference"):
        make_result(pairing=Pairing({"b": "zz"}))


def test_a_pairing_of_the_same_names_is_none_so_that_names_can_be_replaced():
    result = make_result(pairing=Pairing({"a": "a", "b": "b"}))
    assert result.pairing is None
    assert replace(result, reference_layers=("p", "q", "r")).same_named() == {}


def test_rows_say_which_layers_are_paired():
    result = make_result(pairing=Pairing({"b": "c"}, "mapping"))
    assert [(row["layer"], row["reference_layer"]) for row in result.to_rows() if row["paired"]] == [("b", "c")]


def test_tables_and_flags_follow_the_pairing():
    own, other = features(1), features(9)
    other[0][2][3] *= 300  # An outlier in layer "a" of the reference.
    with pytest.warns(UserWarning, match="CKA"):
        result = compare_banks(bank_of_features(own, LIVE), bank_of_features(other, REFERENCE))
    assert result.diagnostics.leave_one_out.keys() == set(PAIRS)
    assert result.diagnostics.leave_one_out["net.a"].sample == 3
    assert {flag.layer for flag in result.flags if flag.of_reference} == {"a"}
    assert any(flag.of_reference for flag in result.flags_of("net.a"))
    assert not any(flag.of_reference for flag in result.flags_of("head"))
    heading, _, columns, *rows = result_table(result).splitlines()
    assert f"layers paired by {HOW}, mean {result.mean():.3f}" in heading
    assert "linear CKA, paired layer" in columns or "CKA, paired layer" in columns
    assert f"{result.same_named()['net.a']:.3f}" in rows[0]
    assert "(reference)" in rows[0]


def test_figures_use_the_pairs_of_the_last_result():
    a, b = banks()
    last = replace(compare_banks(a, b), epoch=1, step=20)
    first = replace(last, epoch=0, step=10, pairing=Pairing({"net.a": "x"}, "mapping"))
    history = layer_history([first, last])
    assert history.names == ["net.a", "net.b"]
    for row, cell in enumerate(PAIRS.values()):
        assert history.values[row].tolist() == [last.matrix[cell].item()] * 2
    assert [label.get_text() for label in plot_drift([first, last])[1].get_yticklabels()] == ["a", "b"]
    with pytest.raises(ValueError, match="expected at least one result with layers of the same name, or paired"):
        layer_history([replace(last, pairing=Pairing({}, "mapping"))])


def test_left_out_batches_without_a_pairing_are_those_of_the_same_names():
    """As in files of older versions."""
    result = make_result(left_out_batches=make_left_out_batches())
    matrices = result.left_out_batches.matrices((2, 3), result.same_named_pairs())
    assert torch.equal(matrices[:, 1, 0], result.left_out_batches.values[1])


def test_permutation_tests_follow_the_pairing():
    layers = {"layers": ("n.a", "n.b.c")}
    a, b = make_bank(0, **layers), make_bank(1)
    assert compare_banks(a, b).null(5).same_named_pairs() == {"n.a": (0, 0), "n.b.c": (1, 1)}
    assert compare_banks(a, b, pair={}).null(5).mean_name == "mean_all_pairs"
    for measure in (procrustes, predictivity):
        assert measure(a, b, permutations=0, min_samples=4).same_named_pairs() == {"n.a": (0, 0), "n.b.c": (1, 1)}
        crossed = measure(a, b, permutations=0, min_samples=4, pair={"n.a": "b.c"})
        assert crossed.same_named_pairs() == {"n.a": (0, 1)}
        assert crossed.mean() == crossed.matrix[0, 1].item()


class Wrapped(nn.Module):
    """A backbone with a head."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.backbone(x))


def test_compare_models_pairs_a_wrapped_backbone(caplog):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 6))
    batches, quiet = [torch.randn(32, 8) for _ in range(4)], {"progress_bar": False}
    caplog.set_level("INFO")
    result = compare_models(Wrapped(backbone), backbone, batches, ["backbone.*", "head"], reference_layers="*", **quiet)
    assert result.same_named() == {f"backbone.{i}": pytest.approx(1) for i in range(3)}
    assert result.mean() == pytest.approx(1)
    assert "CKA pairs 3 of 4 layers with the reference by names without 'backbone.': backbone.0 with 0" in caplog.text
    by_position = compare_models(
        Wrapped(backbone),
        backbone,
        batches,
        ["backbone.0", "head"],
        reference_layers=["2", "1"],
        pair="position",
        **quiet,
    )
    assert by_position.same_named_pairs() == {"backbone.0": (0, 0), "head": (1, 1)}
    shown = []
    with pytest.raises(ValueError, match="pair='position' needs equally many layers"):
        compare_models(
            Wrapped(backbone), backbone, batches, ["head"], reference_layers="*", pair="position",
            forward_fn=lambda model, batch: shown.append(len(batch)) or model(batch), **quiet,
        )  # fmt: skip
    assert len(shown) < 12  # Dry runs only.


@pytest.mark.parametrize("layers", ["backbone.*", ["backbone.0", "head"], None])
def test_compare_models_finds_the_layers_of_a_bare_backbone(layers):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 6))
    batches = [torch.randn(32, 8) for _ in range(4)]
    result = compare_models(Wrapped(backbone), backbone, batches, layers, progress_bar=False)
    values = result.same_named()
    assert list(values) == [name for name in result.layers if name != "head"]
    assert all(value == pytest.approx(1) for value in values.values())
    assert all(name.removeprefix("backbone.") in result.reference_layers for name in values)
    with pytest.raises(ValueError, match="reference: layer pattern 'head' matches no module"):
        compare_models(Wrapped(backbone), backbone, batches, "head", progress_bar=False)
