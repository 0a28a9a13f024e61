"""Batches that are not exchangeable give a warning; shuffled batches do not."""

import pytest
import torch
from lightning_cka import CKAMonitor, CKAResult, compare_models
from lightning_cka.compare.flags import Thresholds
from lightning_cka.hsic.packed import pack_stack
from lightning_cka.hsic.spectrum import effective_dimension_terms
from lightning_cka.probe import exchangeability
from lightning_cka.probe.exchangeability import BatchVariation, Variation, variation_message
from scipy.special import fdtrc
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


def variation(features, batch_size, layers=("a",), **options):
    tested = BatchVariation(layers, CPU)
    for batch in zip(*(z.split(batch_size) for z in features), strict=True):
        for row, z in enumerate(batch):
            tested.add(row, z)
    return tested.result(distributed=False, **options)


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


@pytest.mark.parametrize("batch_size", [4, 32, 128])
@pytest.mark.parametrize("width", [1, 8, 300])
def test_samples_whose_features_are_all_zero_give_no_warning(width, batch_size):
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        x = torch.randn(256, width, generator=generator)
        is_active = torch.rand(256, 1, generator=generator) < 0.3
        assert variation([100 * (x + 1).relu() * is_active], batch_size) == []


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


def naive_variation(x, batch_size):
    """Return the ratio and the p-value of a layer, in float64."""
    x = x.double()
    z = torch.cat([x / x.norm(dim=1, keepdim=True), x.norm(dim=1, keepdim=True).log()], 1)
    parts = z.split(batch_size)
    between = sum(len(part) * (part.mean(0) - z.mean(0)).square().sum() for part in parts) / (len(parts) - 1)
    within = sum((part - part.mean(0)).square().sum() for part in parts) / (len(z) - len(parts))
    # The scale of a Gram matrix would be zero where z hardly varies.
    packed = [pack_stack(((c := part - part.mean(0)) @ c.T)[None])._replace(scales=torch.ones(1)) for part in parts]
    numerator, denominator = sum(effective_dimension_terms(each) for each in packed).flatten()
    dimension = (numerator / denominator).clamp(min=1)
    freedom = [float(count * dimension) for count in (len(parts) - 1, len(z) - len(parts))]
    return float(between / within), float(fdtrc(*freedom, float(between / within)))


@pytest.mark.parametrize("kind", ["few features", "large mean", "heavy tails", "sorted", "tiny", "huge"])
@pytest.mark.parametrize("batch_size", [5, 64, 100])
def test_ratio_and_p_value_are_those_of_a_naive_reference(kind, batch_size):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(320, 12, generator=generator)
    x = {
        "few features": x[:, :2],
        "large mean": x + 1e3,
        "heavy tails": x**5,
        "sorted": x[(x[:, 0] + 5 * torch.randn(320, generator=generator)).argsort()],
        "tiny": x * 1e-15,
        "huge": x * 1e15,
    }[kind]
    ratio, p_value = naive_variation(x, batch_size)
    (found,) = variation([x], batch_size, significance=2)
    assert found.ratio == pytest.approx(ratio, rel=1e-3)
    assert found.p_value == pytest.approx(p_value, rel=0.02)


@pytest.mark.parametrize("group", [1, 40 * 65 * 2, 2**19])
def test_layers_are_taken_together_whatever_their_shapes_types_and_devices(monkeypatch, group):
    monkeypatch.setattr(exchangeability, "_MAX_WAITING", group)
    generator = torch.Generator().manual_seed(0)
    layers = [
        torch.randn(200, 7, generator=generator),
        torch.randn(200, 3, 5, 6, generator=generator).to(memory_format=torch.channels_last),
        torch.randn(200, generator=generator).double(),
        torch.randn(9, 200, 6, generator=generator).transpose(0, 1),
        torch.randn(200, 50, generator=generator).bfloat16(),
    ]
    names = tuple("abcde")
    together = {each.layer: each for each in variation(layers, 40, names, significance=2)}
    assert set(together) == set(names)
    for name, layer in zip(names, layers, strict=True):
        (alone,) = variation([layer], 40, significance=2)
        assert together[name].ratio == pytest.approx(alone.ratio, rel=1e-4)
        assert together[name].p_value == pytest.approx(min(1, 5 * alone.p_value), rel=1e-3)


def test_a_layer_that_misses_in_some_batches_does_not_disturb_the_others():
    x = torch.randn(256, 8)[torch.randn(256).argsort()]
    tested = BatchVariation(["a", "b"], CPU)
    for number, batch in enumerate(x.split(32)):
        if number % 2:
            tested.add(1, batch)
        tested.add(0, batch)
    (alone,) = variation([x], 32, significance=2)
    found = {each.layer: each.ratio for each in tested.result(distributed=False, significance=2)}
    assert found["a"] == pytest.approx(alone.ratio, rel=1e-5)
    (every_second,) = variation([torch.cat(x.split(32)[1::2])], 32, significance=2)
    assert found["b"] == pytest.approx(every_second.ratio, rel=1e-5)


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


@pytest.mark.usefixtures("_blank_figures")
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
