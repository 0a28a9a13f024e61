"""Pictures of the samples during training: for flagged layers, at the end, over processes and after resuming."""

import json
import re

import pytest
import torch
from conftest import Net, dataset, run_script, trainer
from fitting import fit
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning_cka import CKAMonitor
from lightning_cka.figures.samples import plot_samples
from lightning_cka.monitor import sample_pictures
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

# Small models and probe sets are flagged, which other tests check.
pytestmark = [
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?(, kernel rbf)?. layers (that|whose)"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]
LAYERS = ["net.0", "net.4", "head"]
LABELS = {str(sample): label for sample, label in enumerate(dataset(seed=2).tensors[1].tolist())}


@pytest.fixture
def drawn(monkeypatch):
    """The arguments of all pictures."""
    calls, draw = [], sample_pictures.draw_samples

    def record(bank, layers, labels, marks, **kwargs):
        calls.append((bank, list(layers), labels, {layer: marks.of(layer) for layer in layers}))
        return draw(bank, layers, labels, marks, **kwargs)

    monkeypatch.setattr(sample_pictures, "draw_samples", record)
    return calls


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob("samples*/*") if path.is_file())


def with_outlier(batch_size=16):
    x, y = dataset(seed=2).tensors
    x = x.clone()
    x[45] *= 100
    return DataLoader(TensorDataset(x, y), batch_size=batch_size)


def fit_with_outlier(*callbacks, **kwargs):
    seed_everything(3, workers=True, verbose=False)
    model, used = Net(), trainer(*callbacks, **kwargs)
    used.fit(model, DataLoader(dataset(seed=1), batch_size=16, shuffle=True), with_outlier())
    return model, used


