"""`compare_banks`: the result is that of the models, and the probe sets must agree."""

import pytest
import torch
from conftest import Net, dataset
from gram_banks import make_bank
from lightning_cka import GramBank, compare_banks, compare_models
from lightning_cka.probe.dry_run import dry_run
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.show_probe_set import show_probe_set
from lightning_cka.probe.stream_probe import StreamProbe
from torch import nn
from torch.utils.data import DataLoader

pytestmark = pytest.mark.filterwarnings("ignore:CKA. layers (that|whose)")


def inputs():
    return [x for x, _ in DataLoader(dataset(100), batch_size=16)]


def mlp():
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 5))


def bank_of_model(model, batches):
    probe, forward_settings = StreamProbe(batches, 0), ForwardSettings(torch.device("cpu"))
    plan = dry_run(model, probe, None, forward_settings)
    bank = GramBank(plan.names, type(model).__name__)
    show_probe_set(model, probe, plan, forward_settings, bank.add)
    return bank


def test_banks_give_the_result_of_their_models():
    model, reference, batches = Net(), mlp(), inputs()
    a, b = bank_of_model(model, batches), bank_of_model(reference, batches)
    live = compare_models(model, reference, batches, reference_layers=nn.Linear, progress_bar=False)
    offline = compare_banks(a, b)
    assert torch.equal(offline.matrix, live.matrix)
    assert torch.equal(offline.standard_error, live.standard_error)
    assert compare_banks(a, a).matrix.diagonal().eq(1).all()
    assert (a.num_samples, a.layers, b.layers) == (100, ("net.0", "net.1", "net.4", "head"), ("0", "2"))


def test_banks_of_different_inputs_raise():
    model, batches = mlp(), inputs()
    with pytest.raises(ValueError, match="different probe sets: they differ in the inputs in 1 of 7 batches"):
        compare_banks(bank_of_model(model, batches), bank_of_model(model, [*batches[:-1], batches[-1] + 1]))


def test_two_banks_of_one_class_get_the_names_that_tell_them_apart():
    banks = [make_bank(variant, epoch=3) for variant in (1, 2)]
    result = compare_banks(*banks, model_name="seed 0", reference_name="seed 1")
    assert (result.model_name, result.epoch, result.reference_name) == ("seed 0", 3, "seed 1, epoch 3")
    assert torch.equal(result.matrix, compare_banks(*banks).matrix)
    itself = compare_banks(banks[0], banks[0], model_name="seed 0")
    assert (itself.model_name, itself.self_comparison) == ("seed 0", True)
    assert [bank.model_name for bank in banks] == ["Net", "Net"]
