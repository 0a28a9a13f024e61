"""Excluded samples and groups, against features without these samples, and centered within groups."""

import naive
import numpy as np
import pytest
import torch
from conftest import trainer
from gram_banks import bank_of_features
from lightning.pytorch import LightningModule, seed_everything
from lightning_cka import CKAMonitor, GramBank, Thresholds, compare_banks, compare_models
from lightning_cka.cli import main
from lightning_cka.probe.sample_selection import SampleSelection
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

OFF = Thresholds.off()
SIZES = (20, 20, 13)
EXCLUDED = [3, 22, 23, 40]
LABELS = [sample % 3 for sample in range(53)]


def sides(dtype=torch.float64):
    made = torch.Generator().manual_seed(0)
    xs = [torch.randn(n, 4, generator=made, dtype=torch.float64) for n in SIZES]
    return [x.to(dtype) for x in xs], [(x[:, :3] + torch.randn(len(x), 3, generator=made)).to(dtype) for x in xs]


def banks(dtype=torch.float64):
    return [bank_of_features([[z] for z in side]) for side in sides(dtype)]


def blocks(labels=None, excluded=()):
    """Return the features of both sides in the blocks that are to be compared."""
    found, start = ([], []), 0
    for batch in zip(*sides(), strict=True):
        numbers = np.arange(start, start + len(batch[0]))
        start += len(numbers)
        for label in sorted(set(labels)) if labels else [None]:
            rows = [i for i, s in enumerate(numbers) if s not in excluded and (labels is None or labels[s] == label)]
            for side, z in zip(found, batch, strict=True):
                side.append([z[rows].numpy()])
    return found


def expected(kernel="linear", unbiased=True, **options):
    """Return CKA from features: blocks are batches, which are centered on their own."""
    xs, ys = blocks(**options)
    if kernel == "linear":
        hsic, weight = (
            (naive.unbiased_hsic, lambda n: n * (n - 3)) if unbiased else (naive.biased_hsic, lambda n: (n - 1) ** 2)
        )
        return naive.minibatch_cka(xs, ys, hsic, weight)[0, 0]
    made = [bank_of_features([list(map(torch.tensor, block)) for block in side]) for side in (xs, ys)]
    return compare_banks(*made, kernel=kernel, unbiased=unbiased, thresholds=OFF).matrix.item()


@pytest.mark.parametrize("unbiased", [True, False])
@pytest.mark.parametrize("kernel", ["linear", "rbf", "distance", lambda d: (-d).exp()])
@pytest.mark.parametrize(
    "options", [{"excluded": EXCLUDED}, {"labels": LABELS}, {"labels": LABELS, "excluded": EXCLUDED}]
)
def test_a_part_of_a_bank_equals_the_features_of_the_part(options, kernel, unbiased):
    result = compare_banks(
        *banks(),
        kernel=kernel,
        unbiased=unbiased,
        exclude=options.get("excluded"),
        groups=options.get("labels"),
        thresholds=OFF,
    )
    assert result.matrix.item() == pytest.approx(expected(kernel, unbiased, **options), rel=1e-9)
    assert result.num_samples == 53 - len(options.get("excluded", ()))


def test_labels_may_be_tensors_arrays_strings_and_mappings():
    values = {
        compare_banks(*banks(), groups=groups, thresholds=OFF).matrix.item()
        for groups in (
            LABELS,
            torch.tensor(LABELS),
            np.array(LABELS),
            [str(i) for i in LABELS],
            dict(enumerate(LABELS)),
        )
    }
    assert len(values) == 1
    whole = compare_banks(*banks(), thresholds=OFF).matrix.item()
    assert compare_banks(*banks(), groups=[0] * 53, exclude=[], thresholds=OFF).matrix.item() == pytest.approx(whole)
    assert values != {whole}


def test_without_an_outlier_the_others_are_compared_and_flags_are_gone():
    (xs, ys), thresholds = sides(torch.float32), Thresholds(standard_error=None, influence=None, leave_one_out=None)
    xs[1][2] *= 1e4
    a, b = (bank_of_features([[z] for z in side]) for side in (xs, ys))
    with pytest.warns(UserWarning, match="at dataset index 22"):
        compare_banks(a, b, thresholds=thresholds)
    result = compare_banks(a, b, thresholds=thresholds, exclude=[22])
    assert result.matrix.item() == pytest.approx(expected(excluded=[22]), rel=1e-3)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("float16", [False, True, None])
def test_the_other_samples_are_compared_without_those_that_are_not_finite(value, dtype, float16, tmp_path):
    xs, ys = sides(dtype)
    xs[1][2, 1] = value
    xs[1][3] = value
    ys[2][0] = value
    a, b = (bank_of_features([[z] for z in side]) for side in (xs, ys))
    if float16 is not None:
        for name, bank in (("a", a), ("b", b)):
            bank.save(tmp_path / name, float16=float16)
        a, b = tmp_path / "a", tmp_path / "b"
    with pytest.warns(UserWarning) as caught:
        assert compare_banks(a, b, exclude=[22, 23]).matrix.isnan()
    assert any("first in a of the reference (dataset index 40)" in str(warning.message) for warning in caught)
    for kernel in ("linear", "rbf"):
        result = compare_banks(a, b, exclude=EXCLUDED, kernel=kernel, thresholds=OFF)
        tolerance = 1e-3 if float16 else 1e-9 if dtype == torch.float64 else 1e-5
        assert result.matrix.item() == pytest.approx(expected(kernel, excluded=EXCLUDED), rel=tolerance)
        assert result.flags == ()


