"""The variational autoencoder of scvi-tools, which makes its own Trainer, for single cells."""

import numpy as np
import pytest
from foreign import REFERENCES, Record, assert_correct, assert_plausible, assert_same_training
from lightning_cka import CKAMonitor

pytest.importorskip("scvi")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("_without_figures")]


def train(*callbacks):
    import scvi
    from anndata import AnnData

    rng = np.random.default_rng(0)
    cells = AnnData(rng.poisson(rng.gamma(2, 1, (256, 1)) * rng.gamma(1, 1, 20)).astype("float32"))
    cells.obs["batch"] = [str(i % 2) for i in range(256)]
    scvi.model.SCVI.setup_anndata(cells, batch_key="batch")
    scvi.settings.seed = 0
    run = Record()
    model = scvi.model.SCVI(cells, n_hidden=16, n_latent=4)
    model.train(
        max_epochs=2,
        accelerator="cpu",
        batch_size=32,
        train_size=0.5,
        check_val_every_n_epoch=1,
        enable_progress_bar=False,
        plan_kwargs={"lr": 0.01},
        callbacks=[run, *callbacks],
    )
    return run


def forward(module, batch):
    module(batch)


def test_the_variational_autoencoder_needs_a_forward_fn():
    with pytest.raises(
        ValueError,
        match=r"TrainingPlan could not be shown a probe batch: pass forward_fn=, a function of the module and the batch"
        r".*the batch is a dict of \{'X': Tensor.*unexpected keyword argument 'X'",
    ):
        train(CKAMonitor(REFERENCES))
    monitor = CKAMonitor(REFERENCES, forward_fn=forward)
    with pytest.warns(UserWarning, match="first samples of the AnnDataLoader, in their order"):
        run = train(monitor)
    assert_same_training(run, train())
    assert_plausible(monitor)
    encoder = "module.z_encoder."
    assert_correct(monitor, run, [f"{encoder}encoder.fc_layers.Layer 0.0", f"{encoder}mean_encoder"], forward)
