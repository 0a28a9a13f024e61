"""Compare two checkpoints, whose architecture and samples come from a module that can be imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from lightning_cka.cli.imported_objects import called, imported, modules_of_current_folder
from lightning_cka.cli.shared_keywords import shared_keywords
from lightning_cka.cli.side_names import name_runs
from lightning_cka.compare.models import compare_models
from lightning_cka.compare.result import CKAResult
from lightning_cka.runtime.checkpoint_models import Architecture


def compare_checkpoints(options: Any) -> Mapping[str, CKAResult]:
    """Compare the two checkpoints that the options of ``compare`` name.

    Raises:
        ValueError: ``--architecture`` or ``--dataloader`` is missing or cannot be used, a checkpoint does not fit the
            architecture, or an option is for banks.
        RuntimeError: A function of the user raised an error.
    """
    _check_options(options)
    with modules_of_current_folder():
        architecture = _architecture(options.architecture)
        kind = architecture if isinstance(architecture, type) else type(architecture)
        names = name_runs((options.a, options.b), (kind.__name__, kind.__name__))
        results: Mapping[str, CKAResult] = compare_models(
            options.a,
            options.b,
            _dataloader(options.dataloader),
            architecture=architecture,
            feature_fn=options.feature_fn,
            model_name=options.name or names[0],
            reference_name=options.reference_name or names[1],
            seed=options.seed or 0,
            device=options.device,
            gram_batch_size=options.gram_batch_size,
            **shared_keywords(options),
        )
    return results


def _check_options(options: Any) -> None:
    missing = [f"--{name}" for name in ("architecture", "dataloader") if getattr(options, name) is None]
    if missing:
        raise ValueError(
            f"{str(options.a)!r} and {str(options.b)!r} are checkpoints, which have weights only: "
            f"{' and '.join(missing)} missing. Pass --architecture package.module:Net, the network's class or a "
            "function without arguments that returns the network, and --dataloader package.module:function, a function "
            "without arguments that returns a DataLoader"
        )
    given = [f"--{name}" for name in ("epoch", "step") if getattr(options, name) is not None]
    if not options.strict:
        given.append("--no-strict")
    if given:
        raise ValueError(f"{given[0]} is for banks and runs, but the paths are checkpoints")


def _architecture(name: str) -> Architecture:
    """Import the class of the networks, or a network, or call the function that returns one."""
    found = imported(name, "--architecture")
    if isinstance(found, nn.Module) or (isinstance(found, type) and issubclass(found, nn.Module)):
        return found
    if not callable(found):
        raise ValueError(
            f"--architecture: {name} must be a class of modules, or a function without arguments that returns a "
            f"module, but is a {type(found).__name__}"
        )
    network = called(found, name, "--architecture")
    if not isinstance(network, nn.Module):
        raise ValueError(f"--architecture: {name}() must return a module, but returned a {type(network).__name__}")
    return network


def _dataloader(name: str) -> Iterable[Any]:
    make = imported(name, "--dataloader")
    if not callable(make):
        raise ValueError(
            f"--dataloader: {name} must be a function without arguments that returns a DataLoader, but is a "
            f"{type(make).__name__}"
        )
    loader = called(make, name, "--dataloader")
    if not isinstance(loader, Iterable):
        raise ValueError(
            f"--dataloader: {name}() must return batches, such as a DataLoader, but returned a {type(loader).__name__}"
        )
    return loader
