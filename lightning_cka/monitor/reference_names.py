"""Names of references: those that the user gave, or those that follow from the sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import nn

from lightning_cka.monitor.reference import LIVE_NAMES, OUTPUT_ENDINGS, RESERVED, Reference, ReferenceSource, lag_of
from lightning_cka.runtime.file_names import file_key, take_file_name
from lightning_cka.runtime.listed import listed
from lightning_cka.runtime.module_names import unwrapped


def parse_references(
    reference: ReferenceSource | Sequence[ReferenceSource] | Mapping[str, ReferenceSource],
) -> list[Reference]:
    """Return the references of a `CKAMonitor` argument, with unique names.

    Raises:
        ValueError: There is no reference, one is neither a known name nor a file, or a given name is not usable.
        FileNotFoundError: A path does not exist.
        TypeError: A reference or a name has an unsupported type.
    """
    if isinstance(reference, Mapping):
        references = [Reference(source_name(source), source, label=name) for name, source in reference.items()]
    else:
        references = [Reference(source_name(source), source) for source in listed(reference)]
    if not references:
        raise ValueError(
            "reference is empty; expected 'initial', 'previous', 'previous:N', 'self', an epoch, a checkpoint, a "
            "module, or a mapping of names to these"
        )
    name_references(references)
    return references


_OF_MODULES = {
    "reference_layers": "are the layers of a reference that is a module",
    "reference_forward_fn": "shows batches to a reference that is a module",
    "pair": "pairs the layers of a reference that is a module",
}


def check_any_module(references: Sequence[Reference], **arguments: object) -> None:
    """Check that there is a reference for arguments that are about modules. Checkpoints have the live model's class.

    Raises:
        ValueError: An argument is not None, but no reference is a module.
    """
    if any(isinstance(reference.source, nn.Module) for reference in references):
        return
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"{name} {_OF_MODULES[name]}, but there is none")


def name_references(references: Sequence[Reference], live_class: str = "") -> None:
    """Set the names of references: those that were given, else names that follow from the sources.

    Args:
        references: The references, which keep their order.
        live_class: Name of the live model's class. A module of this class is called "reference", because figures name
            the live model by its class. Empty: not known yet.

    Raises:
        ValueError: A given name is empty, has another meaning, or is the same as another one for files or loggers.
        TypeError: A given name is no text.
    """
    taken = set(RESERVED)
    for reference in references:
        if reference.label is not None:
            reference.name = _given_name(reference.label, taken, references)
            continue
        base = reference.usual_name
        is_module = isinstance(reference.source, nn.Module)
        base = "reference" if is_module and base == live_class else base
        base = f"reference-{base}" if file_key(base).startswith("earlier-") else base
        reference.name = take_file_name(base, taken, OUTPUT_ENDINGS)


def _given_name(label: str, taken: set[str], references: Sequence[Reference]) -> str:
    """Return a name for keys and files, which is the given one unless that is not safe."""
    if not isinstance(label, str):
        raise TypeError(f"reference= maps names to references, but {label!r} is no text")
    key = file_key(label)
    if not label.strip() or not key:
        raise ValueError(f"a name in reference= must have letters or digits, but is {label!r}")
    if key in RESERVED or key.startswith("earlier-"):
        raise ValueError(f"{label!r} in reference= is the name of a file or folder of CKAMonitor; choose another name")
    others = [each.label for each in references if each.label != label and file_key(str(each.label)) == key]
    if others:
        raise ValueError(f"{label!r} and {others[0]!r} in reference= are one name for some file systems and loggers")
    return take_file_name(label, taken, OUTPUT_ENDINGS)


def source_name(source: ReferenceSource) -> str:
    """Return the name that follows from a source, and check the source."""
    if isinstance(source, nn.Module):
        return type(unwrapped(source)).__name__
    if isinstance(source, int) and not isinstance(source, bool):
        if source < 0:
            raise ValueError(f"a reference epoch must be at least 0, but is {source}")
        return f"epoch-{source}"
    if isinstance(source, str) and (source.startswith("previous:") and not Path(source).exists()):
        return _lagged_name(source)
    if isinstance(source, str | Path):
        return str(source) if source in LIVE_NAMES else _checkpoint_name(source)
    raise TypeError(
        "a reference must be a name, the number of an epoch, a path or a module (an instance, not a class), but is "
        f"{source!r}"
    )


def _lagged_name(source: str) -> str:
    """Return a name that is safe for files and loggers, such as "previous-3" for "previous:3"."""
    lag = lag_of(source)
    if not lag:
        raise ValueError(f"{source!r} must be 'previous:N' for the state N comparisons ago, with N of at least 1")
    return "previous" if lag == 1 else f"previous-{lag}"


def _checkpoint_name(source: str | Path) -> str:
    path = Path(source)
    if path.exists():
        return path.stem
    if path.suffix or len(path.parts) > 1:
        raise FileNotFoundError(f"there is no reference checkpoint {str(path)!r}")
    raise ValueError(
        f"unknown reference {str(source)!r}; expected one of {LIVE_NAMES}, 'previous:N', the number of an epoch, "
        "the path of a checkpoint or a module"
    )
