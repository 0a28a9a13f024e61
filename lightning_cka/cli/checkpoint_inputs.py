"""Compare checkpoints, whose architecture and samples come from a module that can be imported."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from lightning_cka.cli.bank_inputs import chosen_files, names_of_sides
from lightning_cka.cli.imported_objects import called, imported, modules_of_current_folder
from lightning_cka.cli.shared_keywords import shared_keywords
from lightning_cka.cli.side_names import name_runs
from lightning_cka.cli.sources import Kind, kind_of
from lightning_cka.compare.banks import compare_banks
from lightning_cka.compare.models import compare_models
from lightning_cka.compare.pairing import Pair
from lightning_cka.compare.reference_layers import layers_in_reference
from lightning_cka.compare.result import CKAResult
from lightning_cka.probe.bank import GramBank
from lightning_cka.probe.layer_patterns import names_matching
from lightning_cka.probe.layers import Layers
from lightning_cka.runtime.checkpoint_models import Architecture, to_model
from lightning_cka.runtime.module_names import named_layers


def compare_checkpoints(options: Any) -> Mapping[str, CKAResult]:
    """Compare the two checkpoints that the options of ``compare`` name.

    Raises:
        ValueError: ``--architecture`` or ``--dataloader`` is missing or cannot be used, a checkpoint does not fit the
            architecture, or an option is for banks.
        RuntimeError: A function of the user raised an error.
    """
    _check_models(options, f"{str(options.a)!r} and {str(options.b)!r} are checkpoints, which have")
    given = [f"--{name}" for name in ("epoch", "step") if getattr(options, name) is not None]
    if not options.strict:
        given.append("--no-strict")
    if given:
        raise ValueError(f"{given[0]} is for banks and runs, but the paths are checkpoints")
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


def compare_checkpoint_with_bank(options: Any) -> Mapping[str, CKAResult]:
    """Compare a checkpoint with a bank, or with the bank of a run: its model is shown the samples of the bank.

    Raises:
        ValueError: As for `compare_checkpoints` and `compare_bank_files`, or the samples of the bank are not identified
            by dataset index.
        ChoiceNeededError: A path is the folder of a run, and no option chooses its bank.
        RuntimeError: A function of the user raised an error.
    """
    side = 0 if kind_of(options.a) is Kind.CHECKPOINT else 1
    checkpoint = (options.a, options.b)[side]
    _check_models(options, f"{str(checkpoint)!r} is a checkpoint, which has")
    if given := [name for name in ("seed", "gram-batch-size") if getattr(options, name.replace("-", "_")) is not None]:
        raise ValueError(f"--{given[0]} is for two checkpoints. Beside a bank, the samples are those of the bank")
    paths = chosen_files(options)
    bank = GramBank.load(paths[1 - side])
    keywords = shared_keywords(options)
    with modules_of_current_folder():
        model = to_model(checkpoint, _architecture(options.architecture), str(checkpoint))
        own = GramBank.from_model(
            model,
            _dataloader(options.dataloader),
            _own_layers(keywords, side, model, bank),
            like=bank,
            feature_fn=options.feature_fn,
            device=options.device,
        )
    banks, others = (own, bank), _bank_layers(keywords, side, bank)
    keywords |= {"layers": own.layers, "reference_layers": others}
    if side == 1:
        banks = (bank, own)
        keywords |= {"layers": others, "reference_layers": own.layers}
    keywords |= names_of_sides(options, paths, banks)
    results: Mapping[str, CKAResult] = compare_banks(*banks, strict=options.strict, **keywords)
    return results


def _own_layers(keywords: Mapping[str, Any], side: int, model: nn.Module, bank: GramBank) -> Layers:
    """Return which layers of a checkpoint's model are compared: those that the user chose, else those of the bank.

    If the model does not have the layers of the bank, nor any that are paired with them, it is None for the default
    layers.
    """
    chosen: Layers = keywords["layers"]
    if side == 1 and keywords["reference_layers"] is not None:
        chosen = keywords["reference_layers"]
    if chosen is not None:
        return chosen
    pair: Pair = keywords["pair"]
    if side == 0 and isinstance(pair, Mapping):
        pair = {other: name for name, other in pair.items()}
    found = layers_in_reference(bank.layers, None, model, pair)
    known = named_layers(model)
    return None if found is None or not all(name in known for name in found) else list(found)


def _bank_layers(keywords: Mapping[str, Any], side: int, bank: GramBank) -> Sequence[str]:
    """Return which layers of the bank are compared.

    Beside a model, ``--layers`` may name classes, or layers that the bank does not have. Then all of its layers are.
    """
    chosen: Sequence[str] | None = keywords["layers"] if side else keywords["reference_layers"]
    if side == 0 and chosen is None:
        patterns = keywords["layers"] or ()
        fits = all(names_matching(pattern.removeprefix("!"), bank.layers) for pattern in patterns)
        chosen = keywords["layers"] if fits else None
    return bank.layers if chosen is None else chosen


def _check_models(options: Any, subject: str) -> None:
    """Check that the network and the samples are given.

    Args:
        options: The options.
        subject: What needs them, with a verb.

    Raises:
        ValueError: One of them is missing.
    """
    missing = [f"--{name}" for name in ("architecture", "dataloader") if getattr(options, name) is None]
    if missing:
        raise ValueError(
            f"{subject} weights only: {' and '.join(missing)} missing. Pass --architecture package.module:Net, the "
            "network's class or a function without arguments that returns the network, and --dataloader "
            "package.module:function, a function without arguments that returns a DataLoader"
        )


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