def test_small_groups_are_left_out_with_a_warning():
    labels = [0] * 20 + [1] * 2 + [0] * 31
    with pytest.warns(UserWarning, match="groups: 2 samples are left out, because their group has fewer than 4"):
        result = compare_banks(*banks(), groups=labels, thresholds=OFF)
    assert result.num_samples == 51


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"exclude": [3, 99]}, ValueError, "exclude: dataset index 99 is not in the probe set"),
        ({"exclude": [1.5]}, TypeError, "exclude must be sample numbers"),
        ({"exclude": "17"}, TypeError, "exclude must be sample numbers"),
        ({"groups": [0, 1]}, ValueError, "groups has 2 labels, but none for dataset index 2"),
        ({"groups": {0: "a"}}, ValueError, "groups has 1 labels, but none for dataset index 1"),
        ({"groups": 3}, TypeError, "groups must be labels by sample number"),
    ],
)
def test_wrong_numbers_and_labels(options, error, message):
    with pytest.raises(error, match=message):
        compare_banks(*banks(), thresholds=OFF, **options)


def test_the_command_line(tmp_path, capsys):
    for name, bank in zip("ab", banks(), strict=True):
        bank.save(tmp_path / f"{name}.safetensors")
    (tmp_path / "labels.txt").write_text("\n".join(map(str, LABELS)))
    files = [str(tmp_path / f"{name}.safetensors") for name in "ab"]
    main(["compare", *files, "--exclude", "3", "22", "23", "40", "--groups", str(tmp_path / "labels.txt")])
    assert f" {expected(labels=LABELS, excluded=EXCLUDED):.3f}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["compare", *files, "--exclude", "99"])
    assert "dataset index 99 is not in the probe set" in capsys.readouterr().err


class Net(LightningModule):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(8, 6)

    def forward(self, x):
        return self.first(x)

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-2)


DATA = TensorDataset(torch.randn(256, 8, generator=torch.Generator().manual_seed(0)))


def fit(monitor):
    seed_everything(0, verbose=False)
    net = Net()
    loader = DataLoader(DATA, batch_size=64)
    trainer(monitor, max_epochs=2).fit(net, loader, loader)
    return net


@pytest.mark.usefixtures("_blank_figures")
@pytest.mark.parametrize(
    ("reference", "earlier"), [("initial", "initial*"), ("previous", "epoch=000*"), (1, "epoch=001*")]
)
def test_the_monitor_compares_the_same_samples_as_banks(reference, earlier, tmp_path):
    options = {"exclude": [5, 200], "groups": [i % 2 for i in range(256)], "thresholds": OFF}
    monitor = CKAMonitor(reference, save_banks=True, dirpath=tmp_path, **options)
    fit(monitor)
    last, other = (sorted((tmp_path / "banks").glob(pattern))[-1] for pattern in ("epoch=001*", earlier))
    (results,) = monitor.results.values()
    assert results[-1].num_samples == 254
    assert torch.allclose(results[-1].matrix, compare_banks(last, other, **options).matrix, atol=1e-9)
    assert GramBank.load(last).num_samples == 256


def test_compare_models_takes_the_same_options():
    one, other = Net(), Net()
    loader = DataLoader(DATA, batch_size=64)
    options = {"exclude": [5, 200], "groups": [i % 2 for i in range(256)], "thresholds": OFF}
    made = [GramBank.from_model(net, loader, progress_bar=False) for net in (one, other)]
    found = compare_models(one, other, loader, progress_bar=False, **options)
    assert torch.allclose(found.matrix, compare_banks(*made, **options).matrix, atol=1e-6)
    with pytest.raises(ValueError, match="exclude: dataset index 999 is not in the probe set"):
        compare_models(one, other, loader, progress_bar=False, exclude=[999])


def test_the_monitor_raises_before_training():
    with pytest.raises(ValueError, match="exclude: dataset index 256 is not in the probe set"):
        fit(CKAMonitor(exclude=[256]))
    with pytest.raises(ValueError, match="groups has 10 labels, but none for dataset index 10"):
        fit(CKAMonitor(groups=[0] * 10))
    with pytest.raises(ValueError, match="exclude: loader position 999 is not in the probe set"):
        fit(CKAMonitor(exclude=[999], dataloader=[x for (x,) in DataLoader(DATA, 64)]))


def test_descriptions_tell_selections_apart():
    texts = [SampleSelection(*each).description for each in ((None, None), ([1], None), ([2], None), (None, [0, 1]))]
    assert texts[0] == ""
    assert len(set(texts)) == 4
