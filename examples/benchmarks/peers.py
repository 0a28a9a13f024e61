"""The same comparisons by lightning-cka and by other packages: their time, memory and rounding errors.

Each package compares a live model, whose weights change from epoch to epoch, with frozen references.
"""

from __future__ import annotations

import time
from typing import Any

from lightning_cka.compare.comparison import Comparison
from lightning_cka.hsic.measure import CKA
from lightning_cka.monitor.reference import Reference

from benchmarks.live_monitor import at_first_validation
from benchmarks.networks import NETWORKS
from benchmarks.packages import find_installed
from benchmarks.peer_task import EPOCHS, Task
from benchmarks.timing import peak_memory, timed

ALL_BATCHES, LAST_BATCH = slice(None), slice(-1, None)


def measure(name, samples, repeats, num_references, limit_s, device, folder):
    """Measure each package on one network, and return a list of dictionaries for the JSON file, ours first.

    Args:
        name: Name of the network.
        samples: Number of samples.
        repeats: How often each package runs.
        num_references: The numbers of references to measure with.
        limit_s: A package that would take longer is not run. Its time is estimated from one comparison of one batch,
            which is fair: no package reuses anything from one comparison in the next.
        device: The device to run on.
        folder: The folder of the monitor's files.
    """
    network = NETWORKS[name]

    def work(live):
        task = Task.prepare(live, network, max(num_references), limit_s)
        runs = [OwnRun(task, num_references)]
        runs += [PackageRun(package, task, num_references) for package in find_installed()[0]]
        for run in runs:
            run.rehearse()
        for _ in range(repeats):
            for number in num_references:
                for run in runs:
                    run.time(number)
        live.module.load_state_dict(task.weights)
        header = {"network": name, "layers": len(task.names), "samples": samples, "batch": network.batch}
        header["post_relu_layers"] = int(task.exact.post_relu.sum())
        return [header | run.row for run in runs]

    layers = network.peer_layers or network.layers
    return at_first_validation(work, network, samples=samples, device=device, folder=folder, layers=layers)


class OwnRun:
    """lightning-cka: each reference is shown the samples once, and the live model once in each epoch.

    Attributes:
        row: What is measured, for the JSON file.
    """

    def __init__(self, task, num_references):
        self._task = task
        self.row = empty_row("lightning-cka", num_references)

    def rehearse(self):
        """Measure memory and errors of one comparison with one reference; this also warms up."""
        task, matrices = self._task, []
        bank = self._bank(task.references[0])
        peak = peak_memory(lambda: matrices.append(self._pass([bank])), task.device)
        errors = task.exact.errors(matrices[0], task.exact.matrix())
        self.row |= {
            "extra_bytes": peak - task.bare_peak,
            "held_bytes_per_reference": sum(
                part.numel() * part.element_size() for batch in bank for part in batch.grams
            ),
            "error": errors,
            "error_of_all_batches": errors,
        }

    def time(self, number):
        """Time all epochs with this number of references, including the banks of the references."""
        banks = []
        references = self._task.references[:number]
        shown_s = timed(lambda: banks.extend(map(self._bank, references)), self._task.device)
        self.row["seconds"][number].append(shown_s + self._task.time_epochs(lambda: self._pass(banks)))

    def _bank(self, reference):
        live = self._task.live
        return live.probe.frozen_bank(Reference("frozen", reference), live.trainer, live.module)

    def _pass(self, banks):
        """Compare the live model with the banks, and return the matrix of the first one in the order of running."""
        live = self._task.live
        by_name = {str(number): bank for number, bank in enumerate(banks)}
        comparison = Comparison(live.names, by_name, {"cka": CKA()}, live.device)
        live.probe.show(live.trainer, live.module, comparison.add)
        order = [live.names.index(name) for name in self._task.names]
        return comparison.results()["0", "cka"].result.matrix[order][:, order]


class PackageRun:
    """Another package: in each epoch, it shows the samples to the live model and to every reference.

    Attributes:
        row: What is measured, for the JSON file.
    """

    def __init__(self, package, task, num_references):
        self._package, self._task = package, task
        self.row = empty_row(f"{package.name} {package.version}", num_references)
        weights = task.references[0].state_dict().values()
        self.row["held_bytes_per_reference"] = sum(value.numel() * value.element_size() for value in weights)

    def rehearse(self):
        """Measure memory and errors of one comparison with one reference, and estimate the time of long runs."""
        try:
            batch_s, matrix = self._first_comparison()
        except Exception as error:  # noqa: BLE001  # Any error of the package is the result of the benchmark.
            self.row["failed"] = f"{type(error).__name__}: {error}"
            return
        self._record_errors(matrix)
        self._estimate_long_runs(batch_s)

    def time(self, number):
        """Time all epochs with this number of references, unless that failed or would take too long."""
        if "failed" in self.row or self.row["is_estimate"][number]:
            return
        references = self._task.references[:number]

        def compare():
            for reference in references:
                self._compare(reference, self._task.loader)

        self.row["seconds"][number].append(self._task.time_epochs(compare))

    def _compare(self, reference, loader):
        return self._package.compare(self._task.live.module, reference, loader, self._task.names)

    def _compare_one_batch(self):
        return self._compare(self._task.references[0], self._task.one_batch)

    def _first_comparison(self):
        """Return the seconds of one batch, and the matrix: of all batches, or of one if all would take too long."""
        task, matrices = self._task, []
        start = time.perf_counter()
        peak = peak_memory(lambda: matrices.append(self._compare_one_batch()), task.device)
        batch_s = time.perf_counter() - start
        self.row["extra_bytes"] = peak - task.bare_peak
        if batch_s < task.limit_s / 4:  # Measure again: the first time includes the work of the memory profiler.
            batch_s = timed(self._compare_one_batch, task.device)
        is_slow = batch_s * task.num_batches > task.limit_s / 4
        self.row["error_is_of_one_batch"] = is_slow
        return batch_s, matrices[0] if is_slow else self._compare(task.references[0], task.loader)

    def _record_errors(self, matrix):
        """Record the error to the batches that the result is of, and to all batches."""
        last_batch_only, is_slow = self._package.last_batch_only, self.row["error_is_of_one_batch"]
        self.row["error"] = self._errors(matrix, LAST_BATCH if last_batch_only or is_slow else ALL_BATCHES)
        has_all = last_batch_only or not is_slow
        self.row["error_of_all_batches"] = self._errors(matrix, ALL_BATCHES) if has_all else None

    def _errors(self, matrix, batches):
        expected = self._task.exact.matrix(batches)
        return self._task.exact.errors(matrix, expected.clamp(0, 1) if self._package.clamped else expected)

    def _estimate_long_runs(self, batch_s):
        for number in self.row["seconds"]:
            estimate_s = batch_s * self._task.num_batches * EPOCHS * number
            if estimate_s > self._task.limit_s:
                self.row["seconds"][number] = [estimate_s]
                self.row["is_estimate"][number] = True


def empty_row(package, num_references) -> dict[str, Any]:
    """Return the dictionary of a package before anything is measured."""
    return {
        "package": package,
        "seconds": {number: [] for number in num_references},
        "is_estimate": dict.fromkeys(num_references, False),
    }
