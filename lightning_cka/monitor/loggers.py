"""How each logger takes images, text and videos."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

from lightning_cka.figures.pictures import Pixels
from lightning_cka.runtime.files import digest


def _image_to_tensorboard(logger: Any, key: str, pixels: Pixels, step: int) -> None:
    logger.experiment.add_image(key, pixels, step, dataformats="HWC")


def image_to_wandb(logger: Any, key: str, pixels: Pixels, step: int) -> None:
    # The logger records the step as trainer/global_step; W&B's own step must stay its own.
    logger.log_image(key, [Image.fromarray(pixels)], step=step)


def _image_to_mlflow(logger: Any, key: str, pixels: Pixels, step: int) -> None:
    logger.experiment.log_image(logger.run_id, pixels, f"{_artifact(key)}/step={step:06d}.png")


def _text_to_tensorboard(logger: Any, key: str, text: str, step: int) -> None:
    logger.experiment.add_text(key, text, step)


def _text_to_wandb(logger: Any, key: str, text: str, step: int) -> None:
    logger.log_text(key, columns=["warning"], data=[[text]], step=step)


def _text_to_mlflow(logger: Any, key: str, text: str, step: int) -> None:
    # There may be several of a step: each has a file of its own.
    name = f"step={step:06d}-{digest(text.encode())[:8]}.txt"
    logger.experiment.log_text(logger.run_id, text, f"{_artifact(key)}/{name}")


def _video_to_wandb(logger: Any, key: str, path: Path, step: int) -> None:
    logger.log_video(key, [str(path)], step=step, format=["gif"])


def _video_to_mlflow(logger: Any, key: str, path: Path, step: int) -> None:
    # An artifact has the name of its file, which may have characters that MLflow refuses.
    with TemporaryDirectory() as folder:
        copy = Path(folder, f"step={step:06d}{path.suffix}")
        copy.write_bytes(path.read_bytes())
        logger.experiment.log_artifact(logger.run_id, str(copy), _artifact(key))


def _artifact(key: str) -> str:
    """A key as a path that MLflow takes, as Lightning makes names of metrics."""
    return re.sub(r"[^a-zA-Z0-9_/. =-]+", "", key)


SENDERS: dict[tuple[str, str], Callable[[Any, str, Any, int], None]] = {
    ("image", "TensorBoardLogger"): _image_to_tensorboard,
    ("image", "WandbLogger"): image_to_wandb,
    ("image", "MLFlowLogger"): _image_to_mlflow,
    ("text", "TensorBoardLogger"): _text_to_tensorboard,
    ("text", "WandbLogger"): _text_to_wandb,
    ("text", "MLFlowLogger"): _text_to_mlflow,
    ("video", "WandbLogger"): _video_to_wandb,
    ("video", "MLFlowLogger"): _video_to_mlflow,
}
