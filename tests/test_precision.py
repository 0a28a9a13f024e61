"""Trainer precisions, and what float32 products are made of."""

import copy

import pytest
import torch
from conftest import Net, dataset, trainer
from lightning.pytorch import seed_everything
from lightning_cka import CKAMonitor
from lightning_cka.packed import pack_features
from torch.utils.data import DataLoader, TensorDataset

pytestmark = pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)")


def run(precision, monitor=None, lr=0.1):
    seed_everything(3, workers=True, verbose=False)

    class WithRate(Net):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=lr)

    model = WithRate()
    # In bf16, batch norm of few samples gives some layers no variance.
    model.net[1] = torch.nn.Identity()
    if monitor is not None:
        monitor.references[-1].source = copy.deepcopy(model)
    x, y = dataset(128).tensors
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    trainer(*([monitor] if monitor else []), precision=precision).fit(model, loader, loader)
    return model.state_dict()


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true", "64-true"])
def test_training_is_untouched_and_references_see_the_same_precision(precision, tmp_path):
    references = ["initial", "previous", "self", Net()]
    plain = run(precision)
    watched = run(precision, CKAMonitor(references, dirpath=tmp_path))
    assert all(torch.equal(value, watched[name]) for name, value in plain.items())
    # Of a model that does not change, a copy of it as a frozen reference cannot be told from it.
    monitor = CKAMonitor(references, dirpath=tmp_path / "still")
    run(precision, monitor, lr=0.0)
    for name in ("initial", "previous", "Net"):
        for result in monitor.results[name]:
            torch.testing.assert_close(
                result.matrix.diagonal(), torch.ones(len(result.layers), dtype=torch.float64), rtol=0, atol=1e-12
            )


@pytest.mark.parametrize("level", ["high", "medium"])
def test_gram_matrices_do_not_depend_on_the_precision_of_products(level):
    features = [torch.randn(64, 300) + 5, torch.randn(64, 4, 5, 5).relu()]
    exact = pack_features(features)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(level)
        found = pack_features(features)
        assert torch.get_float32_matmul_precision() == level
    finally:
        torch.set_float32_matmul_precision(before)
    assert all(map(torch.equal, exact, found))
