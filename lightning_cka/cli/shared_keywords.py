"""The options of ``compare`` that mean the same for banks and for checkpoints."""

from __future__ import annotations

from typing import Any

from lightning_cka.cli.argument_types import pair_of
from lightning_cka.cli.label_files import labels_in


def shared_keywords(options: Any) -> dict[str, Any]:
    """Return them as the keyword arguments that `compare_banks` and `compare_models` have in common.

    Raises:
        OSError: The file of the groups cannot be read.
        ValueError: That file is no text, or ``--pair`` has another form.
    """
    names = ("layers", "reference_layers", "measures", "kernel", "unbiased", "exclude")
    groups = None if options.groups is None else labels_in(options.groups)
    return {name: getattr(options, name) for name in names} | {"groups": groups, "pair": pair_of(options.pair)}
