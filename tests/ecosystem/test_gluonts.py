"""An estimator of GluonTS, which makes its own LightningModule and loaders, for probabilistic forecasts."""

import lightning as L
import numpy as np
import pytest
from foreign import REFERENCES, Record, assert_correct, assert_plausible, assert_same_training
from lightning_cka import CKAMonitor

pytest.importorskip("gluonts.torch")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("_without_figures")]


def train(*callbacks):
    import pandas as pd
    from gluonts.dataset.common import ListDataset
    from gluonts.torch import SimpleFeedForwardEstimator

    time, rng = np.arange(60), np.random.default_rng(0)
    waves = [np.sin(time / (3 + i)) + 0.1 * rng.standard_normal(60) for i in range(64)]
    series = ListDataset([{"start": pd.Period("2020-01-01", "D"), "target": wave} for wave in waves], freq="D")
    L.seed_everything(0)
    run = Record()
    SimpleFeedForwardEstimator(
        prediction_length=5,
        context_length=10,
        hidden_dimensions=[16, 16],
        batch_size=16,
        num_batches_per_epoch=8,
        trainer_kwargs={
            "max_epochs": 2,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "callbacks": [run, *callbacks],
        },
    ).train(series, series)
    return run


def forward(module, batch):
    module(batch["past_target"])


def test_the_feed_forward_estimator_needs_a_forward_fn():
    with pytest.raises(
        ValueError,
        match=r"SimpleFeedForwardLightningModule could not be shown a probe batch: pass forward_fn=, a function of the "
        r"module and the batch.*the batch is a dict of \{'past_target': Tensor.*unexpected keyword argument 'future",
    ):
        train(CKAMonitor(REFERENCES))
    monitor = CKAMonitor(REFERENCES, forward_fn=forward)
    with pytest.warns(UserWarning, match="first samples of the IterableSlice, in their order"):
        run = train(monitor)
    assert_same_training(run, train())
    assert_plausible(monitor)
    assert_correct(monitor, run, ["model.nn.0", "model.nn.2", "model.args_proj.proj.0"], forward)
