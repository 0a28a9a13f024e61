"""Write comparisons, for the tab "CKA", and images into the event files of TensorBoard."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import is_of_training, moment
from lightning_cka.decisions.ceiling import SeedCeiling
from lightning_cka.figures.pictures import pixels_of
from lightning_cka.view.event_content import event_content
from lightning_cka.view.events import PLUGIN

_CLASS_IS_TENSOR = b"\x20\x02"
"""``data_class: DATA_CLASS_TENSOR`` as bytes, because the messages of tensorboardX do not have this field."""

_STRING = 7
"""``DT_STRING``."""

_OTHER_PROTOCOL = "tensorboardX.proto"


class Comparisons(NamedTuple):
    """Comparisons of one reference by one measure, as they are sent to loggers."""

    results: Sequence[CKAResult]
    """The comparisons."""
    ceilings: Sequence[SeedCeiling] = ()
    """Seed ceilings, for the comparisons that they fit."""


def comparisons_to_tensorboard(logger: Any, key: str, comparisons: Comparisons, step: int) -> None:
    """Write comparisons of training, each under a tag of its own.

    TensorBoard keeps ten tensors of a tag, and so all comparisons. One that is written again replaces the first.

    Args:
        logger: A ``TensorBoardLogger``.
        key: The logged key of reference and measure, with a slash at the end.
        comparisons: The comparisons.
        step: The step of results that have none.
    """
    writer, summaries = _writer_and_messages(logger)
    for result in filter(is_of_training, comparisons.results):
        tag = f"{key}{moment(result.epoch, result.step)}".encode(errors="replace").decode()
        metadata = summaries.SummaryMetadata()
        metadata.plugin_data.plugin_name = PLUGIN
        metadata.MergeFromString(_CLASS_IS_TENSOR)
        value = summaries.Summary.Value(tag=tag, metadata=metadata)
        value.tensor.dtype = _STRING
        value.tensor.string_val.append(event_content(key, result, comparisons.ceilings))
        writer.add_summary(summaries.Summary(value=[value]), step if result.step is None else result.step)


def image_to_tensorboard(logger: Any, key: str, png: bytes, step: int) -> None:
    """Write an image as it is. The method ``add_image`` takes pixels and encodes them again, which takes longer.

    Args:
        logger: A ``TensorBoardLogger``.
        key: The logged key.
        png: The content of a PNG file with red, green and blue.
        step: The step.
    """
    if _protocol(logger) == _OTHER_PROTOCOL:  # tensorboardX changes some letters of tags, so that it gets pixels.
        logger.experiment.add_image(key, pixels_of(png), step, dataformats="HWC")
        return
    writer, summaries = _writer_and_messages(logger)
    width, height = struct.unpack(">II", png[16:24])  # The first chunk of each PNG file starts with its size.
    image = summaries.Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
    tag = key.encode(errors="replace").decode()
    writer.add_summary(summaries.Summary(value=[summaries.Summary.Value(tag=tag, image=image)]), step)


def _writer_and_messages(logger: Any) -> tuple[Any, Any]:
    """Return the writer of the event file, and the module of its messages."""
    # As the other methods of the logger, this one opens the event file again if an earlier run has closed it.
    writer = logger.experiment._get_file_writer()
    return writer, import_module(f"{_protocol(logger)}.summary_pb2")


def _protocol(logger: Any) -> str:
    """Return the package of the messages that the writer of a logger takes."""
    module = type(logger.experiment).__module__
    return _OTHER_PROTOCOL if module.startswith("tensorboardX") else "tensorboard.compat.proto"
