"""Gram blocks that cannot be made are refused before the first pass, or made smaller where they are the default."""

import logging

import pytest
import torch
from conftest import Net, dataset
from example_models import CPU
from lightning_cka import compare_models
from lightning_cka.probe import batching, fit_blocks
from lightning_cka.probe.dry_run import dry_run
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.seeded_sampling import draw_probe_set
from lightning_cka.probe.stream_probe import StreamProbe
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader


class Padded(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.pool = nn.Linear(1, 4), nn.Linear(4, 4)

    def forward(self, x):
        self.pool(self.embed(x).mean(1))


def pad(samples):
    """Give each sample its own length, so that batches are padded to different ones."""
    return pad_sequence([torch.ones(2 + int(x[0] * 10) % 7, 1) * x[0] for x, _ in samples], batch_first=True)


def fitted(probe, model, **kwargs):
    plan = dry_run(model, probe, None, ForwardSettings(CPU, **kwargs))
    return fit_blocks.fit_blocks(probe, plan, CPU)


def test_the_size_of_features_is_what_one_sample_has():
    x = torch.randn(8, 3, 6, 6)
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 2, 3).half())
    plan = dry_run(
        model,
        StreamProbe([x] * 2, 0, gram_batch_size=16),
        None,
        ForwardSettings(CPU, lambda model, x: model[1](model[0](x).half())),
    )
    assert (plan.sample_bytes, plan.num_samples, plan.has_parts) == (5 * 16 * 4 + 2 * 4 * 2, 16, True)
    assert fit_blocks.kept_bytes(plan) == 16 * plan.sample_bytes
    one = dry_run(model[:1], StreamProbe([x] * 2, 0), None, ForwardSettings(CPU, feature_fn="mean"))
    assert (one.sample_bytes, one.num_samples, one.has_parts) == (5 * 4, 8, False)
    assert fit_blocks.kept_bytes(one) == 0


def test_memory_is_told_before_the_first_pass(caplog):
    with caplog.at_level(logging.INFO):
        fitted(draw_probe_set(DataLoader(dataset(256), batch_size=8)), Net().eval())
    # 16 + 16 + 16 + 3 features of 4 bytes, for 32 samples.
    assert "Gram matrix has 32 samples of several forward passes. The features" in caplog.text
    assert "of 4 layers, take 0.00623 MiB on cpu" in caplog.text


def test_default_blocks_become_smaller(monkeypatch, caplog):
    monkeypatch.setattr(batching, "DEFAULT_BYTES", 20 * 51 * 4)
    monkeypatch.setattr(fit_blocks, "DEFAULT_BYTES", 20 * 51 * 4)
    with caplog.at_level(logging.INFO):
        probe, plan = fitted(draw_probe_set(DataLoader(dataset(256), batch_size=8)), Net().eval())
    assert (plan.num_samples, plan.has_parts, probe.num_blocks) == (16, True, 16)
    assert "have 16 samples instead of 32, since features take over 1 GiB" in caplog.text


def test_default_blocks_of_padded_batches_have_one_forward_pass(caplog):
    loader = DataLoader(dataset(256), batch_size=8, collate_fn=pad)
    with caplog.at_level(logging.INFO):
        probe, plan = fitted(draw_probe_set(loader), Padded())
    assert (plan.num_samples, plan.has_parts, probe.num_blocks, plan.unequal) == (8, False, 32, {})
    assert "have 8 samples instead of 32, since features of several forward passes cannot be joined" in caplog.text
    for kwargs in ({"feature_fn": "mean"}, {"feature_fn": lambda x: x.mean(-2)}):
        probe, plan = fitted(draw_probe_set(loader), Padded(), **kwargs)
        assert (plan.num_samples, plan.has_parts, probe.num_blocks) == (32, True, 8)


def test_features_of_unequal_sizes_are_refused():
    message = r"layer 'embed' gave features of shape \(\d, 4\) float32 and .* pass feature_fn='mean', or a gram_batch"
    loader = DataLoader(dataset(256), batch_size=8, collate_fn=pad)
    with pytest.raises(ValueError, match=message):
        fitted(draw_probe_set(loader, gram_batch_size=32), Padded())
    with pytest.raises(ValueError, match=message):
        compare_models(Padded(), Padded(), loader, gram_batch_size=32, progress_bar=False)
    with pytest.raises(ValueError, match="reference: " + message):
        compare_models(Padded(), Padded(), loader, "pool", reference_layers="embed", gram_batch_size=32)


def test_features_that_do_not_fit_are_refused(monkeypatch):
    monkeypatch.setattr(fit_blocks, "total_memory", lambda _: 4 * 20 * 51 * 4)
    loader = DataLoader(dataset(256), batch_size=8)
    with pytest.raises(
        ValueError,
        match=r"32 samples need the features of 4 layers, .* GiB, but may take a quarter of the memory of cpu, .* Pass "
        r"feature_fn='mean', fewer layers, or gram_batch_size=20 or less",
    ):
        fitted(draw_probe_set(loader, gram_batch_size=32), Net().eval())
    fitted(draw_probe_set(loader, gram_batch_size=20), Net().eval())
    monkeypatch.setattr(fit_blocks, "total_memory", lambda _: 100)
    with pytest.raises(ValueError, match=r"fewer layers$"):
        fitted(draw_probe_set(loader, gram_batch_size=32), Net().eval())
    fitted(draw_probe_set(loader, batch_size=32), Net().eval())  # Blocks of one forward pass keep nothing.
