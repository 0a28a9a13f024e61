"""What arrives in TensorBoard, W&B, CSV and other people's loggers, read back from disk."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import Net, loaders, trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning_cka import CKAMonitor
from PIL import Image

KEYS = {"cka/initial/heatmap", "cka/initial/drift", "cka/self/heatmap"}

# Networks with two outputs and small probe sets are rightly flagged; tests/test_diagnostics.py has the flags.
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
    """Records of an offline run: a 7-byte header, then LevelDB log records of protobuf messages."""
    from wandb.proto import wandb_internal_pb2

    content, position, message = path.read_bytes(), 7, b""
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack("<HB", content[position + 4 : position + 7])
        if kind in (1, 2):  # The whole of a record, or its beginning.
            message = b""
        message += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # The whole of a record, or its end.
            record = wandb_internal_pb2.Record()
            record.ParseFromString(message)
            yield record
            message = b""


def test_wandb_offline_has_images_with_the_global_step(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(project="test", save_dir=tmp_path, offline=True)
    fit(tmp_path, logger)
    wandb.finish()
    wandb.teardown()  # Ends the process that writes the file: on a busy machine it may lag behind.
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    rows = []
    for record in wandb_records(file):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({item.key or item.nested_key[0]: json.loads(item.value_json) for item in items})
    for key in KEYS:
        logged = [row for row in rows if key in row]
        assert [row["trainer/global_step"] for row in logged] == [7, 15]
    assert [row["trainer/global_step"] for row in rows if "cka/initial/mean" in row] == [7, 15]
    assert [row["_step"] for row in rows] == sorted({row["_step"] for row in rows})
    assert len(list(file.parent.glob("files/media/images/cka/*/*.png"))) == 6
    for name in ("initial", "self"):
        (row,) = [row for row in rows if f"cka/{name}/evolution" in row]
        assert row["trainer/global_step"] == 15
        (found,) = file.parent.glob(f"files/media/videos/cka/{name}/evolution*.gif")
        assert found.read_bytes() == (tmp_path / "figures" / f"{name}-evolution.gif").read_bytes()


class OnlyMetrics(Logger):
    """A logger of someone else's."""

    def __init__(self):
        super().__init__()
        self.keys = set()

    name, version = "only", "0"

    def log_hyperparams(self, params):
        pass

    def log_metrics(self, metrics, step=None):
        self.keys |= set(metrics)


def test_loggers_that_take_no_images_get_scalars_and_one_warning(tmp_path):
    csv, other = CSVLogger(tmp_path, name="csv"), OnlyMetrics()
    with pytest.warns(UserWarning) as caught:
        fit(tmp_path, csv, other)
    said = [str(w.message) for w in caught if "cannot take images" in str(w.message)]
    assert said == [f"CSVLogger, OnlyMetrics cannot take images: the CKA figures are in {tmp_path / 'figures'}"]
    assert {"cka/initial/mean", "cka/initial/head", "cka/self/mean"} <= other.keys
    assert "cka/initial/mean" in Path(csv.log_dir, "metrics.csv").read_text()
    pixels = np.asarray(Image.open(tmp_path / "figures" / "initial" / "drift.png"))
    assert pixels.shape[2] == 3
    assert pixels.std() > 10


def test_every_logger_of_a_list_is_served(tmp_path):
    first, second = TensorBoardLogger(tmp_path, name="a"), TensorBoardLogger(tmp_path, name="b")
    fit(tmp_path, first, second, max_epochs=1)
    assert all(any(Path(logger.log_dir).glob("events*")) for logger in (first, second))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for logger in (first, second):
        events = EventAccumulator(logger.log_dir)
        events.Reload()
        assert set(events.Tags()["images"]) == KEYS
