"""Two processes (gloo, CPU) give the results of one."""

import json
import re
import warnings

import ddp_script
import numpy as np
import pytest
from conftest import run_script

SCENARIOS = {
    "8 batches, and a seed ceiling": (64, "ceiling"),
    "9 batches of 4": (36, False),
    "one batch for two processes": (4, False),
    "the user's shuffling loader, with a smaller last batch": (70, "shuffled"),
    "the user's loader without shuffling": (64, "sorted"),
    "several forward passes for each Gram matrix": (64, "small"),
    "several batches of the user's loader for each Gram matrix": (94, "joined"),
    "three tokens of each sequence": (64, "tokens"),
}
OF_OTHER_STRATEGIES = {"8 batches": (64, False), "after each optimizer step": (64, "steps")}


KERNELS = ("linear", "rbf")


def is_flagged_by(content):
    """Whether a layer of the live model has a flag."""
    own = r"Flag\(layer='(?!the input)(?:(?!Flag\().)*of_reference=False"
    return any(re.search(own, each) for each in content["diagnostics"])


def assert_same_rows(ceilings, others):
    assert list(ceilings) == list(others)
    for kernel, rows in ceilings.items():
        for ours, theirs in zip(rows, others[kernel], strict=True):
            assert ours == pytest.approx(theirs, abs=1e-8, nan_ok=True)


def numbers(text):
    text = re.sub(r"\bsamples?=(\d+|\([^)]*\))", "", text)  # Among equal ratios and changes, any sample can be first.
    return [float(number) for number in re.findall(r"(?<![\w.])-?\d[\d.e+-]*|nan", text)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("strategy", ["ddp", "ddp_find_unused_parameters_true"])
def test_two_processes_give_the_results_of_one(tmp_path, strategy):
    scenarios = SCENARIOS if strategy == "ddp" else OF_OTHER_STRATEGIES
    for devices in (1, 2):
        args = ["--devices", devices, "--strategy", strategy, "--scenarios", json.dumps(list(scenarios.values()))]
        if devices == 1:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ddp_script.main(map(str, args))  # In this process, which saves the time of an import.
        else:
            run_script("ddp_script.py", tmp_path, *args, timeout=600)
        assert (tmp_path / "figures" / "initial" / "rbf.csv").exists()
        assert strategy != "ddp" or list(tmp_path.glob("figures/earlier-*/trajectory/rbf/convergence.png"))
    one, two = (json.loads((tmp_path / f"out-{devices}.json").read_text()) for devices in (1, 2))
    counts = []
    assert one.pop() == two.pop() == {"alone": [64, [1.0] * 4]}
    for (samples, kind), alone, shared in zip(scenarios.values(), one, two, strict=True):
        reference, layers, per_sample = ("reference", 3, 3) if kind == "tokens" else ("Net", 4, 1)
        for name in (f"{name}/{kernel}" for name in ("initial", "previous", "self", reference) for kernel in KERNELS):
            a, b = (np.array(content["matrices"][name]) for content in (alone, shared))
            assert a.shape == (2, layers, layers)
            changes = [v for key, v in shared["metrics"].items() if re.fullmatch(f"cka/{name}/.*_change", key)]
            expected = [] if name.startswith("self") else (a[1] - a[0]).diagonal()
            assert changes == pytest.approx(expected, abs=1e-6, nan_ok=True)
            # With few or similar samples in the first batch, most distances after a ReLU can be zero.
            assert not np.isnan(a).any() or (name.endswith("rbf") and (samples == 4 or kind == "sorted"))
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
            ours, theirs = (content["errors"][name] for content in (alone, shared))
            assert ours.pop("batches") == theirs.pop("batches")
            for part in ours:
                # The error of a value of exactly 1 is a rounding error of zero.
                np.testing.assert_allclose(ours[part], theirs[part], rtol=1e-6, atol=1e-9, err_msg=f"{name}: {part}")
        assert np.ptp(alone["matrices"]["initial/linear"], axis=0).max() > 1e-3  # The weights did change.
        assert alone["blocks"] == shared["blocks"]
        np.testing.assert_allclose(alone["ranks"], shared["ranks"], rtol=1e-9)
        assert np.shape(alone["ranks"]) == (2 * layers, 4)
        assert alone["samples"] == shared["samples"] == [per_sample * samples] * 2
        assert alone["effective batches"] == pytest.approx(shared["effective batches"])
        if kind == "tokens":  # There are 8 blocks of 8 sequences. Their draws of tokens are no batches of their own.
            assert shared["effective batches"] == pytest.approx([8, 8])
            assert np.shape(shared["errors"]["initial/linear"]["left out"]) == (2, 3, 8)
        assert bool(alone["ceilings"]) == (kind == "ceiling")
        assert_same_rows(alone["ceilings"], shared["ceilings"])
        assert alone["metrics"] == pytest.approx(shared["metrics"], rel=1e-5, abs=1e-6, nan_ok=True)
        assert alone["converged"] == shared["converged"]
        count = shared["metrics"]["cka/initial/linear/converged_layers"]
        settled = [place for _, name, _, place in shared["converged"] if name == "initial/linear"]
        assert count == sum(place is not None for place in settled)
        counts.append(count)
        one_process, *others = shared["keys of each process"]
        assert [one_process] == others == alone["keys of each process"]
        assert any(key.startswith("cka_diagnostics/") for key in one_process) or not is_flagged_by(shared)
        for ours, theirs in zip(alone["diagnostics"], shared["diagnostics"], strict=True):
            assert numbers(ours) == pytest.approx(numbers(theirs), rel=1e-9, nan_ok=True)
            assert re.findall(r"[a-z_]+", ours) == re.findall(r"[a-z_]+", theirs)
        reasons = ([re.sub(r"\d+", "", message) for message in each["warnings"]] for each in (alone, shared))
        assert next(reasons) == next(reasons)  # The warnings of rank 0.
        # With four samples, no flag can name one. With 36, the outlier is named by its effect on CKA.
        outlier = rf"(single samples dominate|without one sample).* {samples // 2}(0000\d\d)?\b"
        is_flagged = any(re.search(outlier, message) for message in alone["warnings"])
        assert is_flagged or samples == 4 or kind == "sorted"
        assert any("not exchangeable" in message for message in alone["warnings"]) == (kind == "sorted")
    assert max(counts) > 0  # Some layers have converged, with a large tolerance.


def test_bad_samples_of_all_processes_are_named(tmp_path):
    """Sample 3 is in a batch of the first process, 62 in one of the second."""
    run_script("ddp_script.py", tmp_path, "--devices", 2, "--scenarios", json.dumps([(64, "nan")]))
    content = json.loads((tmp_path / "out-2.json").read_text())[0]
    flag = "Flag(layer='the input', reason='bad_sample', value=2.0, threshold=0.0, samples=(3, 62), of_reference=False)"
    assert all(each.count("bad_sample") == 1 and flag in each for each in content["diagnostics"])
    named = [message for message in content["warnings"] if "the input (dataset index 3, 62)" in message]
    assert len(named) == 1
    assert not any("single samples dominate" in message for message in content["warnings"])


def test_a_configuration_error_ends_all_processes(tmp_path):
    process = run_script("ddp_script.py", tmp_path, "--devices", 2, "--layers", "missing", check=False)
    assert process.returncode != 0
    assert "layer pattern 'missing' matches no module" in process.stderr
