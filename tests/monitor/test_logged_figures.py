"""Tables, animations and trajectories at the end of training."""

import csv

import numpy as np
import pytest
import torch
from conftest import Net
from fitting import fit
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_cka import CKAMonitor
from lightning_cka.compare.trajectory import trajectories
from lightning_cka.figures.pictures import PRINT_DPI, render
from lightning_cka.plotting import plot_measures
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)")


@pytest.mark.usefixtures("_blank_figures")
@pytest.mark.filterwarnings("ignore:CKA with '.*', kernel rbf. layers (that|whose)")
def test_tables_animations_and_trajectories_at_the_end(tmp_path):
    monitor = CKAMonitor(["initial", "self"], "net.*", kernel=["linear", "rbf"], dirpath=tmp_path, trajectory=True)
    logger = TensorBoardLogger(tmp_path, name="tb")
    fit(monitor, logger=logger)
    for key, results in monitor.results.items():
        rows = list(csv.DictReader((tmp_path / f"{key}.csv").read_text().splitlines()))
        assert [float(row["cka"]) for row in rows] == [v for r in results for v in r.matrix.flatten().tolist()]
        with Image.open(tmp_path / f"{key}-evolution.gif") as image:
            assert image.n_frames == 2
    names = {*(f"net.{i}" for i in range(6)), "overview", "convergence"}
    for kernel in ("linear", "rbf"):
        assert {p.stem for p in (tmp_path / "trajectory" / kernel).glob("*.png")} == names
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    tags = {tag for tag in events.Tags()["images"] if "trajectory" in tag}
    assert tags == {f"cka/trajectory/{kernel}/{name}" for kernel in ("linear", "rbf") for name in names}
    assert {event.step for tag in tags for event in events.Images(tag)} == {15}
    found = trajectories(tmp_path, kernel="rbf")
    initial = [result.matrix[1, 1] for result in monitor.results["initial/rbf"]]
    torch.testing.assert_close(found["net.1"].matrix[0, 1:], torch.stack(initial), rtol=0, atol=1e-12)


@pytest.mark.usefixtures("_blank_figures")
def test_trajectories_are_drawn_for_16_evenly_spaced_layers(tmp_path):
    class Deep(Net):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(*(nn.Linear(8, 8) for _ in range(17)))
            self.overview = nn.Linear(8, 3)

        def forward(self, x):
            return self.overview(self.net(x))

    fit(CKAMonitor("self", ["overview", "net.*"], dirpath=tmp_path, trajectory=True), model=Deep(), max_epochs=1)
    found = {p.stem for p in (tmp_path / "trajectory").glob("*.png")}
    assert len(found) == 16 + 2
    assert {"overview", "convergence", "overview-2", "net.0", "net.16"} < found


@pytest.mark.filterwarnings("ignore:(CKA|mutual kNN|RSA|ridge CKA):UserWarning")
def test_several_measures_have_a_figure_together(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_cka.monitor.logged_figures.plot_drift", lambda *_, **__: (Figure((1, 1)), None))
    names = ["cka", "mutual_knn", "rsa", "ridge"]
    monitor = CKAMonitor(["initial", "self"], "net.*", measures=names, dirpath=tmp_path)
    logger = TensorBoardLogger(tmp_path, name="tb")
    fit(monitor, logger=logger)
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    tags = {tag for tag in events.Tags()["images"] if tag.endswith("/measures")}
    assert tags == {"cka/initial/measures"}  # A self-comparison has no partners.
    assert [event.step for event in events.Images("cka/initial/measures")] == [
        event.step for event in events.Images("cka/initial/rsa/drift")
    ]
    own = {name: monitor.results[f"initial/{name}"] for name in names}
    drawn = render(plot_measures(own)[0], PRINT_DPI)
    with Image.open(tmp_path / "initial" / "measures.png") as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), np.asarray(drawn)[..., :3])


@pytest.mark.usefixtures("_blank_figures")
def test_one_measure_has_no_figure_of_measures(tmp_path):
    fit(CKAMonitor("initial", "net.*", dirpath=tmp_path), max_epochs=1)
    assert {path.name for path in (tmp_path / "initial").glob("*.png")} > {"drift.png"}
    assert not (tmp_path / "initial" / "measures.png").exists()
