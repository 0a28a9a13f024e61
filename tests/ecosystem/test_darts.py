"""A convolutional network of darts: trained by `pytorch_lightning`, with dataclasses as batches."""

import lightning as L
import numpy as np
import pytest
from foreign import REFERENCES, Record, assert_correct, assert_plausible, assert_same_training
from lightning_cka import CKAMonitor

pytest.importorskip("darts")
pytest.importorskip("pytorch_lightning")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("_without_figures")]


def train(*callbacks):
    from darts import TimeSeries
    from darts.models import TCNModel

    time, rng = np.arange(60), np.random.default_rng(0)
    waves = [np.sin(time / (3 + i)) + 0.1 * rng.standard_normal(60) for i in range(4)]
    series = [TimeSeries.from_values(wave.astype("float32")) for wave in waves]
    L.seed_everything(0)
    run = Record()
    TCNModel(
        input_chunk_length=12,
        output_chunk_length=4,
        n_epochs=2,
        num_filters=4,
        batch_size=16,
        optimizer_kwargs={"lr": 0.01},
        random_state=0,
        pl_trainer_kwargs={
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "callbacks": [run, *callbacks],
        },
    ).fit(series, val_series=series)
    return run


def forward(module, batch):
    module(batch.to_module_input())


def test_the_temporal_convolutional_network_needs_a_forward_fn():
    with pytest.raises(
        ValueError,
        match=r"_TCNModule could not be shown a probe batch: pass forward_fn=, a function of the module and the batch"
        r".*the batch is a TorchTrainingBatch of \{'past_target': Tensor",
    ):
        train(CKAMonitor(REFERENCES))
    monitor = CKAMonitor(REFERENCES, forward_fn=forward)
    run = train(monitor)
    assert_same_training(run, train())
    assert_plausible(monitor)
    assert_correct(monitor, run, ["res_blocks.0.conv2", "res_blocks.1.conv1", "res_blocks.1.conv2"], forward)
