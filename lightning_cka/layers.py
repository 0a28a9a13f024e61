"""Choose layers by name, and turn whatever a module returns into features of shape (n, ...)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence, unpack_sequence

if TYPE_CHECKING:
    LayerSelector = str | type[nn.Module]
else:
    LayerSelector = str  # LightningCLI takes no class here, but its help would list all that there are.
Layers = LayerSelector | Sequence[LayerSelector] | None
FeatureFn = str | Callable[[Any], Any] | None

MAX_DEFAULT_LAYERS = 64


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Submodules by dotted name, without the ``_orig_mod`` segments that `torch.compile` adds."""
    layers = {}
    for name, module in model.named_modules():
        name = without_compiled(name)
        if name:
            # The module inside a compiled wrapper comes after it, and is the one whose hooks fire.
            layers[name] = module
    return layers


def without_compiled(name: str) -> str:
    """A dotted name without the ``_orig_mod`` segments that `torch.compile` adds."""
    return ".".join(part for part in name.split(".") if part != "_orig_mod")


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


def float_tensors(output: Any) -> Iterator[Tensor | PackedSequence]:
    """Floating-point tensors in a module's output, ``last_hidden_state`` first; no scalars, such as a loss."""
    if isinstance(output, Tensor | PackedSequence):
        entries = output.data if isinstance(output, PackedSequence) else output
        if entries.is_floating_point() and entries.ndim:
            yield output
        return
    if not isinstance(output, Mapping):
        output = dataclass_values(output) or output
    if isinstance(output, Mapping):
        values = [output["last_hidden_state"]] if "last_hidden_state" in output else []
        output = values + list(output.values())
    if isinstance(output, list | tuple):
        for value in output:
            yield from float_tensors(value)


def dataclass_values(data: Any) -> dict[str, Any]:
    """By name, the fields of a dataclass that are set, slots included; none of anything else."""
    if not is_dataclass(data) or isinstance(data, type):
        return {}
    return {field.name: getattr(data, field.name) for field in fields(data) if hasattr(data, field.name)}


def describe(value: Any) -> str:
    """A short description of tensors and of what contains them, for messages."""
    if isinstance(value, Tensor) and value.is_nested:
        return f"nested Tensor of {value.size(0)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Tensor):
        return f"Tensor{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    parts = value if isinstance(value, Mapping) else dataclass_values(value)
    if parts or isinstance(value, Mapping):
        return f"{type(value).__name__} of {{{', '.join(f'{k!r}: {describe(v)}' for k, v in parts.items())}}}"
    if isinstance(value, list | tuple):
        shown = [describe(v) for v in value[:4]] + ["..."] * (len(value) > 4)
        return f"{type(value).__name__} of ({', '.join(shown)})"
    return type(value).__name__


def describe_function(function: Callable[..., Any] | str | None) -> str:
    """A name that is the same in another process; of functions without one, their class."""
    if function is None or isinstance(function, str):
        return str(function)
    owner = function if hasattr(function, "__qualname__") else type(function)
    return f"{owner.__module__}.{owner.__qualname__}"


def shortened(names: Sequence[str], limit: int = 8) -> str:
    """The names in one line, of many the first few."""
    rest = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def is_of_tokens(shape: Sequence[int], mask: Tensor) -> bool:
    """Whether features are ``(n, T, d)`` of the tokens of an ``(n, T)`` mask."""
    return len(shape) == 3 and tuple(shape[:2]) == tuple(mask.shape)


def mean_feature(x: Tensor) -> Tensor:
    """Mean over all but batch and channel: of (n, T, d) over tokens, of (n, C, ...) over space."""
    if x.ndim <= 2:
        return x
    return x.mean(1) if x.ndim == 3 else x.flatten(2).mean(2)


def cls_feature(x: Tensor) -> Tensor:
    """The first token of (n, T, d); other outputs as they are."""
    return x[:, 0] if x.ndim == 3 else x


FEATURE_FNS: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": lambda x: x,
    "mean": mean_feature,
    "cls": cls_feature,
}


def check_feature_fn(feature_fn: FeatureFn) -> None:
    """Refuse an unknown name.

    Raises:
        ValueError: neither None, a known name nor a callable.
    """
    if feature_fn is not None and not callable(feature_fn) and feature_fn not in FEATURE_FNS:
        raise ValueError(f"unknown feature_fn {feature_fn!r}; expected one of {sorted(FEATURE_FNS)} or a callable")


def read_tensor(output: Any, feature_fn: FeatureFn) -> Tensor | None:
    """The tensor of a module's output that holds its samples: what a callable gives, or the first float tensor.

    Samples of unequal lengths, in a nested tensor or packed sequences, are padded with zeros; for "mean", reduced.
    """
    found = next(float_tensors(feature_fn(output) if callable(feature_fn) else output), None)
    if isinstance(found, PackedSequence):
        return _own_means(unpack_sequence(found)) if feature_fn == "mean" else pad_packed_sequence(found, True)[0]
    if found is not None and found.is_nested:
        return _own_means(found.unbind()) if feature_fn == "mean" else found.to_padded_tensor(0.0)
    return found


def _own_means(samples: Iterable[Tensor]) -> Tensor:
    return torch.stack([mean_feature(sample[None])[0] for sample in samples])


def to_features(tensor: Tensor, batch_dim: int, feature_fn: FeatureFn, mask: Tensor | None = None) -> Tensor:
    """Features ``(n, ...)`` of what `read_tensor` gave, whose samples lie along ``batch_dim``.

    The ``(n, T)`` mask tells which tokens "mean" is over in outputs ``(n, T, d)``.
    """
    tensor = tensor.movedim(batch_dim, 0)
    if feature_fn == "mean" and mask is not None and is_of_tokens(tensor.shape, mask):
        # In half precision, a sum may overflow where a mean does not.
        dtype = torch.promote_types(tensor.dtype, torch.float32)
        return tensor.masked_fill(~mask[..., None], 0).sum(1, dtype=dtype) / mask.sum(1, keepdim=True)
    return tensor if callable(feature_fn) else FEATURE_FNS[feature_fn or "flatten"](tensor)
