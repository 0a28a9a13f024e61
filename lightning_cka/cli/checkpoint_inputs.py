"""Compare two checkpoints, whose architecture and samples come from a module that can be imported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from lightning_cka.cli.imported_objects import called, imported, modules_of_current_folder
from lightning_cka.cli.label_files import labels_in
from lightning_cka.cli.side_names import name_runs
from lightning_cka.compare.models import compare_models
from lightning_cka.compare.result import CKAResult
from lightning_cka.runtime.checkpoint_weights import load_weights, read_weights


def compare_checkpoints(options: Any) -> Mapping[str, CKAResult]:
    """Compare the two checkpoints that the options of ``compare`` name.

    Raises:
        ValueError: ``--architecture`` or ``--dataloader`` is missing or cannot be used, a checkpoint does not fit the
            architecture, or an option is for banks.
        RuntimeError: A function of the user raised an error.
    """
    _check_options(options)
    with modules_of_current_folder():
        networks = [_network(options.architecture, path) for path in (options.a, options.b)]
        dataloader = called(imported(options.dataloader, "--dataloader"), options.dataloader, "--dataloader")
        one, other = (type(network).__name__ for network in networks)
        names = name_runs((options.a, options.b), (one, other))
        results: Mapping[str, CKAResult] = compare_models(
            networks[0],
            networks[1],
            dataloader,
            options.layers,
            reference_layers=options.reference_layers,
            feature_fn=options.feature_fn,
            measures=options.measures,
            kernel=options.kernel,
            unbiased=options.unbiased,
            exclude=options.exclude,
            groups=None if options.groups is None else labels_in(options.groups),
            model_name=options.name or names[0],
            reference_name=options.reference_name or names[1],
            seed=options.seed or 0,
            device=options.device,
            gram_batch_size=options.gram_batch_size,
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


def _network(architecture: str, path: Path) -> nn.Module:
    """Return the network of a checkpoint."""
    make = imported(architecture, "--architecture")
    if hasattr(make, "load_from_checkpoint"):
        loaded: nn.Module = make.load_from_checkpoint(path, map_location="cpu")
        return loaded
    model = called(make, architecture, "--architecture")
    if not isinstance(model, nn.Module):
        raise ValueError(f"--architecture: {architecture} must give a torch.nn.Module, but got {type(model).__name__}")
    load_weights(model, read_weights(path, model))
    return model
