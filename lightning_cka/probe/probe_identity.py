"""What identifies a probe set, and in what two probe sets differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


def unlike_message(differences: Sequence[str]) -> str:
    """Return a warning that a probe set is not like another one, for the value of `ProbeIdentity.differences`."""
    return (
        f"the probe set differs from that of like= in {'; '.join(differences)}. Check that the dataset and its "
        "transforms are the same. If sample i of one dataset belongs to sample i of the other, such as a corrupted "
        "image, compare the banks with compare_banks(strict=False)"
    )


class BatchInputs(NamedTuple):
    """The samples and inputs of one probe batch."""

    samples: tuple[int, ...]
    """Numbers that identify the samples."""
    fingerprint: str
    """Hash of the inputs."""


@dataclass(frozen=True)
class ProbeIdentity:
    """What two probe sets have in common if they are the same.

    Attributes:
        seed: Seed of the choice of samples, and of all random numbers while they were shown.
        sample_kind: What the sample numbers are.
        batches: Samples and inputs, by index of the batch.
    """

    seed: int
    sample_kind: str
    batches: Mapping[int, BatchInputs]

    def differences(self, other: ProbeIdentity) -> list[str]:
        """Return in what two probe sets differ, in words. An empty list means that they are the same."""
        common = self.batches.keys() & other.batches.keys()
        pairs = [(self.batches[index], other.batches[index]) for index in common]
        num_unmatched = len(self.batches.keys() ^ other.batches.keys())
        num_other_samples = sum(a.samples != b.samples for a, b in pairs)
        num_other_inputs = sum(a.fingerprint != b.fingerprint for a, b in pairs)
        counts = f"{len(self.batches)} and {len(other.batches)}, {num_unmatched} of them not in both"
        samples = f"{num_other_samples} of {len(common)} batches ({self.sample_kind} and {other.sample_kind})"
        checks = {
            f"the seed ({self.seed} and {other.seed})": self.seed != other.seed,
            f"the number of batches ({counts})": num_unmatched > 0,
            f"the samples of {samples}": num_other_samples > 0 or self.sample_kind != other.sample_kind,
            f"the inputs in {num_other_inputs} of {len(common)} batches": num_other_inputs > 0,
        }
        return [difference for difference, differs in checks.items() if differs]
