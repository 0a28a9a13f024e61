"""What a run's user has been told already: each thing once."""

from __future__ import annotations

from collections.abc import Collection

from lightning_cka.compare.flag_messages import flag_messages
from lightning_cka.compare.metric import undefined_message
from lightning_cka.compare.pair import Outcome


class Notices:
    """Remembers what was said since the run began."""

    def __init__(self) -> None:
        self._said: set[tuple[str, ...]] = set()

    def is_new(self, *what: str) -> bool:
        """Whether this was not said before; from now on, it was."""
        new = what not in self._said
        self._said.add(what)
        return new

    def undefined(self, outcome: Outcome, explained: Collection[str] = ()) -> list[str]:
        """Messages of layers whose CKA is ``nan``, each layer once for each reason, without those explained before."""
        messages = []
        for reason, names in outcome.undefined_layers.items():
            unexplained = [name for name in names if name not in explained]
            if new := [name for name in unexplained if self.is_new("undefined", reason, name)]:
                messages.append(undefined_message(reason, new))
        return messages

    def flagged(self, outcome: Outcome, sample_kind: str, earlier_states: Collection[str]) -> list[str]:
        """Messages of flagged layers, each layer once for each reason and kernel.

        Args:
            outcome: with one reference, through one kernel.
            sample_kind: what the samples' numbers are.
            earlier_states: names of references whose flags were those of the live model before.
        """
        result = outcome.result
        name, kernel = result.reference_name, result.kernel
        new = []
        for flag in result.flags:
            whose = name if flag.of_reference and name not in earlier_states else ""
            if self.is_new("flag", flag.reason, flag.layer, whose, kernel):
                new.append(flag)
        return flag_messages(new, sample_kind, kernel, f"CKA with '{name}'")
