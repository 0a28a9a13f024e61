"""Other ways to call a Trainer: `fast_dev_run`, `validate`, a second `fit`, manual optimization."""

import logging

import lightning as L
import pytest
import torch
from conftest import Net, loaders, trainer
from lightning_cka import CKAMonitor, compare_models
from torch import nn
from training import MARKS, epochs_and_steps, run, same_weights

pytestmark = MARKS


def test_a_fast_dev_run_tries_all_references(tmp_path):
    torch.save(Net().state_dict(), tmp_path / "a.pt")
    monitor = CKAMonitor(["initial", "previous", "self", 3, tmp_path / "a.pt", Net()], every_n_epochs=4)
    run(monitor, fast_dev_run=3)
    assert {name: len(results) for name, results in monitor.results.items()} == dict.fromkeys(
        ("initial", "previous", "self", "a", "reference"), 1
    )
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_validate_with_a_checkpoint_compares_the_weights_of_the_checkpoint(tmp_path):
    """The monitor has not seen any training."""
    trained, fitted = run()
    fitted.save_checkpoint(tmp_path / "trained.ckpt")
    torch.manual_seed(7)
    reference, other = Net(), Net()
    monitor = CKAMonitor([reference, "self"], dirpath=tmp_path / "cka")
    trainer(monitor).validate(other, loaders()[1], ckpt_path=tmp_path / "trained.ckpt", verbose=False)
    batches = [batch.data for batch in monitor._session.probe.probe.batches()]
    (result,), (own,) = monitor.results["reference"], monitor.results["self"]
    expected = compare_models(trained, reference, batches, progress_bar=False).matrix
    torch.testing.assert_close(result.matrix, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        own.matrix, compare_models(trained, trained, batches, progress_bar=False).matrix, rtol=0, atol=1e-12
    )
    assert (result.epoch, result.step) == (None, None)


def test_a_second_fit_of_one_trainer_continues_the_history(tmp_path):
    """The results are those of one fit() with as many epochs, also after a fit() with nothing left to train."""
    whole, monitor = (CKAMonitor(["initial", "previous", 1, "self"], dirpath=tmp_path / name) for name in "ab")
    run(whole, max_epochs=4)
    model, fitted = run(monitor, max_epochs=2)
    fitted.fit(model, *loaders())
    assert epochs_and_steps(monitor) == [(0, 7), (1, 15)]
    assert monitor.state_dict()["references"].keys() == {"initial", "previous", "epoch-1"}
    fitted.fit_loop.max_epochs = 4
    fitted.fit(model, *loaders())
    assert epochs_and_steps(monitor) == [(0, 7), (1, 15), (2, 23), (3, 31)]
    assert {r.reference_name for r in monitor.results["initial"]} == {"initial"}
    assert [r.epoch for r in monitor.results["epoch-1"]] == [1, 2, 3]
    # The sampler of a second fit() starts with other random numbers, so only the first results are the same.
    for name, results in whole.results.items():
        pairs = [(a, b) for a, b in zip(results, monitor.results[name], strict=True) if a.epoch < 2]
        assert all(torch.equal(a.matrix, b.matrix) for a, b in pairs)
    assert not (tmp_path / "b" / "earlier-1").exists()


def test_a_second_fit_needs_no_files_for_its_references(tmp_path):
    monitor = CKAMonitor(["initial", "previous"], dirpath=tmp_path / "cka")
    model, fitted = run(monitor, max_epochs=1)
    for path in (tmp_path / "cka" / "banks").iterdir():
        path.unlink()
    fitted.fit_loop.max_epochs = 2
    fitted.fit(model, *loaders())
    assert epochs_and_steps(monitor, "previous") == [(0, 7), (1, 15)]
    assert {r.reference_name for r in monitor.results["initial"]} == {"initial"}


def test_a_second_fit_with_another_model_restarts_the_references(tmp_path):
    monitor = CKAMonitor(["initial", "previous", "self"])
    _, fitted = run(monitor, max_epochs=1)
    fitted.fit_loop.max_epochs = 3
    with pytest.warns(UserWarning, match="goes on from step 8|with another model: all histories restart") as caught:
        fitted.fit(Net(), *loaders())
    assert len([each for each in caught if "goes on from" in str(each.message)]) == 2
    assert len([each for each in caught if "another model" in str(each.message)]) == 1
    assert epochs_and_steps(monitor) == epochs_and_steps(monitor, "self") == [(1, 15), (2, 23)]
    assert {r.reference_name for r in monitor.results["initial"]} == {"initial, restarted at step 8"}
    assert [p.name for p in (tmp_path / "cka" / "earlier-1" / "initial").iterdir()] == ["epoch=000-step=000007.json"]


def test_a_second_fit_with_other_validation_data_restarts_the_references():
    monitor = CKAMonitor("initial")
    model, fitted = run(monitor, max_epochs=1)
    fitted.fit_loop.max_epochs = 2
    with pytest.warns(UserWarning, match="restarts, because|has another probe set"):
        fitted.fit(model, *reversed(loaders()))
    assert epochs_and_steps(monitor) == [(1, 15)]


def test_a_new_trainer_starts_a_new_run():
    monitor = CKAMonitor("initial")
    run(monitor, max_epochs=1)
    run(monitor, max_epochs=2)
    assert epochs_and_steps(monitor) == [(0, 7), (1, 15)]


class Adversarial(L.LightningModule):
    """Two networks, two optimizers, manual optimization; forward runs the generator only."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.generator = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
        self.discriminator = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x):
        return self.generator(x)

    def training_step(self, batch, batch_idx):
        for optimizer, sign in zip(self.optimizers(), (1, -1), strict=True):
            loss = sign * (self.discriminator(self(batch[0])) - self.discriminator(batch[0])).mean()
            optimizer.zero_grad()
            self.manual_backward(loss)
            if (batch_idx + 1) % 2 == 0:
                optimizer.step()

    def validation_step(self, batch, batch_idx):
        self.log("score", self.discriminator(self(batch[0])).mean())

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.1) for part in (self.generator, self.discriminator)]


@pytest.mark.parametrize("extra", [{}, {"val_check_interval": 3}, {"max_epochs": -1, "max_steps": 12}])
def test_manual_optimization_of_two_networks(extra, caplog):
    with caplog.at_level(logging.INFO, "lightning.pytorch"):
        monitor = CKAMonitor(["initial", "previous"])
        watched, _ = run(monitor, model=Adversarial, **extra)
    plain, _ = run(model=Adversarial, **extra)
    assert same_weights(plain, watched)
    assert monitor.results["initial"][-1].layers == ("generator.0", "generator.2")
    assert len({step for _, step in epochs_and_steps(monitor)}) == len(epochs_and_steps(monitor)) > 0
    omitted = "layer 'discriminator.0' (Linear), layer 'discriminator.2' (Linear) did not run in forward"
    assert f"leaves out of the default layers: {omitted}" in caplog.text


def test_a_forward_fn_that_runs_both_networks():
    def forward_fn(module, batch):
        return module.discriminator(module(batch[0]))

    monitor = CKAMonitor(forward_fn=forward_fn)
    run(monitor, model=Adversarial)
    # "discriminator.2" is not checked: it has a single output.
    names = ("generator.0", "generator.2", "discriminator.0")
    assert monitor.results["initial"][-1].layers[:3] == names
