"""Arguments of `CKAMonitor` that list values, in containers of other packages."""

import pytest
import torch
from conftest import Net, loaders, trainer
from lightning_cka import CKAMonitor
from torch import nn


class ListConfig:
    """A sequence that is neither a list nor registered as a Sequence, as that of OmegaConf."""

    def __init__(self, *values):
        self._values = values

    def __getitem__(self, index):
        return self._values[index]

    def __len__(self):
        return len(self._values)


@pytest.mark.usefixtures("_without_figures")
@pytest.mark.filterwarnings("ignore:CKA with")
def test_containers_that_are_no_lists():
    monitor = CKAMonitor(
        ListConfig("initial", "self"), {"net.0": 1, "head": 2}.keys(), kernel=frozenset(["rbf", "linear"])
    )
    trainer(monitor, max_epochs=1).fit(Net(), *loaders())
    assert list(monitor.results) == ["initial/linear", "initial/rbf", "self/linear", "self/rbf"]
    assert monitor.results["self/rbf"][0].layers == ("net.0", "head")


def test_references_in_other_containers():
    model = nn.Sequential(nn.Linear(8, 3))
    monitor = CKAMonitor(iter(["initial", 0, model]), reference_layers=(name for name in ["0"]))
    assert [reference.name for reference in monitor.references] == ["initial", "epoch-0", "Sequential"]
    assert [r.name for r in CKAMonitor({"self", "initial"}).references] == ["initial", "self"]
    with pytest.raises(ValueError, match="reference is empty"):
        CKAMonitor(frozenset())
    with pytest.raises(TypeError, match="a reference must be a name"):
        CKAMonitor({"name": torch.ones(1)})
