"""Features of several forward passes are joined to one Gram block."""

import warnings

import naive
import numpy as np
import pytest
import torch
from example_models import CPU, hsic
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.block_features import BlockFeatures
from lightning_cka.probe.dry_run import dry_run
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.layers import check_layers
from lightning_cka.probe.show_probe_set import show_probe_set
from lightning_cka.probe.stream_probe import StreamProbe
from torch import nn


def bank_of(model, batches, gram_batch_size=None, layers=None, observe=None, **kwargs):
    probe, settings = StreamProbe(batches, 0, gram_batch_size=gram_batch_size), ForwardSettings(CPU, **kwargs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the only sample of a batch is assumed")
        plan = dry_run(model, probe, check_layers(layers), settings)
    bank = GramBank(plan.names, "model")
    show_probe_set(model, probe, plan, settings, bank.add, observe=observe)
    return bank


class Kinds(nn.Module):
    """Has a sequence-first layer, channels-last features, a layer that runs twice, and one in inference mode."""

    def __init__(self):
        super().__init__()
        self.image = nn.Conv2d(2, 3, 1).to(memory_format=torch.channels_last)
        self.sequence = nn.Linear(16, 5)
        self.twice = nn.Linear(3, 3)
        self.frozen = nn.Linear(3, 2)

    def forward(self, x):
        image = self.image(x.contiguous(memory_format=torch.channels_last))
        self.sequence(image.flatten(2).transpose(0, 1))
        self.twice(self.twice(image.mean((2, 3))).relu_())
        with torch.inference_mode():
            self.frozen(image.mean((2, 3)).detach())


@pytest.mark.parametrize("call", ["first", "last", "mean"])
@pytest.mark.parametrize("forward_size", [1, 2, 3, 4])
@pytest.mark.filterwarnings("ignore:layers that run several times")
def test_blocks_equal_those_of_large_forward_passes(call, forward_size):
    model, x = Kinds().double(), torch.randn(40, 2, 4, 4, dtype=torch.float64)
    # From one sample alone, the first dimension is taken for the batch.
    layers = ["image", "twice", "frozen"] if forward_size == 1 else ["image", "sequence", "twice", "frozen"]
    expected = bank_of(model, x[:36].split(12), layers=layers, call=call)
    bank = bank_of(model, x[:36].split(forward_size), 12, layers, call=call)
    assert bank.layers == expected.layers == tuple(layers)
    assert bank.probe == expected.probe  # Samples and inputs do not depend on the forward passes.
    for one, other in zip(bank, expected, strict=True):
        for part, expected_part in zip(one.grams, other.grams, strict=True):
            torch.testing.assert_close(part, expected_part, rtol=0, atol=1e-12)


def test_blocks_equal_the_naive_reference_also_in_half_precision():
    torch.manual_seed(0)
    model, batches = nn.Sequential(nn.Linear(6, 9), nn.Linear(9, 3)), torch.randn(26, 6).split(4)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.bfloat16, 1e-5)):
        model = model.to(dtype)
        batches = [batch.to(dtype) for batch in batches]
        bank = bank_of(model, batches, 8)
        assert [batch.grams.num_samples for batch in bank] == [8, 8, 8]  # The last two samples are too few.
        with torch.no_grad():
            joined = [torch.cat(batches[i : i + 2]) for i in (0, 2, 4)]
            outputs = [[model[0](x).double().numpy(), model(x).double().numpy()] for x in joined]
        sums = sum(hsic(batch.grams) for batch in bank)
        cka = sums / sums.diagonal().outer(sums.diagonal()).sqrt()
        np.testing.assert_allclose(cka, naive.minibatch_cka(outputs, outputs), rtol=0, atol=tolerance)


def test_observers_get_whole_blocks_and_nothing_is_kept_of_blocks_of_one_pass():
    seen = []
    model = nn.Sequential(nn.Linear(3, 3))
    bank_of(model, torch.randn(18, 3).split(2), 6, observe=lambda row, x: seen.append((row, len(x))))
    assert seen == [(0, 6)] * 3
    memory = {}
    features = torch.randn(6, 3)
    assert BlockFeatures(memory, 6).add(0, features, 0) is features
    assert memory == {}
    block = BlockFeatures(memory, 6)
    assert block.add(0, features[:2], 0) is None
    assert torch.equal(block.add(0, features[2:], 2), features)
    kept = memory[0]
    again = BlockFeatures(memory, 4)  # A smaller last block uses the same memory.
    again.add(0, features[2:4], 0)
    assert torch.equal(again.add(0, features[4:], 2), features[2:])
    assert memory[0] is kept


def test_bad_samples_keep_their_places():
    x = torch.randn(16, 3)
    x[5] = torch.nan
    model = nn.Sequential(nn.Linear(3, 3)).double()
    x = x.double()
    bank = bank_of(model, x.split(2), 8)
    first, second = bank
    assert (first.bad_inputs, second.bad_inputs) == ((5,), ())
    whole = bank_of(model, x.split(8))
    for part, expected in zip(first.grams, next(iter(whole)).grams, strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=1e-12, equal_nan=True)


class Lengths(nn.Module):
    """Gives as many tokens as its input has, or the mean over them."""

    def __init__(self):
        super().__init__()
        self.tokens, self.pooled = nn.Identity(), nn.Identity()

    def forward(self, x):
        self.pooled(self.tokens(x).mean(1))


def test_features_of_other_sizes_in_a_later_block_are_nan_with_a_warning():
    batches = [torch.randn(4, t, 3) for t in (5, 5, 5, 6)]
    with pytest.warns(
        UserWarning,
        match=r"layer 'tokens' gave features of shape \(5, 3\) float32 and \(6, 3\) float32 .* pass feature_fn='mean'",
    ):
        bank = bank_of(Lengths(), batches, 8, ["tokens", "pooled"])
    first, second = bank
    assert first.grams.offsets.isfinite().all()
    assert second.grams.offsets.isnan().all(1).tolist() == [True, False]
    mean = bank_of(Lengths(), batches, 8, ["tokens", "pooled"], feature_fn="mean")
    assert all(batch.grams.offsets.isfinite().all() for batch in mean)


def test_a_layer_that_misses_one_forward_pass_is_nan_in_its_block():
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.other = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x):
            self.other(x)
            if x[0, 0] < 50:
                self.layer(x)

    x = torch.randn(16, 3)
    for late in (8, 10):  # In the first and in the second forward pass of the second block.
        changed = x.clone()
        changed[late] = 100
        with pytest.warns(UserWarning, match="layer 'layer' did not run on every probe batch: its CKA is nan"):
            first, second = bank_of(Skips(), changed.split(2), 8)
        assert first.grams.offsets.isfinite().all()
        assert second.grams.offsets.isnan().all(1).tolist() == [False, True]
