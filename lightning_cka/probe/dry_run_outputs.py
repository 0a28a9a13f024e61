"""Run a model once on a probe batch, and record the shape and some values of each layer's output."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_cka.probe.features import has_complex, read_tensor
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.forward_messages import ForwardFailedError, why_forward_failed
from lightning_cka.probe.kept_values import kept_values, strides_of
from lightning_cka.probe.probe_set import ProbeBatch
from lightning_cka.runtime.module_names import named_layers, takes_hooks
from lightning_cka.runtime.nested import tensors_in
from lightning_cka.runtime.temporary_hook import TemporaryHook, TemporaryInputHook
from lightning_cka.runtime.text import describe


class FeatureFnError(ValueError):
    """The user's ``feature_fn`` raised an error. The model's ``forward`` is not the cause."""


@dataclass
class LayerOutput:
    """The output of a layer in a dry run: that of its last call for ``call="last"``, else that of its first call."""

    shape: tuple[int, ...] | None
    """Shape of the tensor that holds the samples; None if there is none."""
    description: str
    """The output in words, for messages."""
    is_complex: bool = False
    """Whether there is none, but a complex tensor."""
    calls: int = 1
    """How often the layer was called."""
    values: Tensor | None = None
    """Some of the tensor's entries; see `lightning_cka.probe.kept_values`."""
    strides: tuple[int, ...] = ()
    """The steps at which entries are kept."""
    other_shape: tuple[int, ...] | None = None
    """Shape of another call's tensor, if a call had another one."""
    input_values: Tensor | None = None
    """Some entries of the first tensor among the arguments of the first call, for `OutputRecorder.lenient` layers."""
    dtype: torch.dtype = torch.float32
    """Dtype of the tensor that holds the samples."""


class DryRunOutputs(NamedTuple):
    """The outputs of layers in a dry run, by layer name."""

    num_samples: int
    """Number of samples n that the model was shown."""
    outputs: dict[str, LayerOutput]
    """For the n samples."""
    fewer: dict[str, LayerOutput]
    """For all of them but the last; empty if the model was not shown these, or fails on them."""
    part: dict[str, LayerOutput]
    """For `lightning_cka.probe.batch_part.some_samples` of them; empty if the batch cannot be cut."""
    batch_size: int
    """Number of samples in the first batch, of which the n may be a part."""
    block_size: int
    """Number of samples in the first Gram block."""
    has_parts: bool = False
    """Whether the block has several forward passes."""
    passes: Sequence[Mapping[str, LayerOutput]] = ()
    """For all forward passes of the first block, without values; empty if all have inputs of the same shapes."""
    adapters: Sequence[str] = ()
    """Layers that adapt another one."""
    mask: Tensor | None = None
    """Which tokens of the first batch are not padding; None if the feature function does not ask for that."""
    written_parameters: Sequence[str] = ()
    """Names of the parameters that the forward pass writes to."""


@dataclass
class OutputRecorder:
    """Forward hooks that record outputs.

    Args:
        outputs: What is recorded, by layer name, in execution order.
        num_samples: Number of samples n in the batch.
        forward_settings: How outputs are read.
        lenient: Names of layers whose output the ``feature_fn`` may fail on, and whose input is recorded too.
        like: Outputs of the same layers for another batch, whose strides are used.
    """

    outputs: dict[str, LayerOutput]
    num_samples: int
    forward_settings: ForwardSettings
    lenient: Collection[str] = ()
    like: Mapping[str, LayerOutput] | None = None
    _inputs: dict[str, Tensor | None] = field(default_factory=dict)

    def hook(self, name: str) -> TemporaryHook:
        """Return the forward hook of one layer."""

        def record(output: Any) -> None:
            first = self.outputs.get(name)
            if first is None or self.forward_settings.call != "first":
                new = self._read(name, output)
                self.outputs[name] = new if first is None else self._joined(first, new)
            self.outputs[name].input_values = self._inputs.get(name)
            if first is not None:
                self.outputs[name].calls = first.calls + 1

        return TemporaryHook(record)

    def input_hook(self, name: str) -> TemporaryInputHook:
        """Return the hook that records the input of one layer, before it runs."""

        def record(inputs: Any) -> None:
            if name not in self._inputs:
                self._inputs[name] = self._kept_input(inputs)

        return TemporaryInputHook(record)

    def _kept_input(self, inputs: Any) -> Tensor | None:
        tensor = next(tensors_in(inputs), None)
        if tensor is None or not tensor.is_floating_point() or tensor.is_nested or tensor.layout is not torch.strided:
            return None
        return kept_values(tensor, strides_of(tensor.shape, self.num_samples))

    def _joined(self, first: LayerOutput, new: LayerOutput) -> LayerOutput:
        if self.forward_settings.call == "last":
            return new
        if new.shape != first.shape:
            first.other_shape = new.shape or ()
        return first

    def _read(self, name: str, output: Any) -> LayerOutput:
        feature_fn = self.forward_settings.feature_fn
        try:
            given = feature_fn(output) if callable(feature_fn) else output
            tensor = read_tensor(given, None if callable(feature_fn) else feature_fn)
        except Exception as error:
            if name in self.lenient:
                return LayerOutput(None, f"{describe(output)}, on which feature_fn fails")
            raise FeatureFnError(f"feature_fn failed on the output of layer '{name}', {describe(output)}") from error
        description = describe(output)
        if callable(feature_fn):
            description = f"feature_fn gave {describe(given if tensor is None else tensor)}"
        if tensor is None:
            return LayerOutput(None, description, is_complex=has_complex(given))
        like = (self.like or {}).get(name)
        strides = strides_of(tensor.shape, self.num_samples) if like is None else like.strides
        values = kept_values(tensor, strides)
        return LayerOutput(tuple(tensor.shape), description, values=values, strides=strides, dtype=tensor.dtype)


def record_outputs(
    model: nn.Module,
    batch: ProbeBatch,
    names: Iterable[str],
    forward_settings: ForwardSettings,
    *,
    lenient: Collection[str] = (),
    like: Mapping[str, LayerOutput] | None = None,
) -> dict[str, LayerOutput]:
    """Return the outputs of the named layers that ran, in execution order.

    Args:
        model: The model.
        batch: The batch that it is shown.
        names: Names of the layers.
        forward_settings: How the batch is passed to the model.
        lenient: See `OutputRecorder`.
        like: See `OutputRecorder`.

    Raises:
        ForwardFailedError: The forward pass failed.
        ValueError: The ``feature_fn`` failed.
    """
    recorder = OutputRecorder({}, batch.num_samples, forward_settings, lenient, like)
    modules = named_layers(model)
    with ExitStack() as hooks:
        for name in filter(lambda name: takes_hooks(modules[name]), names):
            if name in lenient:
                hook = recorder.input_hook(name)
                hooks.enter_context(modules[name].register_forward_pre_hook(hook, with_kwargs=True))
            hooks.enter_context(modules[name].register_forward_hook(recorder.hook(name)))
        try:
            forward_settings.forward(model, forward_settings.to_device(batch.data))
        except FeatureFnError:
            raise
        except Exception as error:
            raise ForwardFailedError(why_forward_failed(model, batch.data, forward_settings, error)) from error
    return recorder.outputs
