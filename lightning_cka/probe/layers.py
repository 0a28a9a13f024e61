"""Choose the layers of a model by name, name pattern, module class or the name of a class."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import nn

from lightning_cka.probe.default_layers import candidate_layers
from lightning_cka.probe.layer_patterns import hint_of_dots, is_class_name, names_matching
from lightning_cka.runtime.listed import listed
from lightning_cka.runtime.module_names import named_layers, unwrapped_names

if TYPE_CHECKING:
    LayerSelector = str | type[nn.Module]
else:
    LayerSelector = str  # LightningCLI cannot pass a class here, but its help would list every module class.


Layers = LayerSelector | Sequence[LayerSelector] | None


@dataclass(frozen=True)
class LayerPlan:
    """The layers to compare, as a dry run found them.

    Attributes:
        batch_dims: Which dimension of a layer's output is the batch, by layer name. The order is that of the Gram
            matrices' rows.
        num_samples: Number of samples in the first Gram block.
        repeated: Names of the layers that ran several times in one forward pass.
        warned: What was warned of already, as pairs of a layer and a problem, without sizes, that it has while the
            model is shown the probe set.
        execution_order: Names of the layers in the order in which they ran.
        written_parameters: Names of the parameters that the forward pass writes to. They are restored after each pass.
        has_parts: Whether Gram blocks have several forward passes.
        sample_bytes: Size of one sample's features of all layers, in bytes.
        num_tokens: Number of tokens of each sequence, for ``feature_fn="tokens"``; 0 for others.
        unequal: Layers whose features differ in size between the forward passes of the first block, with the reason.
    """

    batch_dims: dict[str, int]
    num_samples: int
    repeated: frozenset[str] = frozenset()
    warned: set[tuple[str, str]] = field(default_factory=set, compare=False)
    execution_order: tuple[str, ...] = ()
    written_parameters: tuple[str, ...] = ()
    has_parts: bool = False
    sample_bytes: int = 0
    num_tokens: int = 0
    unequal: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the layers, in order."""
        return tuple(self.batch_dims)


def check_layers(layers: Layers, argument: str = "layers") -> tuple[LayerSelector, ...] | None:
    """Return the selection as a tuple, and None as it is.

    Args:
        layers: A name, a name pattern, a module class, the name of one, or a container of these; see
            `lightning_cka.runtime.listed`. After a leading ``!``, an entry takes away what the others choose.
        argument: The user's name of the argument, for messages.

    Raises:
        TypeError: An entry is neither a name pattern nor a module class.
        ValueError: The selection is empty.
    """
    if layers is None:
        return None
    selectors = listed(layers)
    if not selectors:
        raise ValueError(f"{argument} is empty; pass None for the default layers")
    for selector in selectors:
        if not isinstance(selector, str) and not (isinstance(selector, type) and issubclass(selector, nn.Module)):
            raise TypeError(f"{argument} must be name patterns or module classes, but has {selector!r}")
    return selectors


def takes_away(selector: LayerSelector, names: Collection[str]) -> bool:
    """Whether a selector takes layers away. A layer of that very name is chosen by it."""
    return isinstance(selector, str) and selector.startswith("!") and selector not in names


def is_default(selectors: tuple[LayerSelector, ...] | None, names: Collection[str]) -> bool:
    """Whether a selection is that of the default layers, or only takes some of these away."""
    return selectors is None or all(takes_away(selector, names) for selector in selectors)


def match_layers(model: nn.Module, selectors: tuple[LayerSelector, ...] | None) -> dict[str, int]:
    """Return the names of the layers that match, each with the index of the first selector that it matches.

    By default, all modules that have parameters match: `lightning_cka.probe.default_layers` chooses among them, and
    only then does `taken_away` count.

    Raises:
        ValueError: A selector matches nothing, or all that match are taken away.
    """
    layers = named_layers(model)
    without = taken_away(model, selectors)
    if selectors is None or is_default(selectors, layers):
        matches = dict.fromkeys(candidate_layers(layers), 0)
        if not matches:
            raise ValueError(f"{type(model).__name__} has no layer with parameters; choose some with layers=")
        return matches
    matches = {}
    for index, selector in enumerate(selectors):
        for name in () if takes_away(selector, layers) else layers_of(selector, model, layers):
            matches.setdefault(name, index)
    left = {name: index for name, index in matches.items() if name not in without}
    if not left:
        raise ValueError(f"{list(selectors)} takes away all {len(matches)} layers that it chooses")
    return left


