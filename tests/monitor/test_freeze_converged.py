"""`FreezeConverged`: what it freezes and when, and that nothing else changes."""

import copy
import re
from functools import cache
from itertools import pairwise

import pytest
import torch
from conftest import Net, dataset, loaders, trainer
from lightning.pytorch.callbacks import BackboneFinetuning, Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning_cka import CKAMonitor, FreezeConverged, Thresholds, would_freeze
from lightning_cka.monitor.freeze_checks import check_unused_parameters
from scipy.stats import t as student
from torch import nn
from torch.utils.data import DataLoader
from training import MARKS, NoValidation, run, same_results, same_weights

pytestmark = [
    *MARKS,
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
    pytest.mark.filterwarnings("ignore:FreezeConverged. layer 'head' has converged, too"),
    pytest.mark.filterwarnings("ignore:FreezeConverged will freeze nothing"),
    pytest.mark.filterwarnings("ignore:Found 1 module.s. in eval mode"),
]
OFF = Thresholds.off()


def monitor(**options):
    return CKAMonitor("initial", thresholds=OFF, **options)


class Weights(Callback):
    """Remembers the weights at the start of each batch, and what requires gradients then."""

    def __init__(self):
        self.weights, self.trainable, self.in_eval = [], [], []

    def on_train_batch_start(self, trainer, module, *args):
        self.weights.append(copy.deepcopy(module.state_dict()))
        self.trainable.append({name for name, p in module.named_parameters() if p.requires_grad})
        self.in_eval.append({name for name, each in module.named_modules() if not each.training})


def expected(results, order, tolerance, patience, level=0.95):
    """Return the epochs after which layers are frozen, from the results alone."""
    frozen = {}
    for number, result in enumerate(results, start=1):
        if number < patience:
            continue
        factor = student.ppf((1 + level) / 2, result.effective_batches - 1)
        for name in order:
            place = result.layers.index(name)
            value, error = result.matrix[place, place], result.standard_error[place, place]
            if name not in frozen and value - factor * error <= 1 - tolerance:
                break
            frozen.setdefault(name, result.epoch)
    frozen.pop("head", None)  # The optimizer keeps something to train.
    return frozen


@pytest.mark.parametrize(("tolerance", "patience"), [(0.02, 1), (0.05, 2), (0.3, 3)])
def test_layers_are_frozen_after_the_comparison_that_shows_them_converged(tolerance, patience, tmp_path):
    """From the first batch after it on, their weights and running statistics stay. The others change."""
    watched, freeze, weights = monitor(), FreezeConverged(tolerance, patience), Weights()
    run(watched, freeze, weights, max_epochs=8)
    name = "previous" if patience == 1 else f"previous-{patience}"
    found = {layer: epoch for layer, (epoch, _) in freeze.frozen.items()}
    order = ("net.0", "net.1", "net.4", "head")
    assert found == expected(watched.results[name][:-1], order, tolerance, patience)
    assert "net.0" in found
    # The first layers are frozen when a run without freezing says so, from its banks or its results.
    alone = monitor(save_banks=True, dirpath=tmp_path / "alone")
    run(alone, max_epochs=8)
    said = {each.layer: each.epoch for each in would_freeze(tmp_path / "alone", tolerance, patience).found}
    first = min(found.values())
    assert {name for name, epoch in found.items() if epoch == first} == {
        name for name, epoch in said.items() if epoch == first
    } - {"head"}
    results = [each.place for each in would_freeze(watched._run.folder, tolerance, patience).found]
    assert results[:1] == [first - patience + 1]
    assert min(found.values()) >= patience - 1
    steps = 8  # In an epoch.
    for layer, epoch in found.items():
        first = (epoch + 1) * steps
        for key, value in weights.weights[-1].items():
            if key.startswith(f"{layer}."):
                assert torch.equal(weights.weights[first][key], value)
                assert not torch.equal(weights.weights[first - 1][key], value)
        assert all(not any(n.startswith(f"{layer}.") for n in each) for each in weights.trainable[first:])
        assert any(n.startswith(f"{layer}.") for n in weights.trainable[first - 1])
    assert not torch.equal(weights.weights[-2]["head.weight"], weights.weights[-1]["head.weight"])
    assert weights.in_eval[-1] == ({"net.1"} if "net.1" in found else set())


def test_without_a_converged_layer_training_is_bitwise_the_same():
    plain, _ = run(max_epochs=4)
    watched, _ = run(monitor(), freeze := FreezeConverged(1e-9, 2), max_epochs=4)
    assert freeze.frozen == {}
    assert same_weights(plain, watched)
    frozen, _ = run(monitor(), FreezeConverged(0.3, 2), max_epochs=4)
    assert not same_weights(plain, frozen)  # A positive control.


