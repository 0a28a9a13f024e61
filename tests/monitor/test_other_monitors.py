"""Two monitors in one Trainer."""

import pytest
from fitting import fit
from lightning_cka import CKAMonitor

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
]


def test_two_monitors_in_one_trainer():
    first, second = CKAMonitor("initial"), CKAMonitor("self", layers="net.*", log_key_prefix="other/")
    _, used = fit(first, second)
    assert {"cka/initial/mean", "other/self/mean"} <= set(used.callback_metrics)
    assert first.state_key != second.state_key


def test_two_monitors_with_one_prefix_raise():
    with pytest.raises(ValueError, match="log to the same keys for the diagnostics of layers: set log_key_prefix="):
        fit(CKAMonitor("initial"), CKAMonitor("self"))


def test_monitors_that_would_overwrite_each_other_raise():
    with pytest.raises(ValueError, match=r"log to the same keys for \['initial'\]: set log_key_prefix="):
        fit(CKAMonitor(layers="net.0"), CKAMonitor(["initial", "self"]))
    with pytest.raises(ValueError, match=r"two CKAMonitors would write to one folder, .*: set dirpath="):
        fit(CKAMonitor(dirpath="a"), CKAMonitor(dirpath="a", log_key_prefix="b/"))


@pytest.mark.parametrize("prefix", ["cka", "cka_diagnostics/"])
def test_prefixes_whose_diagnostics_are_the_same_raise(prefix):
    with pytest.raises(ValueError, match=r"same keys for the diagnostics of layers, .*'cka/'.* too similar"):
        fit(CKAMonitor("self", log_key_prefix=prefix, dirpath="a"), CKAMonitor("initial", dirpath="b"))
