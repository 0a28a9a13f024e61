"""Choose the layers of a model by name pattern or module class."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, cast

from torch import nn

from lightning_cka.runtime.module_names import named_layers, without_compiled

if TYPE_CHECKING:
    LayerSelector = str | type[nn.Module]
else:
    LayerSelector = str  # LightningCLI takes no class here, but its help would list all that there are.


Layers = LayerSelector | Sequence[LayerSelector] | None


MAX_DEFAULT_LAYERS = 64


def check_layers(layers: Layers, argument: str = "layers") -> tuple[LayerSelector, ...] | None:
    """The selection as a tuple, None for the default one.

    Raises:
        TypeError: something in it is neither a name pattern nor a module class.
        ValueError: it is empty.
    """
    if layers is None:
        return None
    selectors = tuple(layers) if isinstance(layers, list | tuple) else (layers,)
    if not selectors:
        raise ValueError(f"{argument} is empty; pass None for the default layers")
    for selector in selectors:
        if not isinstance(selector, str) and not (isinstance(selector, type) and issubclass(selector, nn.Module)):
            raise TypeError(f"{argument} must be name patterns or module classes, but has {selector!r}")
    return cast(tuple[LayerSelector, ...], selectors)


def names_matching(pattern: str, names: Collection[str]) -> list[str]:
    """The name that the pattern is, else those that it matches as a glob."""
    return [pattern] if pattern in names else [name for name in names if fnmatchcase(name, pattern)]


def match_layers(model: nn.Module, selectors: tuple[LayerSelector, ...] | None) -> dict[str, int]:
    """Names of the layers that match, each with the place of the selector that it matched first.

    None stands for the leaf modules that own parameters.

    Raises:
        ValueError: a selector matches nothing.
    """
    layers = named_layers(model)
    if selectors is None:
        matches = {name: 0 for name, module in layers.items() if _owns_parameters(name, module)}
        if not matches:
            raise ValueError(f"{type(model).__name__} has no layer with parameters; choose some with layers=")
        return matches
    matches = {}
    for place, selector in enumerate(selectors):
        if isinstance(selector, str):
            found = names_matching(selector, layers)
        else:
            found = [name for name, module in layers.items() if isinstance(module, selector)]
        if not found:
            raise ValueError(_no_match(selector, model))
        for name in found:
            matches.setdefault(name, place)
    return matches


def _owns_parameters(name: str, module: nn.Module) -> bool:
    if "parametrizations" in name.split("."):
        return False
    children = [child for child, _ in module.named_children() if child != "parametrizations"]
    return not children and any(True for _ in module.parameters())


def _no_match(selector: LayerSelector, model: nn.Module) -> str:
    layers = named_layers(model)
    if isinstance(selector, str):
        names = {id(module): name for name, module in layers.items()}
        every = {without_compiled(name): module for name, module in model.named_modules(remove_duplicate=False)}
        for name in names_matching(selector, every):
            if id(every[name]) in names:
                return f"layer '{name}' is the same module as '{names[id(every[name])]}': choose it by that name"
        closest = difflib.get_close_matches(selector.replace("*", ""), layers, n=3, cutoff=0.3) or list(layers)[:3]
        return f"layer pattern {selector!r} matches no module; closest: {', '.join(map(repr, closest))}"
    classes = sorted({type(module).__name__ for module in layers.values()})
    return f"no module is a {selector.__name__}; the model has {', '.join(classes)}"


def spread_evenly(names: list[str], count: int = MAX_DEFAULT_LAYERS) -> list[str]:
    """At most ``count`` of the names, evenly spaced, the first and the last among them."""
    if len(names) <= count:
        return names
    return [names[round(i * (len(names) - 1) / (count - 1))] for i in range(count)]


@dataclass(frozen=True)
class LayerPlan:
    """The layers that are looked at, as a dry run found them.

    Attributes:
        batch_dims: by layer name, in the order of the Gram matrices' rows: which dimension is the batch.
        num_samples: size of the probe batch that was shown.
    """

    batch_dims: dict[str, int]
    num_samples: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the layers, in order."""
        return tuple(self.batch_dims)
