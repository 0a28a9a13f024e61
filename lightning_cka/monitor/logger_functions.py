"""How TensorBoard, W&B, MLflow, Comet, LitLogger and others take images, texts, videos, reports and comparisons."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from PIL import Image

from lightning_cka.figures.pictures import pixels_of
from lightning_cka.monitor.tensorboard_events import comparisons_to_tensorboard, image_to_tensorboard
from lightning_cka.runtime.file_names import safe_file_name
from lightning_cka.runtime.files import digest
from lightning_cka.runtime.namespaces import class_names

Kind = Literal["image", "text", "video", "report", "comparison"]

RETRY_SECONDS = 0.5
_MALFORMED = re.compile(r"Metric '.*' is malformed")

Send = Callable[[Any, str, Any, int], None]
"""A function of a logger, a key, a value and a step."""


def _image_to_wandb(logger: Any, key: str, png: bytes, step: int) -> None:
    # WandbLogger logs this step as "trainer/global_step". W&B counts its own steps, which must only increase.
    logger.log_image(key, [_image(png)], step=step)


def _tried_twice(send: Send) -> Send:
    """Let a function of MLflow try again if its file store has read a metric that is just being written.

    For the first artifact of a run, MLflow reads the whole run. A metric's file is empty for a moment when Lightning's
    thread makes it.
    """

    def send_or_retry(logger: Any, key: str, value: Any, step: int) -> None:
        try:
            send(logger, key, value, step)
        except Exception as error:
            if not _MALFORMED.match(str(error)):
                raise
            time.sleep(RETRY_SECONDS)
            send(logger, key, value, step)

    return send_or_retry


def _image_to_mlflow(logger: Any, key: str, png: bytes, step: int) -> None:
    logger.experiment.log_image(logger.run_id, pixels_of(png), f"{_artifact_path(key)}/step={step:06d}.png")


def _text_to_tensorboard(logger: Any, key: str, text: str, step: int) -> None:
    logger.experiment.add_text(key, text, step)


def _text_to_wandb(logger: Any, key: str, text: str, step: int) -> None:
    column = key.rpartition("/")[2].removesuffix("s")  # "warning" or "summary"
    logger.log_text(key, columns=[column], data=[[text]], step=step)


def _text_to_mlflow(logger: Any, key: str, text: str, step: int) -> None:
    # A step can have several texts, so the file name contains a hash of the text.
    name = f"step={step:06d}-{digest(text.encode())[:8]}.txt"
    logger.experiment.log_text(logger.run_id, text, f"{_artifact_path(key)}/{name}")


def _video_to_wandb(logger: Any, key: str, path: Path, step: int) -> None:
    logger.log_video(key, [str(path)], step=step, format=["gif"])


def _video_to_mlflow(logger: Any, key: str, path: Path, step: int) -> None:
    # MLflow names an artifact after its file, and rejects some characters. So it gets a copy with a simple name.
    with TemporaryDirectory() as folder:
        copy = Path(folder, f"step={step:06d}{path.suffix}")
        copy.write_bytes(path.read_bytes())
        logger.experiment.log_artifact(logger.run_id, str(copy), _artifact_path(key))


def _report_to_wandb(logger: Any, key: str, path: Path, step: int) -> None:
    # Without inject=False, W&B adds a style sheet from the network.
    page = import_module("wandb").Html(path.read_text(encoding="utf-8"), inject=False, data_is_not_path=True)
    logger.log_metrics({key: page}, step=step)


def _report_to_mlflow(logger: Any, key: str, path: Path, step: int) -> None:  # noqa: ARG001  # There is one report.
    logger.experiment.log_artifact(logger.run_id, str(path), _artifact_path(key.rpartition("/")[0]) or None)


def _image_to_comet(logger: Any, key: str, png: bytes, step: int) -> None:
    logger.experiment.log_image(_image(png), name=key, step=step)


def _text_to_comet(logger: Any, key: str, text: str, step: int) -> None:
    logger.experiment.log_text(text, step=step, metadata={"key": key})


def _video_to_comet(logger: Any, key: str, path: Path, step: int) -> None:
    logger.experiment.log_video(str(path), name=key, format=path.suffix[1:], step=step)


def _image_to_litlogger(logger: Any, key: str, png: bytes, step: int) -> None:
    # A series keeps all that it gets. So it gets the path of a file, which it uploads at once, and not the pixels.
    with TemporaryDirectory() as folder:
        path = Path(folder, "image.png")
        path.write_bytes(png)
        _append_to_litlogger(logger, key, "Image", str(path), step)


def _text_to_litlogger(logger: Any, key: str, text: str, step: int) -> None:
    _append_to_litlogger(logger, key, "Text", text, step)


def _video_to_litlogger(logger: Any, key: str, path: Path, step: int) -> None:
    _append_to_litlogger(logger, key, "Video", str(path), step)


def _append_to_litlogger(logger: Any, key: str, kind: str, content: str, step: int) -> None:
    logger.experiment[key].append(getattr(import_module("litlogger"), kind)(content), step=step)


def _image(png: bytes) -> Image.Image:
    return Image.fromarray(pixels_of(png))


def _artifact_path(key: str) -> str:
    """Return a key as a path in MLflow: without the characters that it rejects, and inside the run's artifacts.

    Lightning also removes these characters from names of metrics.
    """
    return "/".join(_artifact_name(part) for part in key.split("/"))


def _artifact_name(part: str) -> str:
    name = re.sub(r"[^a-zA-Z0-9_. =-]+", "", part)
    # A hash keeps names apart that differ only in letters that are removed, or of which nothing remains.
    is_lost = not name or sum(map(str.isalnum, name)) < sum(map(str.isalnum, part))
    return safe_file_name(f"{name}-{digest(part.encode(errors='surrogatepass'))[:8]}" if is_lost else name)


_SEND: dict[tuple[Kind, str], Send] = {
    ("comparison", "TensorBoardLogger"): comparisons_to_tensorboard,
    ("image", "TensorBoardLogger"): image_to_tensorboard,
    ("image", "WandbLogger"): _image_to_wandb,
    ("image", "MLFlowLogger"): _tried_twice(_image_to_mlflow),
    ("image", "CometLogger"): _image_to_comet,
    ("image", "LitLogger"): _image_to_litlogger,
    ("text", "TensorBoardLogger"): _text_to_tensorboard,
    ("text", "WandbLogger"): _text_to_wandb,
    ("text", "MLFlowLogger"): _tried_twice(_text_to_mlflow),
    ("text", "CometLogger"): _text_to_comet,
    ("text", "LitLogger"): _text_to_litlogger,
    ("report", "WandbLogger"): _report_to_wandb,
    ("report", "MLFlowLogger"): _tried_twice(_report_to_mlflow),
    ("video", "WandbLogger"): _video_to_wandb,
    ("video", "MLFlowLogger"): _tried_twice(_video_to_mlflow),
    ("video", "CometLogger"): _video_to_comet,
    ("video", "LitLogger"): _video_to_litlogger,
}


def find_send(kind: Kind, logger: Any) -> Send | None:
    """Return the function that sends this kind of value to a logger; None if the logger does not support it."""
    for name in class_names(logger):
        if (kind, name) in _SEND:
            return _SEND[kind, name]
    if kind == "image" and callable(getattr(logger, "log_image", None)):
        return _image_to_wandb  # Third-party loggers that have this method copy its signature from WandbLogger.
    return None