def train_frozen(first, steps, model):
    options = {"every_n_train_steps": steps} | ({} if model is Net else {"dataloader": loaders()[1]})
    callbacks = [monitor(**options), freeze := FreezeConverged(0.3, 2)]
    network, _ = run(*callbacks[first:], *callbacks[:first], model=model, max_epochs=4)
    return network, freeze


train_once = cache(train_frozen)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("steps", [None, 5])
@pytest.mark.parametrize("model", [Net, NoValidation])
def test_the_order_of_the_callbacks_does_not_matter(first, steps, model):
    network, freeze = train_frozen(first, steps, model)
    other, again = train_once(0, steps, model)
    assert freeze.frozen == again.frozen
    assert list(freeze.frozen) == ["net.0", "net.1", "net.4"]
    assert {epoch for epoch, _ in freeze.frozen.values()} == {1 if steps is None else None}
    assert same_weights(network, other)


@pytest.mark.parametrize("options", [{}, {"every_n_train_steps": 6}])
def test_a_resumed_run_is_bitwise_like_one_without_a_stop(tmp_path, options):
    """From each checkpoint: before, at and after freezing. The state of the optimizer fits."""

    def train(folder, max_epochs, checkpoint=None):
        torch.manual_seed(0)
        model = Net()
        model.net[3].p = 0.0
        watched, freeze = monitor(dirpath=folder / "cka", **options), FreezeConverged(0.04 if options else 0.1, 2)
        keep = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
        data = [DataLoader(dataset(seed=seed), 16) for seed in (1, 2)]
        used = trainer(freeze, watched, keep, max_epochs=max_epochs, enable_checkpointing=True)
        used.fit(model, *data, ckpt_path=checkpoint)
        return model, watched, freeze, used.optimizers[0].state_dict()

    whole, watched, freeze, state = train(tmp_path / "whole", 6)
    assert len(set(freeze.frozen.values())) >= 2  # Layers are frozen at different times.
    train(tmp_path / "cut", 5)
    for epoch in range(5):
        model, again, resumed, resumed_state = train(tmp_path / f"new{epoch}", 6, tmp_path / f"cut/epoch={epoch}.ckpt")
        assert resumed.frozen == freeze.frozen
        assert same_weights(whole, model)
        assert same_results(watched, again)
        for key, buffers in state["state"].items():
            assert torch.equal(buffers["momentum_buffer"], resumed_state["state"][key]["momentum_buffer"])


def test_gradients_that_are_being_accumulated_are_not_lost():
    """A validation in the middle of an accumulation freezes at the next optimizer step."""
    freeze, weights = FreezeConverged(0.5, 1), Weights()
    options = {"accumulate_grad_batches": 4, "val_check_interval": 3, "max_epochs": 2}
    run(monitor(), freeze, weights, **options)
    assert freeze.frozen["net.0"] == (0, 0)  # Compared after three batches.
    number = [len(each) for each in weights.trainable]
    assert number[:5] == [8, 8, 8, 8, 2]
    moved = [not torch.equal(a["net.0.weight"], b["net.0.weight"]) for a, b in pairwise(weights.weights)]
    assert [place for place, each in enumerate(moved) if each] == [3]


