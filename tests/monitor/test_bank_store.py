"""Banks on disk."""

import pytest
import torch
from conftest import Net, dataset
from fitting import fit
from lightning_cka import CKAMonitor, GramBank, compare_banks, compare_models
from torch import nn
from torch.utils.data import DataLoader

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]


@pytest.mark.filterwarnings("ignore:CKA. layers (that|whose)")
def test_comparing_banks_of_two_runs_equals_comparing_their_models(tmp_path):
    """For two architectures from separate runs, on one probe loader."""

    class Other(Net):
        def __init__(self):
            super().__init__(width=24)
            self.net = nn.Sequential(nn.Linear(8, 40), nn.Tanh(), nn.Linear(40, 24))

    loader = DataLoader(dataset(128, seed=5), batch_size=16, shuffle=True)
    models = {}
    for name, model in (("one", Net()), ("other", Other())):
        monitor = CKAMonitor("self", dataloader=loader, save_banks=True, dirpath=tmp_path / name)
        models[name], _ = fit(monitor, model=model)
    banks = [GramBank.load(tmp_path / name / "banks" / "epoch=001-step=000015.safetensors") for name in models]
    offline = compare_banks(*banks)
    for model in models.values():
        model.eval()
    live = compare_models(*models.values(), loader, progress_bar=False)
    assert offline.layers == live.layers != offline.reference_layers == live.reference_layers
    torch.testing.assert_close(offline.matrix, live.matrix, rtol=0, atol=1e-12)
    torch.testing.assert_close(offline.standard_error, live.standard_error, rtol=0, atol=1e-12)
    assert (offline.epoch, offline.step, offline.reference_name) == (1, 15, "Other, epoch 1")
