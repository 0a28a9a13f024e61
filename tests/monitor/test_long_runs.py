"""What a comparison costs does not depend on how many there were before, except for what draws all of them."""

import sys
from pathlib import Path

import lightning_cka
import pytest
from conftest import Net, loaders, trainer
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_cka import CKAMonitor, FreezeConverged
from lightning_cka.monitor import report_file

PACKAGE = str(Path(lightning_cka.__file__).parent)
EARLIER = 20_000


class Cost(Callback):
    """Counts the package's lines that run in the thread that trains, and what the process writes, by epoch.

    From epoch 3 on, the histories are long.
    """

    def __init__(self, monitor):
        self.monitor, self.lines, self.written = monitor, [], []

    def on_train_epoch_start(self, trainer, pl_module):
        self.end_epoch()
        if trainer.current_epoch == 3:
            for history in self.monitor.results.values():
                history[:0] = [history[0]] * EARLIER
        self.lines.append(0)
        self.written.append(-written_bytes())
        sys.settrace(self.enter)

    def end_epoch(self):
        sys.settrace(None)
        if self.written and self.written[-1] <= 0:
            self.written[-1] += written_bytes()

    def enter(self, frame, _event, _argument):
        return self.count if frame.f_code.co_filename.startswith(PACKAGE) else None

    def count(self, _frame, event, _argument):
        self.lines[-1] += event == "line"
        return self.count

    def on_train_end(self, trainer, pl_module):
        """Shorten the histories again: the last report.html would take most of the test's time."""
        self.end_epoch()
        self.length = len(self.monitor.results["initial/linear"])
        for history in self.monitor.results.values():
            del history[:EARLIER]


def written_bytes():
    """Return how many bytes this process has written so far."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return int(dict(line.split(": ") for line in lines)["wchar"])


@pytest.mark.usefixtures("_without_figures")
@pytest.mark.filterwarnings("ignore:CKA", "ignore:.*layers (that|whose)")
def test_a_comparison_costs_the_same_after_many_others(tmp_path, monkeypatch):
    monkeypatch.setattr(report_file, "SECONDS", 1e9)  # It shows all results. Here it is written twice.
    monkeypatch.setattr("lightning_cka.monitor.run_output.measures_figure", lambda *_args: {})
    seed_everything(3, workers=True, verbose=False)
    monitor = CKAMonitor(
        ["initial", "previous", "previous:3", "self"],
        gram_batch_size=16,
        kernel=["linear", "rbf"],
        log_changes=True,
        log_intervals=True,
        log_diagnostics="all",
        log_ranks=True,
        save_banks=True,
        keep_banks=2,
        patience=2,
        summary=False,
    )
    cost = Cost(monitor)
    others = [FreezeConverged(1e-9, patience=3, monitor=monitor), ModelCheckpoint(tmp_path / "checkpoints")]
    trainer(cost, monitor, *others, max_epochs=6, default_root_dir=tmp_path, enable_checkpointing=True).fit(
        Net(), *loaders()
    )
    assert cost.length == EARLIER + 6
    assert max(cost.lines[4:]) - min(cost.lines[1:3]) < EARLIER
    assert max(cost.written[4:]) < 1.1 * max(cost.written[1:3])
