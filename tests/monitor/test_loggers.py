"""What TensorBoard, W&B, CSV, MLflow and third-party loggers get, read back from disk."""

import json
import logging
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Net, dataset, loaders, trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning_cka import CKAMonitor
from lightning_cka.monitor.loggers import LoggerOutput
from lightning_cka.monitor.output_errors import OutputErrors
from lightning_cka.monitor.warn_once import WarnOnce
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

KEYS = {"cka/initial/heatmap", "cka/initial/drift", "cka/self/heatmap"}

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)")


def fit(tmp_path, *loggers, **kwargs):
    seed_everything(0, verbose=False)
    monitor = CKAMonitor(["initial", "self"], dirpath=tmp_path / "figures")
    trainer(monitor, logger=list(loggers), log_every_n_steps=1, **kwargs).fit(Net(), *loaders())
    return monitor


def test_tensorboard_has_images_and_scalars_on_lightnings_own_steps(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path, name="tb")
    monitor = fit(tmp_path, logger)
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    assert set(events.Tags()["images"]) == KEYS
    own = [(e.step, e.value) for e in events.Scalars("val_loss")]
    scalars = events.Scalars("cka/initial/mean")
    assert [e.step for e in scalars] == [step for step, _ in own] == [7, 15]
    assert [e.value for e in scalars] == pytest.approx([r.mean() for r in monitor.results["initial"]], abs=1e-6)
    images = events.Images("cka/initial/heatmap")
    assert [e.step for e in images] == [7, 15]
    assert images[0].width > 300
    assert images[0].encoded_image_string[:4] == b"\x89PNG"
    assert {"cka/initial/net.0", "cka/initial/head", "cka/self/mean"} <= set(events.Tags()["scalars"])


def wandb_records(path):
    """Read the records of an offline run: a 7-byte header, then LevelDB log records of protobuf messages."""
    from wandb.proto import wandb_internal_pb2

    content, position, message = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        if kind in (1, 2):  # A whole record, or the first part of one.
            message = b""
        message += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # A whole record, or the last part of one.
            record = wandb_internal_pb2.Record()
            record.ParseFromString(message)
            yield record
            message = b""


def wandb_rows(folder):
    """Return the logged rows of one offline run, and the run's folder."""
    import wandb

    wandb.finish()
    wandb.teardown()  # Ends the process that writes the file, which can be slow on a busy machine.
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    rows = []
    for record in wandb_records(file):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
    return rows, file.parent


