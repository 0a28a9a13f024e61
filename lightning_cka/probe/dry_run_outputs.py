"""Run a model once on a probe batch, and record the shape of each layer's output."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import nn

from lightning_cka.probe.features import has_complex, read_tensor
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.forward_messages import why_forward_failed
from lightning_cka.probe.probe_set import ProbeBatch, ProbeSet
from lightning_cka.runtime.module_names import named_layers
from lightning_cka.runtime.text import describe


class FeatureFnError(ValueError):
    """The user's ``feature_fn`` raised an error. The model's ``forward`` is not the cause."""


@dataclass
class LayerOutput:
    """The output of a layer's first call in a dry run."""

    shape: tuple[int, ...] | None
    """Shape of the tensor that holds the samples; None if there is none."""
    description: str
    """The output in words, for messages."""
    is_complex: bool = False
    """Whether there is none, but a complex tensor."""
    calls: int = 1
    """How often the layer was called."""


def record_outputs(
    model: nn.Module, batch: ProbeBatch, names: Iterable[str], forward_settings: ForwardSettings
) -> dict[str, LayerOutput]:
    """Return the outputs of the named layers that ran, in execution order.

    Raises:
        ValueError: The forward pass or the ``feature_fn`` failed.
    """
    outputs: dict[str, LayerOutput] = {}
    modules = named_layers(model)
    with ExitStack() as hooks:
        for name in names:
            hooks.enter_context(modules[name].register_forward_hook(_recorder(name, outputs, forward_settings)))
        try:
            forward_settings.forward(model, forward_settings.to_device(batch.data))
        except FeatureFnError:
            raise
        except Exception as error:
            raise ValueError(why_forward_failed(model, batch.data, forward_settings, error)) from error
    return outputs


def _recorder(
    name: str, outputs: dict[str, LayerOutput], forward_settings: ForwardSettings
) -> Callable[[nn.Module, Any, Any], None]:
    feature_fn = forward_settings.feature_fn

    def record(_module: nn.Module, _args: Any, output: Any) -> None:
        if name in outputs:
            outputs[name].calls += 1
            return
        try:
            given = feature_fn(output) if callable(feature_fn) else output
            tensor = read_tensor(given, None if callable(feature_fn) else feature_fn)
        except Exception as error:
            raise FeatureFnError(f"feature_fn failed on the output of layer '{name}', {describe(output)}") from error
        description = describe(output)
        if callable(feature_fn):
            description = f"feature_fn gave {describe(given if tensor is None else tensor)}"
        shape = None if tensor is None else tuple(tensor.shape)
        outputs[name] = LayerOutput(shape, description, is_complex=tensor is None and has_complex(given))

    return record


def record_outputs_without_last_sample(
    model: nn.Module, probe: ProbeSet, num_samples: int, names: Iterable[str], forward_settings: ForwardSettings
) -> dict[str, LayerOutput]:
    """Return the outputs for the first batch without its last sample.

    If the model fails on that, return no outputs, with a warning: some models have a fixed batch size.
    """
    try:
        return record_outputs(model, probe.first_batch(drop_last_sample=True), names, forward_settings)
    except ValueError as error:
        warnings.warn(
            f"the {num_samples} samples of a batch are assumed to lie along the first dimension of each output, since "
            f"one sample fewer failed: {error}",
            stacklevel=3,
        )
        return {}
