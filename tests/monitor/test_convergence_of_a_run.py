"""A monitor counts layers that have converged, answers since when they have, and sums up the run at its end."""

import logging
from pathlib import Path

import pytest
import torch
from conftest import Net, loaders, trainer
from fitting import fit
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_cka import CKAMonitor, convergence
from lightning_cka.decisions.settled import settled_count
from lightning_cka.monitor.reference import Reference
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]

KEY = "cka/initial/converged_layers"


class Counts(Callback):
    """Keeps the count after each validation."""

    def __init__(self):
        self.values = []

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.values.append(trainer.callback_metrics[KEY].item())


def monitor(**options):
    return CKAMonitor(**({"gram_batch_size": 16, "tolerance": 0.1, "patience": 2} | options))


def test_the_logged_count_is_that_of_the_last_comparisons():
    counts, used = Counts(), monitor()
    fit(used, counts, max_epochs=6)
    history = used.results["initial"]
    assert counts.values == [settled_count(history[: place + 1], 0.1, 2) for place in range(6)]
    assert counts.values[:2] == [0, 0]
    assert max(counts.values) > 0


def test_a_callback_can_stop_training_when_layers_have_converged():
    stopping = EarlyStopping(KEY, mode="max", patience=99, stopping_threshold=0.5)
    used = monitor()
    _, fitted = fit(used, stopping, max_epochs=9)
    assert stopping.stopped_epoch > 0
    assert fitted.callback_metrics[KEY] >= 1
    for name in ("previous", "self"):
        with pytest.raises(ValueError, match=f"looks for 'cka/{name}/converged_layers', which CKAMonitor does not log"):
            fit(monitor(reference=name), EarlyStopping(f"cka/{name}/converged_layers"))


def test_references_that_move_have_no_count():
    _, fitted = fit(monitor(reference=["initial", "previous", "self", 0]), max_epochs=2)
    found = {key for key in fitted.callback_metrics if key.endswith("converged_layers")}
    assert found == {KEY, "cka/epoch-0/converged_layers"}
    assert [Reference("x", source).is_fixed for source in ("initial", 3, "a.ckpt", Net())] == [True] * 4
    assert [Reference("x", source).is_fixed for source in ("previous", "self")] == [False] * 2


def test_a_layer_called_like_the_count_has_another_key():
    class Named(Net):
        def __init__(self):
            super().__init__()
            self.converged_layers = self.head
            del self.head

        def forward(self, x):
            return self.converged_layers(self.net(x))

    with pytest.warns(UserWarning, match="'converged_layers' is logged as 'cka/initial/converged_layers-2'"):
        _, fitted = fit(monitor(), model=Named())
    assert fitted.callback_metrics[KEY] == 0


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_resuming_gives_the_same_counts(tmp_path):
    whole, first, second = Counts(), Counts(), Counts()
    fit(monitor(dirpath="whole"), whole, max_epochs=5)
    checkpoint = ModelCheckpoint(tmp_path / "ckpt", save_last=True)
    fit(monitor(dirpath="part"), first, checkpoint, max_epochs=3, enable_checkpointing=True)
    resumed = trainer(monitor(dirpath="part"), second, max_epochs=5)
    resumed.fit(Net(), *loaders(), ckpt_path=str(tmp_path / "ckpt" / "last.ckpt"))
    assert first.values + second.values == whole.values
    assert max(whole.values) > 0


def test_convergence_of_a_monitor_is_that_of_its_files():
    used = monitor(reference=["initial", "previous", "self"], save_banks=True, dirpath="cka")
    fit(used, max_epochs=4)
    found = used.convergence()
    assert found.criteria == ("initial", "last state")
    assert found.tolerance == 0.1
    assert repr(found) == repr(convergence("cka", tolerance=0.1))
    assert used.convergence(tolerance=0.3, level=0.5).tolerance == 0.3
    without = monitor(dirpath="other")
    fit(without, max_epochs=2)
    assert "the bank of epoch 1" in " ".join(without.convergence().notes) or "one bank only" in " ".join(
        without.convergence().notes
    )
    with pytest.raises(ValueError, match="no results of a reference that does not move"):
        monitor().convergence()


@pytest.fixture
def messages(caplog):
    """Lines that Lightning prints."""
    caplog.set_level(logging.INFO, "lightning.pytorch.utilities.rank_zero")

    def of_summary():
        return [record.getMessage() for record in caplog.records if "Summary of " in record.getMessage()]

    return of_summary


def test_the_summary_is_printed_once_with_one_line_per_layer(messages):
    used = monitor(reference=["initial", "self"], save_banks=True)
    fit(used, max_epochs=3)
    (text,) = messages()
    lines = text.strip().splitlines()
    assert lines[0].startswith("Summary of Net, epoch 2, step 23: linear CKA, 128 samples in 8 batches")
    assert [line.split()[0] for line in lines[3:]] == ["layer", *used.results["initial"][-1].layers]
    for title in ("initial: since", "1 - CKA to the next", "last state: since"):
        assert title in lines[3]


@pytest.mark.parametrize("options", [{"summary": False}, {"fast_dev_run": True}])
def test_there_is_no_summary_if_it_is_off_or_in_a_trial_run(messages, options):
    kept = {name: value for name, value in options.items() if name == "summary"}
    fit(monitor(**kept), **{name: value for name, value in options.items() if name != "summary"})
    assert messages() == []


def test_the_summary_is_logged_as_markdown(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="", version="")
    fit(monitor(), max_epochs=2, logger=logger)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (text,) = events.Tensors("cka/summary/text_summary")
    content = text.tensor_proto.string_val[0].decode()
    assert "| layer | initial |" in content
    assert "| `head` |" in content
    assert text.step == 15


def test_a_summary_that_fails_does_not_end_training(monkeypatch):
    def fails(*_args, **_kwargs):
        raise RuntimeError("no summary")

    monkeypatch.setattr("lightning_cka.monitor.run_end.run_summary", fails)
    with pytest.warns(UserWarning, match="the summary could not be made, training continues: RuntimeError: no summary"):
        fit(monitor(), max_epochs=1)


def test_training_is_the_same_without_a_summary():
    weights = []
    for summary in (True, False):
        seed_everything(3, workers=True, verbose=False)
        model, _ = fit(monitor(summary=summary, save_banks=summary), max_epochs=2)
        weights.append(model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": 0}, r"tolerance must be in \(0, 1\), but is 0"),
        ({"tolerance": 1.5}, r"tolerance must be in \(0, 1\), but is 1.5"),
        ({"patience": 0}, "patience must be at least 1"),
    ],
)
def test_arguments_out_of_range_raise(options, message):
    with pytest.raises(ValueError, match=message):
        CKAMonitor(**options)


def test_large_banks_are_not_read_for_the_summary(monkeypatch, messages):
    monkeypatch.setattr("lightning_cka.monitor.run_end._MOST_BYTES", 10)
    fit(monitor(save_banks=True, dirpath="cka"), max_epochs=2)
    (text,) = messages()
    assert "last state" not in text
    assert len(list(Path("cka/banks").iterdir())) == 3
