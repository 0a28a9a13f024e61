"""The probe set is shown as in validation, and nothing else changes."""

import warnings

import pytest
import torch
from conftest import Net, dataset, loaders, trainer
from fitting import fit
from lightning.pytorch import seed_everything
from lightning_cka import CKAMonitor
from notes import Notes

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose|where)"),
]


def test_batch_hooks_run_as_in_validation():
    """The batch transfer hooks see the validation stage and the loader's index, also before training."""
    stages = Notes()

    class Hooked(Net):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            return None

        def on_after_batch_transfer(self, batch, dataloader_idx):
            stages.put((self.trainer.validating or self.trainer.sanity_checking, dataloader_idx))
            return [batch[0] + 1, batch[1]]

    model = Hooked()
    loader = loaders()[1]
    monitor = CKAMonitor("self", dataloader_idx=1)
    used = trainer(monitor, max_epochs=1, limit_train_batches=0)
    used.validate(model, [loader, loader], verbose=False)
    assert set(stages.all()) == {(True, 0), (True, 1)}


def test_values_that_forward_logs_for_probe_batches_are_not_logged():
    class Logs(Net):
        def forward(self, x):
            self.log("seen", float(len(x)), batch_size=1)
            return super().forward(x)

        def validation_step(self, batch, batch_idx):
            self(batch[0])

    model = Logs()
    _, used = fit(CKAMonitor(batch_size=10), model=model, max_epochs=1)
    assert used.callback_metrics["seen"].item() == 16  # The loader's batch size; it is 10 in the probe set.
    assert "log" not in model.__dict__


def test_a_validation_loader_that_draws_random_numbers_does_not_change_training():
    """Neither a custom loader, nor a hook that the callback calls earlier than Lightning does."""

    class Custom:
        def __len__(self):
            return 4

        def __iter__(self):
            order = torch.randperm(64)
            return iter([[x[order[:16]] for x in dataset(64).tensors] for _ in range(4)])

    class Hook(Net):
        def val_dataloader(self):
            torch.rand(5)
            return loaders()[1]

    def run(model_class, validation, *monitors, **kwargs):
        seed_everything(3, workers=True, verbose=False)
        model = model_class()
        trainer(*monitors, max_epochs=3, **kwargs).fit(model, loaders()[0], validation)
        return model.state_dict()

    for model_class, validation, kwargs in (
        (Net, Custom(), {}),
        (Hook, None, {"num_sanity_val_steps": 0, "check_val_every_n_epoch": 2}),
    ):
        plain = run(model_class, validation, **kwargs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the probe set consists of the first samples")
            warnings.filterwarnings("ignore", message=".*probe batches were skipped")
            warnings.filterwarnings("ignore", message=".*identical inputs")  # The loader repeats a batch.
            watched = run(model_class, validation, CKAMonitor(), **kwargs)
        assert all(torch.equal(value, watched[name]) for name, value in plain.items())


class Splits(Net):
    """Passes at most 32 samples at a time to its layers, as models do that would run out of memory."""

    def forward(self, x):
        return torch.cat([Net.forward(self, part) for part in x.split(32)])


@pytest.mark.parametrize(("reference", "expected"), [("self", ValueError), ("initial", UserWarning)])
def test_a_model_that_splits_large_batches(reference, expected):
    """Its layers run several times for a batch, but once for the few samples that the dry run shows otherwise."""
    monitor = CKAMonitor(reference, ["net.0", "head"], batch_size=64, gram_batch_size=64)
    used = trainer(monitor, max_epochs=1)
    message = {
        "self": "cannot compare these layers on a batch of 64 samples: .*'net.0'",
        "initial": r"layer 'net.0' gave Tensor\(32, 16\) .*: its CKA is nan. If .* parts of 32, use batch_size=32",
    }[reference]
    with pytest.raises(expected, match=message):
        used.fit(Splits(), *loaders())
    assert used.global_step == 0
    works = CKAMonitor(["initial", "self"], ["net.0", "head"], batch_size=32, gram_batch_size=64)
    trainer(works, max_epochs=1).fit(Splits(), *loaders())
    assert works.results["self"][-1].matrix.isfinite().all()
