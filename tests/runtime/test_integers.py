"""Numbers out of range, or of another type, give one clear line, or work."""

import json

import numpy as np
import pytest
import torch
from conftest import Net
from fitting import fit
from lightning_cka import RBF, CKAMonitor, GramBank, Thresholds, compare_models
from lightning_cka.compare.diagnostics import Diagnostics
from lightning_cka.compare.flag_messages import flag_summary
from lightning_cka.compare.flags import Flag
from lightning_cka.compare.result import CKAResult
from lightning_cka.hsic import functional

HUGE = 10**5000
BATCHES = [torch.randn(16, 8) for _ in range(4)]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: RBF(threshold=1e200), ValueError, r"at most 1e\+06, but is 1e\+200.*pass kernel='linear'"),
        (lambda: RBF(HUGE), ValueError, "at most 1e.06, but is inf"),
        (lambda: RBF(-HUGE), ValueError, "must be positive|at most"),
        (lambda: RBF(1e-200), ValueError, "must be positive, but is 1e-200"),
        (lambda: RBF(float("nan")), ValueError, "must be positive, but is nan"),
        (lambda: RBF("0.5"), TypeError, "must be a number, but is a str"),
        (lambda: Thresholds(trace_ratio=float("nan")), ValueError, "trace_ratio must be a number or None, but is nan"),
        (lambda: Thresholds(standard_error="0.1"), TypeError, "standard_error must be a number or None, but is a str"),
        (lambda: CKAMonitor(every_n_epochs=1.5), TypeError, "every_n_epochs must be an integer, but is 1.5"),
        (lambda: CKAMonitor(num_samples=1e3), TypeError, "num_samples must be an integer, but is 1000.0"),
        (lambda: CKAMonitor(batch_size="16"), TypeError, "batch_size must be an integer, but is '16'"),
        (lambda: CKAMonitor(num_samples=-HUGE), ValueError, "num_samples must be at least 4"),
        (lambda: CKAMonitor(dataloader_idx=-1), ValueError, "dataloader_idx must be at least 0, but is -1"),
        (lambda: CKAMonitor(seed=-1), ValueError, r"seed must be from 0 to 2\*\*64 - 1, but is negative"),
        (lambda: CKAMonitor(seed=HUGE), ValueError, r"seed must be from 0 to 2\*\*64 - 1, but is larger"),
        (lambda: CKAMonitor(seed=None), TypeError, "seed must be an integer, but is a NoneType"),
        (lambda: CKAMonitor(seed=np.ones(999)), TypeError, "seed must be an integer, but is a ndarray"),
        (lambda: compare_models(Net(), Net(), BATCHES, seed=-5), ValueError, "seed must be from 0"),
        (lambda: GramBank.from_model(Net(), BATCHES, seed=0.5), TypeError, "seed must be an integer, but is 0.5"),
    ],
)
def test_values_out_of_range(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert len(str(caught.value)) < 250


@pytest.mark.usefixtures("_without_figures")
@pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)")
def test_very_large_numbers_work():
    thresholds = Thresholds(
        dominant_direction=HUGE,
        trace_ratio=HUGE,
        leave_one_out=1e400,
        standard_error=np.float32(5),
        influence=HUGE,
        separated_group=HUGE,
        copies=HUGE,
    )
    huge = CKAMonitor(num_samples=HUGE, thresholds=thresholds, seed=2**64 - 1, every_n_epochs=np.int64(1))
    plain = CKAMonitor(num_samples=None, seed=2**64 - 1)
    fit(huge, max_epochs=1)
    fit(plain, max_epochs=1)
    assert torch.equal(huge.results["initial"][-1].matrix, plain.results["initial"][-1].matrix)
    assert huge.results["initial"][-1].flags == ()
    with pytest.raises(ValueError, match="every_n_epochs=9223372036854775807 would log nothing"):
        fit(CKAMonitor(every_n_epochs=HUGE), max_epochs=1)


def test_the_largest_bandwidth_is_that_of_the_linear_kernel():
    x, y = torch.randn(2, 64, 16, dtype=torch.float64)
    linear = functional.cka(x, y)
    assert functional.cka(x, y, kernel=RBF(1e6)).item() == pytest.approx(linear.item(), abs=1e-9)


def test_a_flag_with_an_infinite_threshold_is_saved_and_drawn(tmp_path):
    flag = Flag("a", "leave_one_out", float("nan"), float("inf"), (3,))
    result = CKAResult(torch.ones(1, 1), ("a",), ("a",), diagnostics=Diagnostics(flags=(flag,)))
    result.save(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())
    loaded = CKAResult.load(tmp_path / "r.json")
    assert loaded.flags[0].threshold == float("inf")
    assert "changes by > inf" in flag_summary(loaded.flags, "sample")[0]