def test_nothing_is_drawn_or_read_by_default(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_cka.monitor.live_probe.read_labels", lambda *_: pytest.fail("labels are read"))
    monkeypatch.setattr("lightning_cka.monitor.session.SamplePictures", lambda *_: pytest.fail("pictures are made"))
    fit(CKAMonitor(layers=LAYERS, dirpath=tmp_path))
    assert not (tmp_path / "samples").exists()
    assert not (tmp_path / "samples-evolution.gif").exists()


def test_flagged_layers_and_the_end_are_drawn_and_logged(tmp_path, drawn):
    logger = TensorBoardLogger(tmp_path, name="tb")
    monitor = CKAMonitor(layers=LAYERS, dirpath=tmp_path / "cka", plot_samples=True)
    fit_with_outlier(monitor, logger=logger, max_epochs=3)
    events = EventAccumulator(logger.log_dir, size_guidance={"images": 0}).Reload()
    steps = {
        tag.removeprefix("cka/samples/"): [event.step for event in events.Images(tag)]
        for tag in events.Tags()["images"]
        if tag.startswith("cka/samples/")
    }
    assert steps["overview"] == [23]
    # The outlier is flagged at the first epoch. A flag of another kind gives another picture.
    assert all(steps[layer][0] == 7 for layer in LAYERS)
    assert len(steps["net.0"]) < 3
    expected = [
        f"samples/{layer}-epoch={(step + 1) // 8 - 1:03d}-step={step:06d}.png"
        for layer in LAYERS
        for step in steps[layer]
    ]
    assert files(tmp_path / "cka") == sorted([*expected, "samples/labels.json", "samples/overview.png"])
    assert json.loads((tmp_path / "cka" / "samples" / "labels.json").read_text()) == LABELS
    first = {layers[0]: marks for _, layers, _, marks in reversed(drawn)}
    assert (first["net.4"]["net.4"], first["head"]["head"]) == ([45], [45])
    for _, _, labels, _ in drawn:
        assert labels == {int(sample): label for sample, label in LABELS.items()}
    assert drawn[-1][1] == LAYERS
    assert drawn[-1][0].epoch == 2
    # The picture is that of the bank, in the batch of the outlier.
    bank, layers, labels, marks = next(each for each in drawn if each[1] == ["net.4"])
    (ax,) = plot_samples(bank, layers[0], labels, marked=marks[layers[0]])[1]
    assert "45" in [text.get_text() for text in ax.texts]


def test_training_and_results_are_the_same_with_and_without_pictures(tmp_path):
    runs = {}
    for name, options in {"without": {}, "with": {"plot_samples": True}}.items():
        monitor = CKAMonitor(["initial", "self"], dirpath=tmp_path / name, **options)
        runs[name] = (fit_with_outlier(monitor)[0].state_dict(), monitor.results)
    for name, value in runs["without"][0].items():
        assert torch.equal(value, runs["with"][0][name])
    for key, results in runs["without"][1].items():
        for one, other in zip(results, runs["with"][1][key], strict=True):
            assert torch.equal(one.matrix, other.matrix)
            assert one.flags == other.flags
    assert [path.name for path in (tmp_path / "with").glob("banks/*")] == ["initial.safetensors"]


class Noisy(Dataset):
    """Draws from a generator of its own, and from torch's, which training and validation share."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)
        self.data = dataset(seed=2)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        x, label = self.data[index]
        return x + 0.1 * torch.randn(8, generator=self.generator) + 0.1 * torch.randn(8), label


class Streamed(IterableDataset):
    def __iter__(self):
        return iter(dataset(seed=2))


@pytest.mark.filterwarnings("ignore:the probe set consists of the first samples")
@pytest.mark.parametrize("kind", [Noisy, Streamed])
def test_reading_labels_does_not_change_training(tmp_path, kind):
    found = []
    for options in ({}, {"plot_samples": True}):
        seed_everything(3, workers=True, verbose=False)
        model, loader = Net(), DataLoader(kind(), batch_size=16)
        monitor = CKAMonitor(layers=LAYERS, dirpath=tmp_path / str(len(found)), **options)
        trainer(monitor).fit(model, loader, loader)
        found.append((model.state_dict(), monitor.results["initial"][-1].matrix))
    assert all(torch.equal(value, found[1][0][name]) for name, value in found[0][0].items())
    assert torch.equal(found[0][1], found[1][1])
    assert set(json.loads((tmp_path / "1" / "samples" / "labels.json").read_text()).values()) == {0, 1, 2}


def test_with_banks_the_end_shows_epochs_and_there_is_a_gif(tmp_path, drawn):
    monitor = CKAMonitor(
        layers=LAYERS, dirpath=tmp_path, plot_samples=True, save_banks="float16", kernel=["linear", "rbf"]
    )
    fit(monitor, max_epochs=3)
    assert {"overview.png", *(f"{layer}.png" for layer in LAYERS)} <= {
        path.name for path in (tmp_path / "samples").iterdir()
    }
    with Image.open(tmp_path / "samples-evolution.gif") as image:
        assert image.n_frames == 4
    assert [len(bank) for bank, *_ in drawn[-3:]] == [4, 4, 4]


def test_layers_with_the_names_of_other_pictures(tmp_path):
    class Overview(Net):
        def __init__(self):
            super().__init__()
            self.overview = self.head
            del self.head

        def forward(self, x):
            return self.overview(self.net(x))

    monitor = CKAMonitor(layers=["net.0", "overview"], dirpath=tmp_path, plot_samples=True, save_banks=True)
    fit(monitor, model=Overview(), max_epochs=1)
    assert {"overview.png", "overview-2.png", "net.0.png"} <= {path.name for path in (tmp_path / "samples").iterdir()}


def test_excluded_samples_are_not_drawn(tmp_path, monkeypatch):
    excluded = []
    monkeypatch.setattr(sample_pictures, "draw_samples", lambda *_, exclude: excluded.append(exclude) or 1 / 0)
    with pytest.warns(UserWarning, match="ZeroDivisionError"):  # An error of a picture does not stop training.
        fit(CKAMonitor(layers=LAYERS, dirpath=tmp_path, plot_samples=True, exclude=[5, 3]), max_epochs=1)
    assert excluded
    assert all(each == [3, 5] for each in excluded)


class NeverTrains(Net):
    def training_step(self, batch, batch_idx):
        pytest.fail("training began")


@pytest.mark.parametrize("references", ["initial", "self"])
def test_labels_are_checked_before_the_first_step(references):
    cases = {
        "must return one integer for each of the 16 samples of a batch, but returned 15": lambda batch: batch[1][1:],
        "labels_fn failed on a probe batch: RuntimeError: no": lambda batch: (_ for _ in ()).throw(RuntimeError("no")),
    }
    for message, labels_fn in cases.items():
        with pytest.raises(ValueError, match=message):
            fit(CKAMonitor(references, plot_samples=True, labels_fn=labels_fn), model=NeverTrains())
    with pytest.raises(TypeError, match=r"but returned Tensor\(16, 8\) float32"):
        fit(CKAMonitor(references, plot_samples=True, labels_fn=lambda batch: batch[0]), model=NeverTrains())
    loader = DataLoader(dataset(seed=2), batch_size=16)
    count = iter(range(100))
    late = lambda batch: batch[1] if next(count) < 7 else batch[1][1:]  # noqa: E731
    with pytest.raises(ValueError, match="but returned 15"):
        fit(CKAMonitor(references, plot_samples=True, labels_fn=late, dataloader=loader), model=NeverTrains())
    assert next(count) == 8


def test_arguments_are_checked():
    with pytest.raises(TypeError, match="labels_fn must be a function of a batch, but is a list"):
        CKAMonitor(plot_samples=True, labels_fn=[1])
    with pytest.raises(ValueError, match="pass plot_samples=True, too"):
        CKAMonitor(labels_fn=len)


def test_a_function_gives_the_labels_of_other_batches(tmp_path):
    monitor = CKAMonitor(layers=LAYERS, dirpath=tmp_path, plot_samples=True, labels_fn=lambda batch: 1 - batch[1] % 2)
    fit(monitor, max_epochs=1)
    found = json.loads((tmp_path / "samples" / "labels.json").read_text())
    assert found == {sample: 1 - label % 2 for sample, label in LABELS.items()}


def test_without_labels_all_samples_have_one_colour(tmp_path, drawn):
    class Unlabelled(Net):
        def validation_step(self, batch, batch_idx):
            self(batch[0])

    seed_everything(0, verbose=False)
    monitor = CKAMonitor(layers=LAYERS, dirpath=tmp_path, plot_samples=True)
    loader = DataLoader(TensorDataset(dataset().tensors[0]), batch_size=16)
    trainer(monitor, max_epochs=1).fit(Unlabelled(), DataLoader(dataset(), batch_size=16), loader)
    assert [labels for _, _, labels, _ in drawn] == [None] * len(drawn) != []


def test_two_processes_draw_what_one_draws(tmp_path):
    for devices in (1, 2):
        run_script("sample_pictures_script.py", tmp_path, "--devices", devices)
    one, two = (json.loads((tmp_path / f"out-{devices}.json").read_text()) for devices in (1, 2))
    assert one == two
    assert len(one["labels"]) == 72
    assert {"overview.png", "labels.json"} < set(one["files"])
    assert any(re.match(r"net\.0-epoch=", name) for name in one["files"])
    assert all(sample in one["marked"] for sample in (36,))


def test_errors_of_one_process_end_all(tmp_path):
    process = run_script("sample_pictures_script.py", tmp_path, "--devices", 2, "--fail", check=False)
    assert process.returncode != 0
    assert "labels_fn failed on a probe batch: RuntimeError: only on rank 1" in process.stderr
    assert not list(tmp_path.glob("training began*"))


def test_pictures_after_resuming(tmp_path):
    """The pictures of earlier epochs stay, and a run without anything left to train draws its end."""
    folder = tmp_path / "cka"

    def train(max_epochs, ckpt_path=None):
        monitor = CKAMonitor(layers=LAYERS, dirpath=folder, plot_samples=True, save_banks=True)
        checkpoint = ModelCheckpoint(tmp_path / "checkpoints", filename="{epoch}", save_top_k=-1)
        seed_everything(3, workers=True, verbose=False)
        used = trainer(monitor, checkpoint, max_epochs=max_epochs, enable_checkpointing=True)
        loader = DataLoader(dataset(seed=1), batch_size=16, shuffle=True)
        used.fit(Net(), loader, with_outlier(), ckpt_path=ckpt_path)

    train(1)
    first = files(folder)
    assert "samples/net.0-epoch=000-step=000007.png" in first
    train(3, tmp_path / "checkpoints" / "epoch=0.ckpt")
    assert set(files(folder)) > set(first)
    with Image.open(folder / "samples-evolution.gif") as image:
        assert image.n_frames == 4
    before = files(folder)
    for name in ("overview.png", "net.4.png"):
        (folder / "samples" / name).unlink()
    (folder / "samples-evolution.gif").unlink()
    train(3, tmp_path / "checkpoints" / "epoch=2.ckpt")
    assert files(folder) == before
    assert (folder / "samples-evolution.gif").exists()
    assert json.loads((folder / "samples" / "labels.json").read_text()) == LABELS
    # A new run moves all of it aside, but not the user's own files.
    train(1)
    assert set(files(folder)) == set(first)
    assert set(files(folder / "earlier-1")) == set(before)


def test_a_user_s_folder_called_samples_stays(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "mine.png").touch()
    fit(CKAMonitor(layers=LAYERS, dirpath=tmp_path), max_epochs=1)
    fit(CKAMonitor(layers=LAYERS, dirpath=tmp_path), max_epochs=1)
    assert files(tmp_path) == ["samples/mine.png"]


def test_validate_and_fast_dev_run_draw_nothing(tmp_path):
    monitor = CKAMonitor("self", layers=LAYERS, dirpath=tmp_path, plot_samples=True)
    trainer(monitor).validate(Net(), DataLoader(dataset(), batch_size=16), verbose=False)
    fit(CKAMonitor(layers=LAYERS, dirpath=tmp_path, plot_samples=True), fast_dev_run=True)
    assert not (tmp_path / "samples").exists()
