"""The Trainer's precisions, and the precision of float32 matrix products."""

from contextlib import contextmanager

import pytest
import torch
from conftest import Net, dataset, trainer
from lightning.pytorch import seed_everything
from lightning_cka import CKAMonitor
from lightning_cka.hsic.stack import pack_features
from torch.utils.data import DataLoader, TensorDataset

pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]


def network(lr=0.1):
    seed_everything(3, workers=True, verbose=False)

    class WithRate(Net):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=lr)

    model = WithRate()
    # In bf16, batch norm of few samples gives some layers zero variance.
    model.net[1] = torch.nn.Identity()
    return model


def run(precision, *monitors, lr=0.1):
    """Return the weights after training."""
    model = network(lr)
    x, y = dataset(128).tensors
    loader = DataLoader(TensorDataset(x, y), batch_size=16)
    trainer(*monitors, precision=precision).fit(model, loader, loader)
    return model.state_dict()


@pytest.mark.filterwarnings("ignore:.*AMP with fp16 is not supported on CPU. Using `precision='bf16-mixed'`")
@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "64-true"])
def test_training_does_not_change_and_references_run_in_the_same_precision(precision, tmp_path):
    torch.save(network().state_dict(), "start.pt")
    references = ["initial", "previous", "self", "start.pt", network()]
    plain = run(precision)
    watched = run(precision, CKAMonitor(references, dirpath=tmp_path))
    assert all(torch.equal(value, watched[name]) for name, value in plain.items())
    monitor = CKAMonitor(references, dirpath=tmp_path / "still")
    run(precision, monitor, lr=0.0)
    assert_references_are_the_model(monitor)


def assert_references_are_the_model(monitor):
    """Assert that CKA is 1 for a model that does not change and copies of it."""
    for name in ("initial", "previous", "start", "reference"):
        assert len(monitor.results[name]) == 2
        for result in monitor.results[name]:
            torch.testing.assert_close(
                result.matrix.diagonal(), torch.ones(len(result.layers), dtype=torch.float64), rtol=0, atol=1e-12
            )


@contextmanager
def precision_of_products(level):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(level)
    try:
        yield
        assert torch.get_float32_matmul_precision() == level
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("level", ["highest", "high", "medium"])
def test_models_run_in_the_users_precision_of_products_which_is_not_changed(level):
    torch.save(network().state_dict(), "start.pt")
    with precision_of_products(level):
        plain = run("32-true")
        watched = run("32-true", CKAMonitor("initial"))
        assert all(torch.equal(value, watched[name]) for name, value in plain.items())
        monitor = CKAMonitor(["initial", "previous", "start.pt", network()])
        run("32-true", monitor, lr=0.0)
    assert_references_are_the_model(monitor)


@pytest.mark.parametrize("level", ["high", "medium"])
def test_gram_matrices_do_not_depend_on_the_precision_of_products(level):
    features = [torch.randn(64, 300) + 5, torch.randn(64, 4, 5, 5).relu()]
    exact = pack_features(features)
    with precision_of_products(level):
        found = pack_features(features)
    assert all(map(torch.equal, exact, found))
