"""The Temporal Fusion Transformer of pytorch-forecasting, for time series."""

import lightning as L
import numpy as np
import pytest
from foreign import REFERENCES, Record, assert_correct, assert_plausible, assert_same_training
from lightning_cka import CKAMonitor

pytest.importorskip("pytorch_forecasting")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("_without_figures")]


def train(*callbacks):
    import pandas as pd
    from pytorch_forecasting import TemporalFusionTransformer, TimeSeriesDataSet
    from pytorch_forecasting.metrics import QuantileLoss

    time, rng = np.arange(40), np.random.default_rng(0)
    waves = [np.sin(time / (3 + i)) + 0.1 * rng.standard_normal(40) for i in range(8)]
    parts = [pd.DataFrame({"series": str(i), "time": time, "value": wave}) for i, wave in enumerate(waves)]
    data = pd.concat(parts, ignore_index=True)
    training = TimeSeriesDataSet(
        data[data.time < 30],
        time_idx="time",
        target="value",
        group_ids=["series"],
        max_encoder_length=10,
        max_prediction_length=3,
        static_categoricals=["series"],
        time_varying_known_reals=["time"],
        time_varying_unknown_reals=["value"],
    )
    validation = TimeSeriesDataSet.from_dataset(training, data, min_prediction_idx=20)
    L.seed_everything(0)
    model = TemporalFusionTransformer.from_dataset(
        training,
        hidden_size=8,
        hidden_continuous_size=4,
        attention_head_size=2,
        loss=QuantileLoss(),
        learning_rate=0.01,
    )
    run = Record()
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[run, *callbacks]
    )
    trainer.fit(
        model,
        training.to_dataloader(train=True, batch_size=16),
        validation.to_dataloader(train=False, batch_size=16),
    )
    return run


def test_the_temporal_fusion_transformer_needs_no_arguments():
    monitor = CKAMonitor(REFERENCES)
    run = train(monitor)
    assert_same_training(run, train())
    assert_plausible(monitor)
    layers = ["static_enrichment", "post_attn_gate_norm", "pos_wise_ff", "output_layer"]
    assert_correct(monitor, run, layers, lambda module, batch: module(batch[0]))
