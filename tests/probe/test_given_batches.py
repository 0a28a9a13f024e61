"""Probe sets of the samples of another bank."""

import pytest
import torch
from conftest import dataset
from example_models import two_models
from lightning_cka import GramBank
from torch.utils.data import DataLoader


def test_a_model_is_shown_the_samples_of_another_bank():
    models = two_models()
    loader = DataLoader(dataset(128), batch_size=16, shuffle=True)
    bank = GramBank.from_model(models[0], loader, "net.0", seed=4, progress_bar=False)
    other = GramBank.from_model(models[1], DataLoader(dataset(128)), "0", like=bank, progress_bar=False)
    assert bank.probe_differences(other) == []
    with pytest.raises(ValueError, match=r"like= has sample 12\d, but the dataset has 64"):
        GramBank.from_model(models[1], DataLoader(dataset(64)), "0", like=bank, progress_bar=False)
    with pytest.raises(ValueError, match="like= needs a DataLoader over a map-style dataset, but got a list"):
        GramBank.from_model(models[1], [torch.ones(4, 8)], "0", like=bank, progress_bar=False)
    stream = GramBank.from_model(models[0], [torch.randn(8, 8)] * 3, "net.0", progress_bar=False)
    with pytest.raises(ValueError, match="samples have dataset indices, but this bank has loader positions"):
        GramBank.from_model(models[1], loader, "0", like=stream, progress_bar=False)


def test_another_dataset_gives_a_warning(tmp_path):
    models = two_models()
    loader = DataLoader(dataset(128), batch_size=16, shuffle=True)
    GramBank.from_model(models[0], loader, "net.0", progress_bar=False).save(tmp_path / "like.safetensors")
    other = DataLoader(dataset(128, seed=3))
    with pytest.warns(
        UserWarning,
        match="probe set differs from that of like= in the inputs in 8 of 8 batches. Check that the dataset",
    ):
        GramBank.from_model(models[1], other, "0", like=tmp_path / "like.safetensors", progress_bar=False)
