"""Banks of models."""

import pytest
import torch
from conftest import dataset
from example_models import two_models
from gram_banks import ignore_few_samples, make_bank
from lightning_cka import GramBank, compare_banks, compare_models
from torch.utils.data import DataLoader

pytestmark = ignore_few_samples


@pytest.mark.filterwarnings("ignore:CKA:UserWarning")
def test_comparing_banks_equals_comparing_models(tmp_path):
    models = two_models()
    loader = DataLoader(dataset(128), batch_size=16, shuffle=True)
    for i, model in enumerate(models):
        GramBank.from_model(model, loader, progress_bar=False).save(tmp_path / f"{i}.safetensors")
    live = compare_models(*models, loader, progress_bar=False)
    offline = compare_banks(*(GramBank.load(tmp_path / f"{i}.safetensors") for i in range(2)))
    torch.testing.assert_close(live.matrix, offline.matrix, rtol=0, atol=1e-14)
    torch.testing.assert_close(live.standard_error, offline.standard_error, rtol=0, atol=1e-14)
    assert live.diagnostics == offline.diagnostics
    assert (offline.model_name, offline.reference_name) == ("Net", "Sequential")


def test_files_are_accepted_as_banks(tmp_path):
    a, b = make_bank(), make_bank(2)
    for name, bank in (("a", a), ("b", b)):
        bank.save(tmp_path / f"{name}.safetensors")
    assert torch.equal(compare_banks(tmp_path / "a.safetensors", b).matrix, compare_banks(a, b).matrix)
    assert repr(a) == "GramBank(Net: 2 layers, 41 samples in 3 batches)"
    with pytest.raises(FileNotFoundError, match="it is a folder"):
        compare_banks(tmp_path, b)