@pytest.mark.usefixtures("_blank_figures")
def test_wandb_offline_has_images_with_the_global_step(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(project="test", save_dir=tmp_path, offline=True)
    fit(tmp_path, logger)
    rows, run = wandb_rows(tmp_path)
    for key in KEYS:
        logged = [row for row in rows if key in row]
        assert [row["trainer/global_step"] for row in logged] == [7, 15]
    assert [row["trainer/global_step"] for row in rows if "cka/initial/mean" in row] == [7, 15]
    assert [row["_step"] for row in rows] == sorted({row["_step"] for row in rows})
    assert len(list(run.glob("files/media/images/cka/*/*.png"))) == 6
    for name in ("initial", "self"):
        (row,) = [row for row in rows if f"cka/{name}/evolution" in row]
        assert row["trainer/global_step"] == 15
        (found,) = run.glob(f"files/media/videos/cka/{name}/evolution*.gif")
        assert found.read_bytes() == (tmp_path / "figures" / f"{name}-evolution.gif").read_bytes()


def outlier_loader():
    """Return validation data in which one sample dominates. The monitor logs a text about it."""
    inputs, labels = dataset(128, seed=2).tensors
    inputs[5] *= 300
    return DataLoader(TensorDataset(inputs, labels), batch_size=16)


@pytest.mark.usefixtures("_blank_figures")
def test_wandb_gets_texts_and_two_fits(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(project="test", save_dir=tmp_path, offline=True)
    for _ in range(2):
        seed_everything(0, verbose=False)
        trainer(CKAMonitor(), logger=logger, max_epochs=1).fit(Net(), loaders()[0], outlier_loader())
    rows, run = wandb_rows(tmp_path)
    for key in ("heatmap", "drift", "mean", "net.0", "evolution"):
        assert [row["trainer/global_step"] for row in rows if f"cka/initial/{key}" in row] == [7, 7], key
    assert {row["trainer/global_step"] for row in rows if "cka_diagnostics/warnings" in row} == {7}
    tables = [json.loads(path.read_text()) for path in run.glob("files/media/table/cka_diagnostics/warnings_*")]
    assert sum("single samples dominate" in table["data"][0][0] for table in tables) == 2
    assert len(list(tmp_path.glob("test/*/cka/initial/heatmap-*.png"))) == 1  # The second run has a folder of its own.


class OnlyMetrics(Logger):
    """A third-party logger without images."""

    def __init__(self):
        super().__init__()
        self.keys = set()

    name, version = "only", "0"

    def log_hyperparams(self, params):
        pass

    def log_metrics(self, metrics, step=None):
        self.keys |= set(metrics)


def test_loggers_without_images_get_scalars_and_one_warning(tmp_path):
    csv, other = CSVLogger(tmp_path, name="csv"), OnlyMetrics()
    with pytest.warns(UserWarning) as caught:
        fit(tmp_path, csv, other)
    messages = [str(w.message) for w in caught if "cannot log images" in str(w.message)]
    assert messages == [f"CSVLogger, OnlyMetrics cannot log images: the CKA figures are in {tmp_path / 'figures'}"]
    assert {"cka/initial/mean", "cka/initial/head", "cka/self/mean"} <= other.keys
    assert "cka/initial/mean" in Path(csv.log_dir, "metrics.csv").read_text()
    pixels = np.asarray(Image.open(tmp_path / "figures" / "initial" / "drift.png"))
    assert pixels.shape[2] == 3
    assert pixels.std() > 10


@pytest.mark.usefixtures("_blank_figures")
def test_every_logger_of_a_list_gets_the_figures(tmp_path):
    first, second = TensorBoardLogger(tmp_path, name="a"), TensorBoardLogger(tmp_path, name="b")
    fit(tmp_path, first, second, max_epochs=1)
    assert all(any(Path(logger.log_dir).glob("events*")) for logger in (first, second))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for logger in (first, second):
        events = EventAccumulator(logger.log_dir)
        events.Reload()
        assert set(events.Tags()["images"]) == KEYS


@pytest.fixture
def _mlflow(monkeypatch):
    """MLflow 3 warns about file stores, and rejects them unless this variable is set."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="mlflow")
        yield


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image)


def artifacts(logger, path=""):
    """Return local paths of all artifacts of a run, by artifact path."""
    client, found = logger.experiment, {}
    for each in client.list_artifacts(logger.run_id, path):
        if each.is_dir:
            found |= artifacts(logger, each.path)
        else:
            found[each.path] = Path(client.download_artifacts(logger.run_id, each.path))
    return found


@pytest.mark.usefixtures("_mlflow", "_blank_figures")
def test_mlflow_has_images_texts_and_animations_as_artifacts(tmp_path, caplog):
    logger = MLFlowLogger("experiment", tracking_uri=f"file:{Path.cwd()}/runs")
    seed_everything(0, verbose=False)
    monitor = CKAMonitor(["initial", "self"])
    trainer(monitor, logger=logger).fit(Net(), loaders()[0], outlier_loader())
    found = artifacts(logger)
    folder = tmp_path / "runs" / logger.name / logger.run_id / "cka"
    for step, moment in ((7, "epoch=000-step=000007"), (15, "epoch=001-step=000015")):
        for name in ("initial", "self"):
            image = pixels_of(found.pop(f"cka/{name}/heatmap/step={step:06d}.png"))
            assert np.array_equal(image, pixels_of(folder / name / f"heatmap-{moment}.png"))
        last = pixels_of(found.pop(f"cka/initial/drift/step={step:06d}.png"))
    assert np.array_equal(last, pixels_of(folder / "initial" / "drift.png"))
    for name in ("initial", "self"):
        evolution = found.pop(f"cka/{name}/evolution/step=000015.gif")
        assert evolution.read_bytes() == (folder / f"{name}-evolution.gif").read_bytes()
    assert found.pop("cka/report.html").read_bytes() == (folder / "report.html").read_bytes()
    summary = [found.pop(path) for path in list(found) if path.startswith("cka/summary/step=000015-")]
    assert [path.read_text().count("\n| `") for path in summary] == [4]  # One line for each layer.
    assert {path.rpartition("=")[0] for path in found} == {"cka_diagnostics/warnings/step"}, found
    texts = [path.read_text() for path in found.values()]
    assert any("single samples dominate" in text and "net.0" in text for text in texts)
    for key, values in (("mean", [r.mean() for r in monitor.results["initial"]]), ("net.0", None)):
        history = logger.experiment.get_metric_history(logger.run_id, f"cka/initial/{key}")
        assert [each.step for each in history] == [7, 15]
        assert values is None or [each.value for each in history] == pytest.approx(values, abs=1e-6)
    # MLflow does not take the monitor's folder for an experiment.
    assert {each.name for each in logger.experiment.search_experiments()} == {"Default", "experiment"}
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING and "cka" in record.message]


@pytest.mark.usefixtures("_mlflow", "_blank_figures")
@pytest.mark.filterwarnings("ignore:MLFlow only allows .* special characters in metric name")
def test_mlflow_gets_names_without_the_characters_that_it_rejects(tmp_path):
    torch.save(Net().state_dict(), tmp_path / "a#1=[x].pt")
    logger = MLFlowLogger("experiment", tracking_uri=f"file:{Path.cwd()}/runs")
    trainer(CKAMonitor("a#1=[x].pt"), logger=logger, max_epochs=1).fit(Net(), *loaders())
    images = {path for path in artifacts(logger) if path.endswith(".png")}
    assert images == {f"cka/a1=x/{name}/step=000007.png" for name in ("heatmap", "drift")}
    assert "cka/a1x/mean" in logger.experiment.get_run(logger.run_id).data.metrics


class Punctuated(Net):
    """Has layers whose names differ in what MLflow does not take, as keys of a `ModuleDict` may."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({name: nn.Linear(8, 8) for name in ("a+b", "ab", "a*b", "a", "вход", "слой")})
        self.add_module("слой", nn.Linear(8, 8))

    def forward(self, x):
        return super().forward(sum(part(x) for part in self.parts.values()) + self.get_submodule("слой")(x))


@pytest.mark.usefixtures("_mlflow", "_blank_figures")
@pytest.mark.filterwarnings("ignore:MLFlow only allows .* special characters in metric name")
@pytest.mark.filterwarnings("ignore:the CKA of layer .* is logged as")
def test_names_that_differ_in_punctuation_alone_stay_apart_in_mlflow(tmp_path):
    names = ["w#1", "w1", "w(1)", "w"]
    for name in names:
        torch.save(Punctuated().state_dict(), tmp_path / f"{name}.pt")
    monitor = CKAMonitor([f"{name}.pt" for name in names], layers=["parts.*", "слой"], log_diagnostics="all")
    logger = MLFlowLogger("experiment", tracking_uri=f"file:{Path.cwd()}/runs")
    trainer(monitor, logger=logger, max_epochs=1).fit(Punctuated(), *loaders())
    metrics = logger.experiment.get_run(logger.run_id).data.metrics
    found = {name: results[0].same_named() for name, results in monitor.results.items()}
    assert list(found) == ["w#1", "w1-2", "w(1)-3", "w"]
    logged = {"parts.a+b": "parts.ab-2", "parts.ab": "parts.ab", "parts.a*b": "parts.ab-3", "parts.a": "parts.a"}
    logged |= {"parts.вход": "parts.", "parts.слой": "parts.-2", "слой": "-2"}  # Other letters than a to z are removed.
    for name, path in zip(found, ("w1", "w1-2", "w1-3", "w"), strict=True):
        values = {layer: metrics[f"cka/{path}/{key}"] for layer, key in logged.items()}
        assert values == pytest.approx(found[name], abs=1e-6)
    diagnostics = {key for key in metrics if key.startswith("cka_diagnostics/") and key.endswith("/trace_ratio")}
    assert diagnostics == {f"cka_diagnostics/{key}/trace_ratio" for key in logged.values()}
    images = {path for path in artifacts(logger) if path.endswith("png")}
    assert len({path.split("/")[1] for path in images}) == 4


class TakesImages(OnlyMetrics):
    """A third-party logger with the ``log_image`` of `WandbLogger`, as several have."""

    def __init__(self):
        super().__init__()
        self.images = []

    def log_image(self, key, images, step=None, **kwargs):
        self.images.append((key, step, [image.size for image in images]))


@pytest.mark.usefixtures("_blank_figures")
def test_third_party_loggers_with_log_image_get_images(tmp_path):
    logger = TakesImages()
    monitor = fit(tmp_path, logger, max_epochs=1)
    height, width, _ = pixels_of(tmp_path / "figures" / "initial" / "heatmap-epoch=000-step=000007.png").shape
    assert logger.images[0] == ("cka/initial/heatmap", 7, [(width, height)])
    assert {key for key, _, _ in logger.images} == KEYS
    assert len(monitor.results["self"]) == 1


class Raises(TensorBoardLogger):
    """Raises for images and texts."""

    @property
    def experiment(self):
        writer = super().experiment

        def fail(key, *args, **kwargs):
            raise ConnectionError(f"cannot log {key}")

        file = writer._get_file_writer()

        def add(summary, *args, **kwargs):
            if summary.value[0].HasField("image"):
                fail(summary.value[0].tag)
            type(file).add_summary(file, summary, *args, **kwargs)

        writer.add_text, file.add_summary = fail, add
        return writer


@pytest.mark.usefixtures("_blank_figures")
def test_a_logger_that_raises_stops_neither_training_nor_the_others(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    good = TensorBoardLogger(tmp_path, name="good")

    def run(*callbacks):
        seed_everything(0, verbose=False)
        model, logger = Net(), [Raises(tmp_path, name="bad"), good] if callbacks else False
        trainer(*callbacks, logger=logger).fit(model, loaders()[0], outlier_loader())
        return model.state_dict()

    plain = run()
    monitor = CKAMonitor(["initial", "self"], dirpath=tmp_path / "figures")
    with pytest.warns(UserWarning) as caught:
        watched = run(monitor)
    assert all(torch.equal(value, watched[name]) for name, value in plain.items())
    # One warning for images, one for texts.
    assert sorted(str(w.message) for w in caught if "training continues" in str(w.message)) == [
        f"Raises could not log the CKA {kind}s, training continues: ConnectionError: cannot log {key}; "
        f"the folder is {tmp_path / 'figures'}"
        for kind, key in (("image", "cka/initial/heatmap"), ("text", "cka_diagnostics/warnings"))
    ]
    assert len(list((tmp_path / "figures" / "initial").glob("*.png"))) == 3
    events = EventAccumulator(good.log_dir, size_guidance={"images": 0, "tensors": 0}).Reload()
    assert set(events.Tags()["images"]) == KEYS
    assert [event.step for event in events.Images("cka/initial/heatmap")] == [7, 15]
    assert "cka_diagnostics/warnings/text_summary" in events.Tags()["tensors"]


@pytest.mark.usefixtures("_mlflow", "_without_figures")
@pytest.mark.parametrize(
    "make",
    [
        lambda: TensorBoardLogger("runs"),
        lambda: CSVLogger("runs"),
        lambda: MLFlowLogger("experiment", tracking_uri=f"file:{Path.cwd()}/runs"),
        lambda: WandbLogger(project="project", save_dir="runs", offline=True),
        OnlyMetrics,
        lambda: False,
        lambda: [
            OnlyMetrics(),
            TensorBoardLogger("runs"),
            CSVLogger("runs"),
            MLFlowLogger(tracking_uri=f"file:{Path.cwd()}/ml"),
        ],
    ],
    ids=["TensorBoard", "CSV", "MLflow", "W&B", "own", "none", "list"],
)
def test_files_are_beside_lightnings_checkpoints(tmp_path, monkeypatch, make):
    """Not in a folder that all runs share."""
    monkeypatch.setenv("WANDB_SILENT", "true")
    checkpoint, monitor = ModelCheckpoint(), CKAMonitor()
    logger = make()
    used = trainer(monitor, checkpoint, logger=logger, max_epochs=1, enable_checkpointing=True)
    used.fit(Net(), *loaders())
    if isinstance(logger, WandbLogger):
        wandb_rows(tmp_path / "runs")
    (result,) = tmp_path.rglob("epoch=000-step=000007.json")
    assert result.parent == Path(checkpoint.dirpath).resolve().parent / "cka" / "initial"
    assert logger or result.parent == tmp_path / "cka" / "initial"


def test_mlflow_gets_a_value_again_while_a_metric_is_written(monkeypatch, tmp_path):
    """For the first artifact, its file store reads the whole run, also a metric whose file is still empty."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger(tracking_uri=(tmp_path / "mlruns").as_uri())
    logger.log_metrics({"loss": 1.0}, step=0)
    (metric,) = (tmp_path / "mlruns").rglob("metrics/loss")
    content = metric.read_bytes()
    metric.write_bytes(b"")
    waits = []

    def wait(seconds):
        waits.append(seconds)
        metric.write_bytes(content)  # Lightning's thread has written it by now.

    monkeypatch.setattr("lightning_cka.monitor.logger_functions.time.sleep", wait)
    output = LoggerOutput([logger], OutputErrors(tmp_path, WarnOnce()))
    output.send("text", "cka_diagnostics/warnings", "a text", 1)
    output.finish()
    assert len(waits) == 1
    (text,) = (tmp_path / "mlruns").rglob("step=000001-*.txt")
    assert text.read_text() == "a text"


@pytest.mark.parametrize("message", ["Metric 'loss' is malformed. No data found.", "no connection"])
def test_other_errors_of_mlflow_are_not_tried_again(monkeypatch, tmp_path, message):
    monkeypatch.setattr("lightning_cka.monitor.logger_functions.RETRY_SECONDS", 0)
    calls = []

    class MLFlowLogger:
        run_id = "run"

        @property
        def experiment(self):
            return self

        def log_text(self, run_id, text, path):
            calls.append(text)
            raise ValueError(message)

    output = LoggerOutput([MLFlowLogger()], OutputErrors(tmp_path, WarnOnce()))
    output.send("text", "cka_diagnostics/warnings", "a text", 1)
    with pytest.warns(UserWarning, match=f"MLFlowLogger could not log the CKA texts.*{message}"):
        output.finish()
    assert len(calls) == (2 if "malformed" in message else 1)