class TwoOptimizers(Net):
    """The head has an optimizer of its own, and both step in each batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            self.toggle_optimizer(optimizer)
            loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self):
        return [torch.optim.Adam(part.parameters(), lr=0.01) for part in (self.net, self.head)]


def test_each_of_several_optimizers_keeps_something_to_train():
    freeze, weights = FreezeConverged(0.9, 1), Weights()
    with pytest.warns(UserWarning, match="'net.4' has converged, too, but an optimizer would have nothing to train"):
        run(monitor(), freeze, weights, model=TwoOptimizers, max_epochs=3)
    assert list(freeze.frozen) == ["net.0", "net.1"]
    assert weights.trainable[-1] == {"net.4.weight", "net.4.bias", "head.weight", "head.bias"}
    assert not torch.equal(weights.weights[-2]["net.4.weight"], weights.weights[-1]["net.4.weight"])


def test_unfrozen_layers_train_again_and_may_be_frozen_later():
    class Thaw(Callback):
        def on_train_epoch_start(self, trainer, module):
            if trainer.current_epoch == 3:
                assert list(freeze.frozen) == ["net.0", "net.1", "net.4"]
                freeze.unfreeze(["net.[14]"])
                assert list(freeze.frozen) == ["net.0"]

    freeze, weights = FreezeConverged(0.3, 2), Weights()
    run(monitor(), freeze, weights, Thaw(), max_epochs=7)
    trains = [any(name.startswith("net.4") for name in each) for each in weights.trainable[::8]]
    assert trains == [True, True, False, True, True, False, False]
    assert {name: epoch for name, (epoch, _) in freeze.frozen.items()} == {"net.0": 1, "net.1": 4, "net.4": 4}
    with pytest.raises(ValueError, match=r"no frozen layer matches 'head'; frozen: net\.0, net\.1, net\.4"):
        freeze.unfreeze("head")
    freeze.unfreeze()
    assert freeze.frozen == {}
    run(monitor(), freeze, max_epochs=1)  # Another training begins anew.
    assert freeze.frozen == {}


class Finetuned(Net):
    """Only the head trains, until `BackboneFinetuning` unfreezes the rest."""

    @property
    def backbone(self):
        return self.net

    def configure_optimizers(self):
        return torch.optim.SGD(self.head.parameters(), lr=0.1)


def test_layers_that_others_keep_from_training_have_not_converged(tmp_path):
    """They count from when they begin to train, also if the run is resumed just then."""
    start, patience = 2, 2
    for resumes in (False, True):
        saved = ModelCheckpoint(tmp_path / str(resumes), every_n_epochs=start, save_top_k=-1)
        kwargs = {"model": Finetuned, "enable_checkpointing": True}
        freeze, weights = FreezeConverged(0.9, patience), Weights()
        callbacks = [freeze, weights, saved, BackboneFinetuning(start, train_bn=False)]
        if resumes:
            run(monitor(dirpath=tmp_path / "cka"), *callbacks, max_epochs=start, **kwargs)
            freeze, weights = FreezeConverged(0.9, patience), Weights()
            network, used = (
                Finetuned(),
                trainer(
                    monitor(dirpath=tmp_path / "cka"),
                    freeze,
                    weights,
                    BackboneFinetuning(start, train_bn=False),
                    max_epochs=6,
                ),
            )
            used.fit(network, *loaders(), ckpt_path=saved.best_model_path)
        else:
            run(monitor(dirpath=tmp_path / "one"), *callbacks, max_epochs=6, **kwargs)
        assert {epoch for epoch, _ in freeze.frozen.values()} == {start + patience - 1}
        assert list(freeze.frozen) == ["net.0", "net.1", "net.4"]


def test_a_second_fit_continues_and_another_training_begins_anew():
    freeze, watched = FreezeConverged(0.3, 2), monitor()
    network, used = run(watched, freeze, max_epochs=3)
    before = freeze.frozen
    assert len(before) == 3
    used.fit_loop.max_epochs = 5
    used.fit(network, *loaders())
    assert freeze.frozen == before
    trainer(watched, freeze, max_epochs=1).fit(network, *loaders())
    assert freeze.frozen == {}
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_chosen_layers_alone_are_frozen_and_what_still_trains_is_said():
    freeze = FreezeConverged(0.5, 1, layers=["net.*", "!net.0"])
    with pytest.warns(
        UserWarning, match=r"still go through frozen layers, because net.0.weight, net.0.bias runs before"
    ):
        network, _ = run(monitor(), freeze, max_epochs=3)
    assert list(freeze.frozen) == ["net.1", "net.4"]
    assert network.net[0].weight.requires_grad
    assert not network.net[4]._forward_hooks
    assert all(not each._forward_hooks for each in network.modules())
    with pytest.raises(ValueError, match=r"layers=\['net.3'\] chooses none that CKAMonitor compares"):
        run(monitor(), FreezeConverged(layers="net.3"))


def test_shared_weights_stay_trainable():
    class Ties(Net):
        def __init__(self):
            super().__init__()
            self.again = nn.Linear(16, 16)
            self.again.weight = self.net[4].weight

        def forward(self, x):
            return self.head(self.again(self.net(x)))

    freeze = FreezeConverged(0.9, 1, layers="net.*")
    with pytest.warns(UserWarning, match="net.4.weight stays trainable, because a layer that trains shares it"):
        network, _ = run(monitor(), freeze, model=Ties, max_epochs=3)
    assert network.net[4].weight.requires_grad
    assert not network.net[4].bias.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"num_samples": 32, "gram_batch_size": 16, "thresholds": OFF},
            r"'net.0' has no confidence interval: the probe set has 2.0 eff",
        ),
        ({"thresholds": Thresholds(standard_error=0.0)}, r"'net.0' is flagged \(standard_error\). It and those after"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*probe batch")
def test_layers_about_which_nothing_can_be_said_are_not_frozen(options, message):
    freeze = FreezeConverged(0.9, 1)
    with pytest.warns(UserWarning, match=message) as caught:
        run(CKAMonitor(**options), freeze, max_epochs=3)
    assert sum(bool(re.search(message, str(each.message))) for each in caught) == 1
    assert freeze.frozen == {}


def test_too_few_comparisons_are_said_before_training():
    with pytest.warns(
        UserWarning, match="will freeze nothing: training makes 3 comparisons, but with patience=3 it tak"
    ):
        run(monitor(), FreezeConverged(0.5), max_epochs=3)
    run(monitor(), freeze := FreezeConverged(0.5), max_epochs=4)
    assert freeze.frozen
    by_steps = monitor(every_n_train_steps=6)
    run(by_steps, freeze := FreezeConverged(0.9, 2), max_epochs=2)  # Steps 6 and 12 of 16.
    assert {step for _, step in freeze.frozen.values()} == {12}


def test_the_number_of_frozen_layers_is_logged_and_can_be_monitored():
    stop = EarlyStopping("cka_frozen/layers", mode="max", stopping_threshold=2.5, patience=9)
    _, used = run(monitor(), FreezeConverged(0.3, 2), stop, max_epochs=9)
    assert used.callback_metrics["cka_frozen/layers"] == 3
    assert used.current_epoch == 3  # They are frozen after epoch 1, and counted from epoch 2 on.
    watched = monitor(log_key_prefix="a/", dataloader=loaders()[1])
    _, used = run(watched, FreezeConverged(0.3, 2), model=NoValidation, max_epochs=3)
    assert used.callback_metrics["a_frozen/layers"] == 3


def sharding(name):
    return type(name, (SingleDeviceStrategy,), {})(device=torch.device("cpu"))


@pytest.mark.parametrize(
    ("callbacks", "options", "message"),
    [
        ([], {}, "needs a CKAMonitor, but the Trainer has none: add one"),
        ([monitor(), monitor(log_key_prefix="b/")], {}, "but the Trainer has 2: pass one of them as monitor="),
        ([monitor(measures="rsa")], {}, "needs CKA: add 'cka' to measures="),
        ([monitor()], {"strategy": sharding("DeepSpeedStrategy"), "accelerator": "auto"}, "DeepSpeedStrategy"),
        ([monitor()], {"strategy": sharding("FSDPStrategy"), "accelerator": "auto"}, "FSDPStrategy"),
    ],
)
def test_errors_before_training(callbacks, options, message):
    with pytest.raises(ValueError, match=message):
        run(*callbacks, FreezeConverged(), **options)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("ddp", "needs find_unused_parameters=True.*strategy='ddp_find_unused_parameters_true'"),
        (DDPStrategy(static_graph=True, find_unused_parameters=True), "static_graph=True"),
        ("ddp_find_unused_parameters_true", None),
    ],
)
def test_ddp_is_told_what_to_set(strategy, message):
    """Without `fit`, which would start a process group. Modules that optimize by hand get the setting by Lightning."""
    used = trainer(strategy=strategy)
    for module in (Net(), TwoOptimizers()):
        if message is None or (strategy == "ddp" and not module.automatic_optimization):
            check_unused_parameters(used, module)
            continue
        with pytest.raises(ValueError, match=message):
            check_unused_parameters(used, module)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FreezeConverged(0), r"tolerance must be in \(0, 1\)"),
        (lambda: FreezeConverged(patience=0), "patience must be at least 1"),
        (lambda: FreezeConverged(level=95), r"level must be in \(0, 1\)"),
        (lambda: FreezeConverged(layers=[]), "layers is empty"),
        (lambda: run(monitor(), FreezeConverged(monitor=monitor())), "is not among the callbacks of the Trainer"),
    ],
)
def test_wrong_arguments_raise(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_one_of_several_monitors_and_of_several_measures():
    one = CKAMonitor({"before": "previous:2"}, thresholds=OFF, measures=["rsa", "cka"])
    other = monitor(log_key_prefix="b/", dirpath="b")
    freeze = FreezeConverged(0.3, 2, monitor=one)
    run(other, one, freeze, max_epochs=3)
    assert list(one.results) == ["before/rsa", "before/cka"]  # The reference that the user listed.
    assert list(other.results) == ["initial"]
    assert list(freeze.frozen) == ["net.0", "net.1", "net.4"]