def taken_away(model: nn.Module, selectors: tuple[LayerSelector, ...] | None) -> set[str]:
    """Return the layers that selectors with a leading ``!`` match.

    Raises:
        ValueError: One of them matches nothing.
    """
    layers = named_layers(model)
    removing = [str(selector)[1:] for selector in selectors or () if takes_away(selector, layers)]
    return {name for selector in removing for name in layers_of(selector, model, layers)}


def layers_of(selector: LayerSelector, model: nn.Module, layers: dict[str, nn.Module]) -> list[str]:
    """Return the names of the layers that a selector matches.

    Args:
        selector: The selector.
        model: The model.
        layers: Its `named_layers`, which take long to find for each of many selectors.

    Raises:
        ValueError: There are none.
    """
    found = _found_layers(selector, model, layers)
    if not found:
        raise ValueError(_no_match_message(selector, model))
    return found


def matches_all(selectors: tuple[LayerSelector, ...] | None, model: nn.Module) -> bool:
    """Return whether each selector matches a layer of a model. None, the default layers, does."""
    layers = named_layers(model)
    plain = (str(each)[1:] if takes_away(each, layers) else each for each in selectors or ())
    return all(_found_layers(selector, model, layers) for selector in plain)


def _found_layers(selector: LayerSelector, model: nn.Module, layers: dict[str, nn.Module]) -> list[str]:
    return _layers_matching(selector, layers) or _wrapped_names_matching(selector, model)


def _layers_matching(selector: LayerSelector, layers: dict[str, nn.Module]) -> list[str]:
    if isinstance(selector, str):
        found = names_matching(selector, layers)
        return found or [name for name, module in layers.items() if is_class_name(selector, type(module))]
    return [name for name, module in layers.items() if isinstance(module, selector)]


def _wrapped_names_matching(selector: LayerSelector, model: nn.Module) -> list[str]:
    """Return the layers whose names match only with the segments of their wrappers."""
    if not isinstance(selector, str):
        return []
    unwrap = unwrapped_names(model)
    names = {name: unwrap(name) for name, _ in model.named_modules() if unwrap(name)}
    changed = {name: unwrapped for name, unwrapped in names.items() if unwrapped != name}
    return list(dict.fromkeys(changed[name] for name in names_matching(selector, changed)))


def _no_match_message(selector: LayerSelector, model: nn.Module) -> str:
    layers = named_layers(model)
    classes = sorted({type(module).__name__ for module in layers.values()})
    if not isinstance(selector, str):
        return f"no module is a {selector.__name__}; the model has {', '.join(classes)}"
    first_names = _first_names(model, layers)
    for name in names_matching(selector, first_names):
        return f"layer '{name}' is the same module as '{first_names[name]}': choose it by that name"
    if hint := hint_of_dots(selector, layers):
        return f"layer pattern {selector!r} matches no module: {hint}"
    known = [*layers, *classes]
    closest = difflib.get_close_matches(selector.replace("*", ""), known, n=3, cutoff=0.3) or list(layers)[:3]
    return f"layer pattern {selector!r} matches no module; closest: {', '.join(map(repr, closest))}"


def _first_names(model: nn.Module, layers: dict[str, nn.Module]) -> dict[str, str]:
    """Map each name of a module to its first name, by which it can be chosen."""
    first_names = {id(module): name for name, module in layers.items()}
    unwrap = unwrapped_names(model)
    all_names = {unwrap(name): module for name, module in model.named_modules(remove_duplicate=False)}
    return {name: first_names[id(module)] for name, module in all_names.items() if id(module) in first_names}
