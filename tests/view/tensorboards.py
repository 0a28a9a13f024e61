"""A real TensorBoard as a process of its own, and a writer of event files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

from lightning_cka.monitor.tensorboard_events import Comparisons, comparisons_to_tensorboard

GROUP = "tensorboard_plugins"
ROOT = Path(__file__).parents[2]


def entry_point():
    """Return the entry point of ``pyproject.toml``."""
    (line,) = re.findall(rf'\[project\.entry-points\.{GROUP}\]\n(\w+) = "(.+)"', (ROOT / "pyproject.toml").read_text())
    return metadata.EntryPoint(*line, GROUP)


def search_path(folder):
    """Return a PYTHONPATH on which TensorBoard finds the entry point, also if the package was installed before it."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    entry = entry_point()
    if (entry.name, entry.value) not in [(each.name, each.value) for each in metadata.entry_points(group=GROUP)]:
        found = folder / "site" / "lightning_cka-0.dist-info"
        found.mkdir(parents=True)
        found.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: lightning-cka\nVersion: 0\n")
        found.joinpath("entry_points.txt").write_text(f"[{GROUP}]\n{entry.name} = {entry.value}\n")
        paths.insert(0, str(found.parent))
    return os.pathsep.join(filter(None, paths))


@contextmanager
def tensorboard(logdir, folder, *options, module="tensorboard.main", seconds=120):
    """Start TensorBoard, and give its address."""
    log = folder / "tensorboard.log"
    command = [sys.executable, "-m", module, "--logdir", str(logdir), "--port", "0", "--reload_interval", "1", *options]
    with log.open("wb") as file:
        environment = {**os.environ, "PYTHONPATH": search_path(folder)}
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file)
    try:
        end = time.monotonic() + seconds
        while not (found := re.search(r"(http://localhost:\d+)/", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.1)
        yield found[1]
    finally:
        process.terminate()
        process.wait(30)


def get(address):
    """Return content and headers of an answer of TensorBoard."""
    with urlopen(address, timeout=60) as response:
        return response.read(), dict(response.headers)


class Run:
    """Writes the comparisons of a run into event files, as the callback does with a ``TensorBoardLogger``."""

    def __init__(self, folder):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder))

    def write(self, key, results):
        comparisons_to_tensorboard(SimpleNamespace(experiment=self.writer), key, Comparisons(results), 0)
        self.writer.flush()
        return self
