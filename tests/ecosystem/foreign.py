"""The checks that every run of a LightningModule from another package must pass."""

from __future__ import annotations

import lightning as L
import numpy as np
import pytest
import torch
from naive import minibatch_cka

REFERENCES = ["initial", "previous", "self"]


class Record(L.Callback):
    """Record weights and logged values, to compare them with those of a run without a monitor."""

    def on_train_start(self, trainer, pl_module):
        self.module, self.initial_weights = pl_module, weights(pl_module)

    def on_train_end(self, trainer, pl_module):
        self.final_weights = weights(pl_module)
        logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
        self.logged = {
            name: value for name, value in logged.items() if not name.startswith(("cka/", "cka_diagnostics/"))
        }


def weights(module):
    """Return a copy of the tensors in the state_dict."""
    return {name: value.clone() for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)}


def assert_same_training(run, plain):
    """Check that weights and logged values are those of the run without a monitor, and that training changed them."""
    for name, value in plain.final_weights.items():
        torch.testing.assert_close(run.final_weights[name], value, rtol=0, atol=0, equal_nan=True)
    assert run.logged == pytest.approx(plain.logged, rel=0, abs=0, nan_ok=True)
    assert any("val" in name for name in run.logged)
    assert any(not torch.equal(value, run.initial_weights[name]) for name, value in run.final_weights.items())


def assert_plausible(monitor):
    """Check two epochs: finite values, 1 for a layer with itself, less than 1 with the initial weights."""
    assert list(monitor.results) == REFERENCES
    for results in monitor.results.values():
        assert [result.epoch for result in results] == [0, 1]
        for result in results:
            assert len(result.layers) > 1
            assert result.matrix.isfinite().all()
            if result.reference_name == "self":
                assert result.matrix.diagonal().tolist() == pytest.approx([1] * len(result.layers))
    initial, previous = monitor.results["initial"], monitor.results["previous"]
    torch.testing.assert_close(initial[0].matrix, previous[0].matrix)
    assert all(min(result.same_named().values()) < 1 - 1e-4 for result in initial)
    assert not torch.equal(initial[1].matrix, previous[1].matrix)


def assert_correct(monitor, run, layers, forward):
    """Check the last values of these layers against activations that are collected without the package."""
    batches = [batch.data for batch in monitor._session.probe.probe.batches()]
    initial, final = (
        _activations(run.module, state, layers, batches, forward) for state in (run.initial_weights, run.final_weights)
    )
    for reference, other in (("initial", initial), ("self", final)):
        result = monitor.results[reference][-1]
        places = [result.layers.index(name) for name in layers]
        assert result.num_samples == sum(len(features[0]) for features in final)
        expected = minibatch_cka(final, other)
        np.testing.assert_allclose(result.matrix[places][:, places].numpy(), expected, rtol=0, atol=2e-5)


def _activations(module, state, layers, batches, forward):
    """Return the features of each layer for each batch."""
    module.load_state_dict(state, strict=False)
    module.eval()
    found = []
    hooks = [
        module.get_submodule(name).register_forward_hook(lambda _m, _a, out, name=name: found[-1].setdefault(name, out))
        for name in layers
    ]
    for batch in batches:
        found.append({})
        with torch.no_grad():
            forward(module, batch)
    for hook in hooks:
        hook.remove()
    return [[outputs[name].double().flatten(1).numpy() for name in layers] for outputs in found]
