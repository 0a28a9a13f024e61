"""Write comparisons into the event files of TensorBoard, for its tab "CKA"."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from lightning_cka.compare.result import CKAResult
from lightning_cka.compare.run_files import is_of_training, moment
from lightning_cka.view.event_content import event_content
from lightning_cka.view.events import PLUGIN

_CLASS_IS_TENSOR = b"\x20\x02"
"""``data_class: DATA_CLASS_TENSOR`` as bytes, because the messages of tensorboardX do not have this field."""

_STRING = 7
"""``DT_STRING``."""


def comparisons_to_tensorboard(logger: Any, key: str, results: Sequence[CKAResult], step: int) -> None:
    """Write comparisons of training, each under a tag of its own.

    TensorBoard keeps ten tensors of a tag, and so all comparisons. One that is written again replaces the first.

    Args:
        logger: A ``TensorBoardLogger``.
        key: The logged key of reference and measure, with a slash at the end.
        results: The comparisons.
        step: The step of results that have none.
    """
    # As its other methods, this one opens the event file again if an earlier run has closed it.
    writer = logger.experiment._get_file_writer()
    summaries = import_module(_protocol(type(logger.experiment).__module__) + ".summary_pb2")
    for result in filter(is_of_training, results):
        tag = f"{key}{moment(result.epoch, result.step)}".encode(errors="replace").decode()
        metadata = summaries.SummaryMetadata()
        metadata.plugin_data.plugin_name = PLUGIN
        metadata.MergeFromString(_CLASS_IS_TENSOR)
        value = summaries.Summary.Value(tag=tag, metadata=metadata)
        value.tensor.dtype = _STRING
        value.tensor.string_val.append(event_content(key, result))
        writer.add_summary(summaries.Summary(value=[value]), step if result.step is None else result.step)


def _protocol(module: str) -> str:
    """Return the package of the messages that a writer takes."""
    return "tensorboardX.proto" if module.startswith("tensorboardX") else "tensorboard.compat.proto"
