"""What `CKAMonitor` writes into event files for the tab of TensorBoard, read back with TensorBoard's own reader."""

from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import Net, loaders, trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_cka import CKAMonitor
from lightning_cka.figures.pictures import pixels_of, png
from lightning_cka.monitor.tensorboard_events import Comparisons, comparisons_to_tensorboard, image_to_tensorboard
from lightning_cka.view.ceiling_content import ceiling_content
from lightning_cka.view.events import PLUGIN, read_event

pytestmark = [
    # Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
    pytest.mark.filterwarnings("ignore:html5lib's sanitizer"),
    pytest.mark.usefixtures("_without_figures"),
]


def read(folder):
    """Return by tag the step and the event of each comparison in a log folder, as TensorBoard keeps them."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    found = {}
    for tag in reader.PluginTagToContent(PLUGIN) if PLUGIN in reader.ActivePlugins() else ():
        last = reader.Tensors(tag)[-1]
        found[tag] = last.step, read_event(last.tensor_proto.string_val[0])
    return found


def fit(logger, folder, epochs=2, reference="initial", **kwargs):
    monitor = CKAMonitor(reference, dirpath=folder / "cka")
    fitted = trainer(monitor, logger=logger, log_every_n_steps=1, max_epochs=epochs)
    fitted.fit(Net(), *loaders(), **kwargs)
    return monitor, fitted


def test_every_comparison_has_an_event_of_its_own(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="tb")
    monitor, _ = fit(logger, tmp_path, 12, ["initial", "self"])
    found = read(logger.log_dir)
    assert len(found) == 24
    for name, results in monitor.results.items():
        for epoch, result in enumerate(results):
            step, event = found[f"cka/{name}/epoch={epoch:03d}-step={result.step:06d}"]
            assert step == result.step == 8 * epoch + 7
            assert event.key == f"cka/{name}/"
            assert (event.series["reference"], event.series["self"]) == (result.reference_name, name == "self")
            assert event.block["rows"] == list(result.layers)
            assert event.block["means"] == [round(result.mean(), 4)]


def test_a_comparison_has_the_seed_ceiling(tmp_path):
    seeds = [tmp_path / f"seed{seed}" for seed in range(3)]
    for folder in seeds:
        trainer(CKAMonitor(dirpath=folder, save_banks=True), max_epochs=1).fit(Net(), *loaders())
    logger = TensorBoardLogger(tmp_path, name="tb")
    monitor = CKAMonitor(["initial", "self"], dirpath=tmp_path / "cka", ceiling=seeds)
    trainer(monitor, logger=logger, log_every_n_steps=1, max_epochs=1).fit(Net(), *loaders())
    found = {event.key: event.series for _, event in read(logger.log_dir).values()}
    expected = ceiling_content(monitor.ceilings.values(), monitor.results["initial"])
    assert found["cka/initial/"]["ceiling"] == expected["ceiling"]
    assert "ceiling" not in found["cka/self/"]


def test_the_loggers_of_pytorch_lightning_get_them_too(tmp_path):
    import pytorch_lightning

    logger = pytorch_lightning.loggers.TensorBoardLogger(tmp_path, name="tb")
    comparisons_to_tensorboard(logger, "cka/initial/", Comparisons([comparison()]), 3)
    logger.finalize("success")
    assert len(read(logger.log_dir)) == 1


@pytest.mark.parametrize("package", ["lightning.pytorch", "pytorch_lightning"])
def test_images_are_read_back_as_those_of_add_image(tmp_path, package):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = import_module(package).loggers.TensorBoardLogger(tmp_path, name="tb")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    image_to_tensorboard(logger, "cka/initial/heat map", png(pixels), 3)
    logger.experiment.add_image("other", pixels, 3, dataformats="HWC")
    logger.finalize("success")
    events = EventAccumulator(logger.log_dir).Reload()
    (found,), (other,) = events.Images("cka/initial/heat map"), events.Images("other")
    assert (found.step, found.width, found.height) == (other.step, other.width, other.height) == (3, 30, 20)
    for each in (found, other):
        assert np.array_equal(pixels_of(each.encoded_image_string), pixels)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_a_run_that_continues_in_another_folder_has_all_comparisons(tmp_path):
    checkpoint = ModelCheckpoint(dirpath=tmp_path, every_n_epochs=1)
    monitor = CKAMonitor(dirpath=tmp_path / "cka")
    trainer(monitor, checkpoint, logger=False, enable_checkpointing=True).fit(Net(), *loaders())
    logger = TensorBoardLogger(tmp_path, name="tb")
    fit(logger, tmp_path, 3, ckpt_path=checkpoint.best_model_path)
    assert sorted(event.block["epochs"][0] for _, event in read(logger.log_dir).values()) == [0, 1, 2]


def test_a_second_fit_of_a_closed_logger_is_written(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="tb")
    fit(logger, tmp_path / "one", 1)
    before = read(logger.log_dir)
    fit(logger, tmp_path / "two", 2)
    assert len(before) == 1
    assert len(read(logger.log_dir)) == 2


def test_validation_outside_training_and_trials_have_no_events(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="tb")
    _, fitted = fit(logger, tmp_path, 1)
    fitted.validate(Net(), loaders()[1], verbose=False)
    logger.finalize("success")
    assert len(read(logger.log_dir)) == 1
    trial = TensorBoardLogger(tmp_path, name="trial")
    trainer(CKAMonitor(dirpath=tmp_path / "trial"), logger=trial, fast_dev_run=True).fit(Net(), *loaders())
    assert not list((tmp_path / "trial").rglob("*tfevents*"))


def comparison():
    from lightning_cka import CKAResult

    return CKAResult(torch.eye(2, dtype=torch.float64), ("a", "b"), ("a", "b"), num_samples=8, num_batches=1, epoch=1)


def test_hostile_keys_can_be_written(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    logger = SimpleNamespace(experiment=SummaryWriter(str(tmp_path)))
    keys = ["<script>/", "../../x/", "\ud800/", "😀/", "a\nb/"]
    for key in keys:
        comparisons_to_tensorboard(logger, key, Comparisons([comparison()]), 5)
    logger.experiment.close()
    found = read(tmp_path)
    assert [event.key for _, event in found.values()] == keys
    assert {step for step, _ in found.values()} == {5}
