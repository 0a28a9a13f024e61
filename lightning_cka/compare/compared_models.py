"""`ComparedModels`: the two models of `compare_models`, which may be given by the paths of checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from torch import nn

from lightning_cka.runtime.checkpoint_models import (
    Architecture,
    ModelSource,
    check_sources,
    source_name,
    to_model,
)

_SUFFIX = " (reference)"


@dataclass(frozen=True)
class ComparedModels:
    """Two models, or one model on both sides.

    Attributes:
        model: The model.
        reference: The reference. It is the same object if both sides are one module or one file.
        model_name: Name of the model in results.
        reference_name: Name of the reference in results.
    """

    model: nn.Module
    reference: nn.Module
    model_name: str
    reference_name: str

    @property
    def is_one(self) -> bool:
        """Whether both sides are one model."""
        return self.model is self.reference

    @classmethod
    def of(
        cls,
        model: ModelSource,
        reference: ModelSource,
        architecture: Architecture | None,
        *,
        has_two_loaders: bool = False,
    ) -> ComparedModels:
        """Return the models that two arguments of `compare_models` stand for.

        Args:
            model: A module or a path, as for the next argument.
            reference: The other one.
            architecture: What a path is loaded into; None: a copy of the other model.
            has_two_loaders: Whether the reference is shown other data, which its name says.

        Raises:
            ValueError: A checkpoint cannot be loaded; see `to_model`.
            TypeError: See `check_sources`.
            FileNotFoundError: A path does not exist.
        """
        check_sources({"model": model, "reference": reference}, architecture)
        name, other_name = _names(model, reference)
        if has_two_loaders:
            other_name = f"{other_name.removesuffix(_SUFFIX)} (reference_dataloader)"
        if architecture is None:
            architecture = next((each for each in (model, reference) if isinstance(each, nn.Module)), None)
        own = to_model(model, architecture)
        other = own if _is_one_source(model, reference) else to_model(reference, architecture, "reference")
        return cls(own, other, name, other_name)


def _is_one_source(a: ModelSource, b: ModelSource) -> bool:
    if isinstance(a, nn.Module) or isinstance(b, nn.Module):
        return a is b
    return Path(a).samefile(b)


def _names(model: ModelSource, reference: ModelSource) -> tuple[str, str]:
    """Return names of two models that differ if the models do: classes of modules, and names of files."""
    name, other = source_name(model), source_name(reference)
    if name != other or _is_one_source(model, reference):
        return name, other
    if isinstance(model, nn.Module) or isinstance(reference, nn.Module):
        return name, f"{other}{_SUFFIX}"
    folder, other_folder = _first_difference(Path(model).absolute().parent, Path(reference).absolute().parent)
    return f"{name}, {folder}", f"{name}, {other_folder}"


def _first_difference(a: Path, b: Path) -> tuple[str, str]:
    """Return the names of the last folders in which two paths differ, such as "version_0" and "version_1"."""
    pairs = zip_longest(reversed(a.parts), reversed(b.parts), fillvalue="")
    return next((pair for pair in pairs if pair[0] != pair[1]), (a.name, b.name))
