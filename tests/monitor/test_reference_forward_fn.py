"""`reference_forward_fn=`: a reference that is shown batches in another way than the live model."""

import pytest
import torch
from conftest import Net
from fitting import fit
from lightning_cka import CKAMonitor, compare_models
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]


class TakesLabels(nn.Module):
    """Another model, whose forward takes images and labels."""

    def __init__(self):
        super().__init__()
        self.embed, self.first, self.second = nn.Embedding(3, 4), nn.Linear(8, 6), nn.Linear(10, 5)

    def forward(self, x, y):
        return self.second(torch.cat([self.first(x), self.embed(y)], 1))


def show_both(module, batch):
    return module(*batch)


def show_first(module, batch):
    return module(batch[0])


LAYERS = {"layers": "head", "reference_layers": ["first", "second"]}


def loader():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(96, 8, generator=generator)
    return DataLoader(TensorDataset(x, torch.randint(0, 3, (96,), generator=generator)), batch_size=32)


@pytest.mark.parametrize("forward_fn", [None, show_first])
def test_the_reference_is_shown_batches_with_its_own_function(forward_fn):
    torch.manual_seed(0)
    model, reference = Net(), TakesLabels()
    shown = []

    def reference_forward_fn(module, batch):
        shown.append(type(module))
        return module(*batch)

    result = compare_models(
        model,
        reference,
        loader(),
        **LAYERS,
        forward_fn=forward_fn,
        reference_forward_fn=reference_forward_fn,
        progress_bar=False,
    )
    assert set(shown) == {TakesLabels}
    assert result.reference_layers == ("first", "second")


def test_one_model_that_is_shown_batches_in_two_ways_is_not_compared_with_itself():
    """The second way is a perturbation of the inputs."""
    torch.manual_seed(0)
    model = Net()

    def noisy(module, batch):
        return module(batch[0] + torch.randn_like(batch[0]))

    result = compare_models(model, model, loader(), "net.*", reference_forward_fn=noisy, progress_bar=False)
    assert not result.self_comparison
    assert result.matrix.diagonal().max() < 0.99
    same = compare_models(
        model, model, loader(), "head", forward_fn=show_first, reference_forward_fn=show_first, progress_bar=False
    )
    assert same.self_comparison


def test_the_error_of_compare_models_names_the_argument():
    with pytest.raises(
        ValueError,
        match=r"^reference: TakesLabels could not be shown a probe batch with forward_fn=, which shows batches to the "
        r"model: pass reference_forward_fn=, a function of the reference and the batch. The batch is a list",
    ):
        compare_models(Net(), TakesLabels(), loader(), **LAYERS, forward_fn=show_first, progress_bar=False)
    with pytest.raises(
        ValueError, match=r"^reference: .* shown a probe batch: pass reference_forward_fn=.* takes \(x, y\)"
    ):
        compare_models(Net(), TakesLabels(), loader(), **LAYERS, progress_bar=False)
    with pytest.raises(ValueError, match=r"^reference: .* with this reference_forward_fn. The batch is a list"):
        compare_models(Net(), TakesLabels(), loader(), **LAYERS, reference_forward_fn=show_first, progress_bar=False)
    with pytest.raises(ValueError, match=r"^TakesLabels could not be shown a probe batch: pass forward_fn="):
        compare_models(TakesLabels(), Net(), loader(), "first", reference_layers="head", progress_bar=False)


def test_the_error_suggests_a_call_with_the_entries_that_forward_takes():
    class Image(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 4)

        def forward(self, image):
            return self.layer(image)

    class Holds(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Image()

    batches = [{"image": torch.randn(8, 8), "label": torch.zeros(8)}] * 2
    with pytest.raises(
        ValueError, match=r"pass forward_fn=.*=lambda module, batch: module.net\(image=batch\['image'\]\). The"
    ):
        compare_models(Holds(), Image(), batches, progress_bar=False)
    with pytest.raises(
        ValueError, match=r"such as reference_forward_fn=lambda module, batch: module\(image=batch\['image'\]\). The"
    ):
        compare_models(
            Holds(), Image(), batches, forward_fn=lambda module, batch: module.net(batch["image"]), progress_bar=False
        )


def test_the_monitor_shows_modules_with_it_and_checkpoints_as_the_live_model(tmp_path):
    torch.manual_seed(0)
    torch.save(Net().state_dict(), tmp_path / "other.pt")
    live, reference = [], []

    def forward_fn(module, batch):
        live.append(type(module))
        return module(batch[0])

    def reference_forward_fn(module, batch):
        reference.append(type(module))
        return module(*batch) if isinstance(module, TakesLabels) else module(batch[0])

    sources = [TakesLabels(), tmp_path / "other.pt", "initial", nn.Sequential(nn.Linear(8, 3))]
    monitor = CKAMonitor(
        sources,
        "head",
        reference_layers=nn.Linear,
        forward_fn=forward_fn,
        reference_forward_fn=reference_forward_fn,
        dirpath=tmp_path / "cka",
    )
    fit(monitor, max_epochs=1)
    assert set(live) == {Net}
    assert set(reference) == {TakesLabels, nn.Sequential}
    assert monitor.results["TakesLabels"][-1].reference_layers == ("first", "second")
    assert monitor.results["other"][-1].reference_layers == ("head",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"forward_fn": show_first},
            "reference 'TakesLabels': TakesLabels .* with forward_fn=, which .*: pass reference_forward_fn=",
        ),
        ({}, "reference 'TakesLabels': TakesLabels .*: pass reference_forward_fn=, .* takes .x, y."),
        (
            {"reference_forward_fn": show_first},
            "reference 'TakesLabels': TakesLabels .* with this reference_forward_fn",
        ),
    ],
)
def test_the_error_of_the_monitor_names_the_argument(arguments, message):
    monitor = CKAMonitor(TakesLabels(), "head", reference_layers="first", **arguments)
    with pytest.raises(ValueError, match=message):
        fit(monitor, max_epochs=1)


def test_it_needs_a_reference_that_is_a_module(tmp_path):
    torch.save(Net().state_dict(), tmp_path / "net.pt")
    for reference in ("initial", ["self", "previous", 3], tmp_path / "net.pt"):
        with pytest.raises(
            ValueError, match="reference_forward_fn shows batches to a reference that is a module, but there is none"
        ):
            CKAMonitor(reference, reference_forward_fn=show_both)
    CKAMonitor(["initial", Net()], reference_forward_fn=show_both)
