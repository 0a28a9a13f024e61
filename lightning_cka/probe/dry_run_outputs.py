"""Run a model once and record the shape of each layer's output."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import nn

from lightning_cka.probe.features import read_tensor
from lightning_cka.probe.forward import ForwardSettings
from lightning_cka.probe.forward_messages import why_forward_failed
from lightning_cka.probe.hooks import warn
from lightning_cka.probe.probe_set import ProbeBatch, ProbeSet
from lightning_cka.runtime.module_names import named_layers
from lightning_cka.runtime.text import describe


@dataclass
class Output:
    """What a layer gave in a dry run."""

    shape: tuple[int, ...] | None
    description: str
    calls: int = 1


def observe_outputs(
    model: nn.Module, batch: ProbeBatch, names: Iterable[str], forward_settings: ForwardSettings
) -> dict[str, Output]:
    """Outputs of the named layers that ran, in execution order."""
    outputs: dict[str, Output] = {}
    modules = named_layers(model)

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def observe(_module: nn.Module, _args: Any, output: Any) -> None:
            if name in outputs:
                outputs[name].calls += 1
                return
            try:
                tensor = read_tensor(output, forward_settings.feature_fn)
            except Exception as error:
                raise FeatureFnError(
                    f"feature_fn failed on the output of layer '{name}', {describe(output)}"
                ) from error
            what = f"feature_fn gave {describe(tensor)}" if callable(forward_settings.feature_fn) else describe(output)
            outputs[name] = Output(None if tensor is None else tuple(tensor.shape), what)

        return observe

    with ExitStack() as hooks:
        for name in names:
            hooks.enter_context(modules[name].register_forward_hook(hook(name)))
        try:
            forward_settings.forward(model, forward_settings.to_device(batch.data))
        except FeatureFnError:
            raise
        except Exception as error:
            raise ValueError(why_forward_failed(model, batch.data, forward_settings, error)) from error
    return outputs


def observe_one_sample_fewer(
    model: nn.Module, probe: ProbeSet, num_samples: int, names: Iterable[str], forward_settings: ForwardSettings
) -> dict[str, Output]:
    try:
        return observe_outputs(model, probe.first_batch(drop_last_sample=True), names, forward_settings)
    except ValueError as error:
        warn(
            f"the {num_samples} samples of a batch are taken to lie along the first dimension of each output, since "
            f"one sample fewer failed: {error}"
        )
        return {}


class FeatureFnError(ValueError):
    """The user's ``feature_fn`` raised: nothing to blame on the model's ``forward``."""
