"""Batches that are not exchangeable give a warning; shuffled batches do not."""

import pytest
import torch
from lightning_cka import CKAMonitor, CKAResult, compare_models
from lightning_cka.compare.flags import Thresholds
from lightning_cka.probe.exchangeability import BatchVariation, Variation, variation_message
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

CPU = torch.device("cpu")
OFF = Thresholds.off()


class Half(nn.Module):
    """The first or the second half of an image's 64 pixels."""

    def __init__(self, rows):
        super().__init__()
        self.rows = rows
        self.side = nn.Identity()

    def forward(self, images):
        return self.side(images[:, self.rows])


def halves(order, **kwargs):
    images = torch.tensor(load_digits().images)
    data = TensorDataset(images if order is None else images[order])
    loader = DataLoader(data, batch_size=128, **kwargs)
    return compare_models(Half(slice(0, 4)), Half(slice(4, 8)), loader, "side", thresholds=OFF, progress_bar=False)


def test_the_digits_in_three_orders():
    target = torch.tensor(load_digits().target)
    with pytest.warns(UserWarning, match=r"the dataloader are not exchangeable.*\d+\.\d times as much in side"):
        result = halves(None)
    assert result.matrix.item() == pytest.approx(0.392, abs=1e-3)
    # The result, its file and its figure have the flag too.
    ((flag,), name) = result.flags, result.layers[0]
    assert (flag.layer, flag.reason, flag.of_reference) == (name, "exchangeability", False)
    assert flag.value > 2
    result.save("result.json")
    assert CKAResult.load("result.json").flags == result.flags
    assert any("batches differ by more than chance" in text.get_text() for text in result.plot()[1].texts)
    with pytest.warns(UserWarning, match="not exchangeable"):
        assert halves(target.argsort(stable=True)).matrix.item() == pytest.approx(0.543, abs=1e-3)
    torch.manual_seed(0)
    for _ in range(5):  # A warning would be an error here.
        result = halves(None, shuffle=True)
        assert result.matrix.item() == pytest.approx(0.288, abs=0.01)
        assert result.flags == ()


def variation(features, batch_size, layers=("a",)):
    tested = BatchVariation(layers, CPU)
    for batch in zip(*(z.split(batch_size) for z in features), strict=True):
        for row, z in enumerate(batch):
            tested.add(row, z)
    return tested.result(distributed=False)


@pytest.mark.parametrize("kind", ["normal", "one direction", "heavy tails", "an outlier", "wide", "large mean", "dead"])
@pytest.mark.parametrize("batch_size", [4, 64])
def test_shuffled_data_give_no_warning(kind, batch_size):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        x = torch.randn(256, 20, generator=generator)
        x = {
            "normal": x,
            "one direction": x * torch.tensor([100.0] + [1] * 19),
            "heavy tails": x**5,
            "an outlier": torch.cat([1000 * x[:1], x[1:]])[torch.randperm(256, generator=generator)],
            "wide": x.repeat(1, 40),
            "large mean": x + 1e4,
            "dead": torch.full_like(x, 0.1),
        }[kind]
        assert variation([x], batch_size) == []


@pytest.mark.parametrize("batch_size", [128, 300, 330])
@pytest.mark.parametrize("kind", ["an outlier", "heavy tails", "nearly dead"])
def test_a_ragged_last_batch_and_heavy_tails_give_no_warning(kind, batch_size):
    generator = torch.Generator().manual_seed(0)
    for _ in range(100):
        x = torch.randn(1000, 8, generator=generator)
        x = (
            torch.cat([1000 * x[:1], x[1:]])[torch.randperm(1000, generator=generator)]
            if kind == "an outlier"
            else x**9
        )
        assert variation([x], batch_size) == []
    x[-1] *= 1e6  # This sample is in the last batch, of 8 samples.
    assert variation([torch.cat([x, x[:32]])], 128) == []


def test_layers_of_one_feature_and_of_changing_width():
    x = torch.randn(512)
    assert variation([x], 64) == []
    assert [each.layer for each in variation([x.sort().values], 64)] == ["a"]
    tested = BatchVariation(["a"], CPU)
    for width in (5, 7, 5, 9):  # Like sentences that are padded to the longest one of a batch.
        tested.add(0, torch.randn(64, width) + width)
    assert tested.result(distributed=False) == []


def test_the_p_value_is_calibrated():
    """Under the null hypothesis, about one test of twenty has a p-value below 0.05."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.tensor([3.0, 2, 1, 1, 0.5])
    rejected = 0
    for _ in range(400):
        tested = BatchVariation(["a"], CPU)
        for batch in (torch.randn(160, 5, generator=generator) * scales).split(16):
            tested.add(0, batch)
        rejected += tested.result(distributed=False, significance=0.05) != []
    assert 0.02 < rejected / 400 < 0.09


def test_the_layers_that_show_sorted_data_are_named():
    x = torch.randn(512, 8)
    order = (x[:, 0] + torch.randn(512)).argsort()  # Sorted by a value that one feature is correlated with.
    found = variation([torch.randn(512, 8), x[order]], 64, ("noise", "sorted"))
    assert [each.layer for each in found] == ["sorted"]
    assert found[0].ratio > 2
    assert variation([x, x], 512, ("a", "b")) == []  # A single batch cannot be tested.


def test_message():
    found = [Variation(f"layer{i}", 10.0 - i, 1e-9) for i in range(5)]
    message = variation_message(found, "dataloader=")
    assert "the batches of dataloader= are not exchangeable" in message
    some = "10.0 times as much in layer0, 9.0 times as much in layer1, 8.0 times as much in layer2, and 2 more"
    assert f"more than chance explains ({some})" in message
    assert "DataLoader(shuffle=True)" in message


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_monitors_own_dataloader_is_tested_once(shuffle, recwarn):
    from conftest import Net, dataset, loaders, trainer

    data = dataset(256)
    ordered = TensorDataset(data.tensors[0].sort(dim=0).values)
    loader = DataLoader(ordered, batch_size=32, shuffle=shuffle, generator=torch.Generator().manual_seed(0))
    monitor = CKAMonitor(["self", "initial"], dataloader=loader)
    with pytest.warns() as caught:
        trainer(monitor, max_epochs=3).fit(Net(), *loaders())
    messages = [str(w.message) for w in caught if "not exchangeable" in str(w.message)]
    assert len(messages) == (not shuffle)
    for results in monitor.results.values():
        for result in results:
            assert any(flag.reason == "exchangeability" for flag in result.flags) == (not shuffle)
