"""Samplers that fix their share when they are made give all processes one probe set."""

import json

import numpy as np
import shares_script
import torch
from conftest import run_script
from lightning_cka.probe.joined_probe import joined_probe
from lightning_cka.probe.seeded_sampling import draw_probe_set

DRAWN = ["fixed", "named", "texts", "batches"]
OWN = ["fixed own", "named own", "shuffles own"]


def test_two_processes_see_the_samples_of_both(tmp_path):
    run_script("shares_script.py", tmp_path, json.dumps(DRAWN + OWN))
    found = json.loads((tmp_path / "out.json").read_text())
    alone = shares_script.main([*DRAWN, "shuffles own"], 1)
    # One process has all samples, and draws the same probe set.
    for kind in (*DRAWN, "shuffles own"):
        assert found[kind]["samples"] == alone[kind]["samples"] == 72
        np.testing.assert_allclose(found[kind]["matrix"], alone[kind]["matrix"], rtol=0, atol=1e-12)
    # Each process shows its own batches.
    for kind in ("fixed own", "named own"):
        assert (found[kind]["samples"], found[kind]["batches"]) == (72, 12)
        np.testing.assert_allclose(found[kind]["matrix"], found["fixed own"]["matrix"], rtol=0, atol=1e-12)


def test_one_process_keeps_its_probe_set():
    loader = shares_script.loader_of("fixed", torch.utils.data.TensorDataset(torch.randn(72, 8)), 0, 1)
    probe = draw_probe_set(loader)
    assert joined_probe(probe, torch.device("cpu")) is probe
