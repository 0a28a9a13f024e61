"""The message passing network of chemprop, for molecules."""

import lightning as L
import pytest
from foreign import REFERENCES, Record, assert_correct, assert_plausible, assert_same_training
from lightning_cka import CKAMonitor

pytest.importorskip("chemprop")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("_without_figures")]


def train(*callbacks):
    from chemprop import data, models, nn

    ends = ("O", "N", "Cl", "C(=O)O", "c1ccccc1", "C#N")
    molecules = [data.MoleculeDatapoint.from_smi("C" * i + end, [float(i)]) for i in range(1, 23) for end in ends]
    L.seed_everything(0)
    model = models.MPNN(
        nn.BondMessagePassing(d_h=16),
        nn.MeanAggregation(),
        nn.RegressionFFN(input_dim=16, hidden_dim=16),
        batch_norm=True,
        metrics=[nn.metrics.RMSE()],
        warmup_epochs=1,
        max_lr=0.01,
    )
    run = Record()
    trainer = L.Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[run, *callbacks]
    )
    trainer.fit(
        model,
        data.build_dataloader(data.MoleculeDataset(molecules[::2]), batch_size=16),
        data.build_dataloader(data.MoleculeDataset(molecules[1::2]), batch_size=16, shuffle=False),
    )
    return run


def forward(module, batch):
    module(batch.bmg, batch.V_d, batch.X_d)


def test_layers_with_a_row_per_molecule_are_compared_by_default():
    monitor = CKAMonitor(REFERENCES)
    run = train(monitor)
    assert_same_training(run, train())
    assert_plausible(monitor)
    # The layers of the message passing have a row for each atom or bond, and are left out.
    assert monitor.results["self"][0].layers == ("bn", "predictor.ffn.0.0", "predictor.ffn.1.2")
    assert_correct(monitor, run, ["bn", "predictor.ffn.0.0"], forward)


def test_layers_with_a_row_per_atom_or_bond_raise_and_their_aggregation_is_compared():
    with pytest.raises(
        ValueError,
        match=r"'message_passing.W_i' \(Tensor\(\d+, 16\) float32\).* have no dimension with one entry per sample.*"
        r"Choose other layers",
    ):
        train(CKAMonitor(layers="message_passing.*"))
    monitor = CKAMonitor(REFERENCES, layers=["agg", "predictor.*.0"])
    run = train(monitor)
    assert_plausible(monitor)
    assert_correct(monitor, run, ["agg", "predictor.ffn.0.0"], forward)
