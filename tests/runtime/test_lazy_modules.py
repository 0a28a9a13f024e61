"""Lazy modules raise an error that names them, and stay as they are."""

import pytest
import torch
from conftest import Net, loaders, trainer
from lightning_cka import CKAMonitor, GramBank, compare_models
from lightning_cka.runtime.lazy_modules import check_initialized
from torch import nn


class Hides(nn.Module):
    """Has a lazy module in a list."""

    def __init__(self):
        super().__init__()
        self.first, self.others = nn.Linear(8, 4), [nn.LazyLinear(3)]

    def forward(self, x):
        return self.others[0](self.first(x))


BATCHES = [torch.randn(8, 8)] * 2
LAZY = {
    "parameters": (lambda: nn.Sequential(nn.Linear(8, 4), nn.LazyLinear(3)), "1.weight, 1.bias"),
    "buffers": (lambda: nn.Sequential(nn.Linear(8, 4), nn.LazyBatchNorm1d(affine=False)), "1.running_mean"),
    "hidden": (Hides, "LazyLinear.weight"),
}


@pytest.mark.parametrize(("make", "named"), LAZY.values(), ids=LAZY)
def test_lazy_modules_are_named_and_not_materialized(make, named):
    model, plain = make(), nn.Sequential(nn.Linear(8, 4))
    state, modes = torch.get_rng_state(), [module.training for module in model.modules()]
    for call in (
        lambda: GramBank.from_model(model, BATCHES, progress_bar=False),
        lambda: compare_models(plain, model, BATCHES, progress_bar=False),
    ):
        with pytest.raises(ValueError, match=f"lazy modules, .* first batch: {named}.*Pass one batch to the model"):
            call()
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    with pytest.raises(ValueError, match=named):
        check_initialized(model, getattr(model, "others", ()))
    model(BATCHES[0])
    GramBank.from_model(model, BATCHES, progress_bar=False)


class LazyNet(Net):
    def __init__(self):
        super().__init__()
        self.head = nn.LazyLinear(3)


@pytest.mark.usefixtures("_without_figures")
@pytest.mark.filterwarnings("ignore")
def test_a_trainer_needs_its_sanity_check():
    with pytest.raises(ValueError, match=r"LazyNet has lazy modules.*head.weight.*num_sanity_val_steps"):
        trainer(CKAMonitor(num_samples=64), num_sanity_val_steps=0).fit(LazyNet(), *loaders())
    with pytest.raises(ValueError, match=r"reference 'LazyNet': LazyNet has lazy modules.*head.weight"):
        trainer(CKAMonitor(LazyNet(), num_samples=64)).fit(Net(), *loaders())
    trainer(CKAMonitor(num_samples=64), max_epochs=1).fit(LazyNet(), *loaders())
