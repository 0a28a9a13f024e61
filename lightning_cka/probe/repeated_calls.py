"""Keep the features of layers that run several times in one forward pass: of the last call, or their mean."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_cka.probe.forward import Call


class RepeatedCalls:
    """The features of some layers, from call to call.

    Args:
        call: "last" or "mean".
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._features: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, layer: str, features: Tensor) -> str | None:
        """Add one call of a layer.

        Args:
            layer: Name of the layer.
            features: Its features ``(n, ...)``. They are copied, since the model may write to them.

        Returns:
            Why the mean over calls is undefined, as a verb phrase; None if it is defined.
        """
        previous = self._features.get(layer)
        if self._call == "last" or previous is None:
            # A sum of many calls may overflow in half precision.
            dtype = features.dtype if self._call == "last" else torch.promote_types(features.dtype, torch.float32)
            self._features[layer], self._counts[layer] = features.detach().to(dtype, copy=True), 1
            return None
        if previous.shape != features.shape:
            return (
                f"gave features of shapes {tuple(previous.shape)} and {tuple(features.shape)} in two calls, which "
                "call='mean' cannot average"
            )
        previous += features.detach()
        self._counts[layer] += 1
        return None

    def result(self, layer: str) -> Tensor | None:
        """Return the features of the last call or the mean over calls, and free them; None if there was no call."""
        features = self._features.pop(layer, None)
        return None if features is None else features / self._counts.pop(layer) if self._call == "mean" else features
