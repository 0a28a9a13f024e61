"""`ChoiceNeededError`: the input is right, but the user has to choose among what was found."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


class ChoiceNeededError(Exception):
    """A question to the user in several lines: what was found, and the commands that choose."""

    def __init__(self, question: str, found: Sequence[str], commands: Sequence[Sequence[str]]) -> None:
        lines = [question, *(f"  {line}" for line in found), "For example:"]
        super().__init__("\n".join([*lines, *(f"  lightning-cka {shlex.join(command)}" for command in commands)]))
