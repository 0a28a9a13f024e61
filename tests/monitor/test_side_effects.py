"""Training is bit for bit the same with the monitor, whatever ``forward`` writes to, and all stays picklable."""

import copy
import itertools
import pickle
import random
import signal
import threading
from dataclasses import dataclass, field

import lightning as L
import numpy as np
import pytest
import torch
from conftest import Net, loaders, trainer
from lightning_cka import CKAMonitor, compare_models
from lightning_cka.runtime import bounded_copies, written_parameters
from notes import Notes
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from training import MARKS, run

pytestmark = MARKS


@dataclass
class State:
    steps: int = 0
    means: list = field(default_factory=list)


class Writes(Net):
    """Writes to attributes of many kinds, and its outputs depend on all of them."""

    total = 0

    def __init__(self):
        super().__init__()
        Writes.total = 0
        self.calls, self.state, self.recent, self.cache = 0, State(), [], torch.zeros(16)
        self.generators = {
            "torch": torch.Generator().manual_seed(0),
            "numpy": np.random.default_rng(0),
            "python": random.Random(0),
        }
        self.hidden = [nn.BatchNorm1d(16, affine=False)]
        self.head.calls = 0
        self.adapter = None

    def forward(self, x):
        if self.adapter is None:
            self.adapter = nn.Linear(16, 16)
        self.calls += 1
        Writes.total += 1
        self.head.calls += 1
        self.state.steps += 1
        self.recent = [*self.recent[-2:], float(x.mean())]
        h = self.hidden[0](self.net(x))
        self.cache.mul_(0.9).add_(h.detach().mean(0))
        self.state.means.append(float(self.cache.mean()))
        noise = torch.rand(1, generator=self.generators["torch"]).item()
        noise += self.generators["numpy"].random() + self.generators["python"].random()
        scale = 1 + 0.01 * (self.calls + self.head.calls + self.state.steps + Writes.total + noise)
        return self.head(h + self.adapter(h) + self.cache + sum(self.recent) + self.state.means[-1]) / scale


def outcome(*callbacks):
    model, fitted = run(*callbacks, model=Writes)
    states = fitted.optimizers[0].state_dict()["state"]
    metrics = {
        name: value
        for name, value in fitted.callback_metrics.items()
        if not name.startswith(("cka/", "cka_diagnostics/"))
    }
    attributes_ = (model.calls, model.state, model.recent, model.cache.tolist(), model.head.calls, Writes.total)
    return model.state_dict(), states, metrics, attributes_


def test_weights_optimizers_metrics_and_attributes_are_the_same():
    monitor = CKAMonitor(["initial", "previous", "self"], layers=["net.0", "head"])
    (weights, states, metrics, own), (plain, plain_states, plain_metrics, plain_own) = outcome(monitor), outcome()
    assert own == plain_own
    assert all(torch.equal(value, plain[name]) for name, value in weights.items())
    assert all(torch.equal(state["momentum_buffer"], plain_states[i]["momentum_buffer"]) for i, state in states.items())
    assert metrics.keys() == plain_metrics.keys()
    assert all(torch.equal(value, plain_metrics[name]) for name, value in metrics.items())


def test_an_attribute_that_is_too_large_to_be_restored_raises_before_training(monkeypatch):
    class Large(Net):
        def __init__(self):
            super().__init__()
            self.memory = torch.zeros(64)

        def forward(self, x):
            self.memory.add_(1)
            return super().forward(x)

    monkeypatch.setattr(bounded_copies, "MAX_COPIED_BYTES", 64)
    with pytest.raises(ValueError, match=r"forward pass of Large writes to Large.memory, which .*register_buffer"):
        run(CKAMonitor(), model=Large)


class WritesToParameters(Net):
    """Has forward write to its parameters, in ways that people use."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(16, 8, max_norm=0.3)
        self.hidden = [nn.Linear(3, 3)]

    def forward(self, x):
        with torch.no_grad():
            self.head.weight.data.clamp_(-0.2, 0.2)
            self.net[4].weight.data = self.net[4].weight.data * 0.99
            self.net[0].bias.mul_(0.9)
            self.hidden[0].weight.mul_(0.9)
        return super().forward(x + self.table(x[:, 0].abs().mul(5).long().clamp(max=15))) @ self.hidden[0].weight


def test_parameters_that_forward_writes_to_are_restored():
    monitor = CKAMonitor(["initial", "previous", "self"], layers=["net.0", "head"])
    (model, _), (plain, _) = (run(*callbacks, model=WritesToParameters) for callbacks in ((monitor,), ()))
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
    assert torch.equal(model.hidden[0].weight, plain.hidden[0].weight)
    other, before = WritesToParameters(), copy.deepcopy(model.state_dict())
    result = compare_models(model, other, [torch.randn(16, 8) for _ in range(8)], progress_bar=False)
    assert result.matrix.isfinite().all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_parameters_that_are_too_large_to_be_copied_raise_before_training(monkeypatch):
    monkeypatch.setattr(written_parameters, "MAX_COPIED_BYTES", 600)
    with pytest.raises(ValueError, match=r"forward pass of WritesToParameters writes to the parameters .*too large"):
        run(CKAMonitor(), model=WritesToParameters)


def test_a_parameter_that_only_later_batches_change_gives_a_warning():
    class Later(Net):
        def forward(self, x):
            if self.trainer.validating and self.trainer.current_epoch == 1:
                self.head.weight.data.mul_(0.9)
            return super().forward(x)

        def validation_step(self, batch, batch_idx):
            pass

    with pytest.warns(UserWarning, match=r"writes to the parameters head.weight, but did not in its first batch"):
        run(CKAMonitor(num_samples=32), model=Later)


def test_a_forward_pass_that_reads_a_generator_raises_before_training():
    class Reads(Net):
        def __init__(self):
            super().__init__()
            self.scales = (1 + i / 100 for i in range(10**6))

        def forward(self, x):
            return super().forward(x) * next(self.scales)

    with pytest.raises(ValueError, match=r"pass of Reads reads the generator Reads.scales, .*self.calls \+= 1"):
        run(CKAMonitor(), model=Reads)


def test_a_generator_that_only_later_batches_read_gives_a_warning():
    class ReadsLater(Net):
        def __init__(self):
            super().__init__()
            self.scales = (1 + i / 100 for i in range(10**6))

        def forward(self, x):
            is_later = self.trainer.validating and self.trainer.current_epoch == 1
            return super().forward(x) * (next(self.scales) if is_later else 1)

        def validation_step(self, batch, batch_idx):
            pass

    with pytest.warns(UserWarning, match=r"reads the generator ReadsLater.scales, which cannot be put back"):
        run(CKAMonitor(num_samples=32), model=ReadsLater)


class Augmented(Dataset):
    """Draws from a generator of its own, which training and validation share."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return 128

    def __getitem__(self, index):
        return torch.full((8,), index / 100) + torch.as_tensor(self.rng.normal(size=8), dtype=torch.float32), index % 3


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_generator_that_the_dataset_owns(num_workers):
    def train(*callbacks):
        data = Augmented()
        loader = DataLoader(data, batch_size=16, num_workers=num_workers)
        model, _ = run(*callbacks, train=loader, validation=loader)
        return model, data.rng.bit_generator.state

    monitor = CKAMonitor(["initial", "previous"])
    (model, state), (plain, plain_state) = train(monitor), train()
    assert state == plain_state
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
    assert monitor.results["initial"][-1].num_samples == 128
    assert monitor.results["initial"][-1].matrix.isfinite().all()


class CountingData(L.LightningDataModule):
    """Its validation data depend on how often they were asked for."""

    def __init__(self):
        super().__init__()
        self.calls, self.rng = [], np.random.default_rng(0)

    def train_dataloader(self):
        return loaders()[0]

    def val_dataloader(self):
        self.calls.append(self.rng.random())
        x = torch.full((64, 8), self.calls[-1]) + torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, torch.zeros(64).long()), batch_size=16)


def test_validation_loaders_that_lightning_asks_for_later():
    def train(*callbacks):
        L.seed_everything(0, verbose=False)
        data, model = CountingData(), Net()
        fitted = trainer(*callbacks, max_epochs=2, check_val_every_n_epoch=2, num_sanity_val_steps=0)
        fitted.fit(model, datamodule=data)
        return data.calls, fitted.callback_metrics["val_loss"]

    monitor = CKAMonitor()
    assert train(monitor) == train()
    assert len(monitor.results["initial"]) == 1


TEMPERATURE = {"calls": 0}
NOISE = torch.Generator().manual_seed(0)


class WritesToGlobals(Net):
    """Its outputs depend on globals, closures, hooks, gradients and iterators that forward changes."""

    def __init__(self):
        super().__init__()
        calls = []
        self.net[0].register_forward_hook(lambda module, args, output: (calls.append(1), output * len(calls))[1] / 100)
        self.once = self.head.register_forward_hook(self._initialise)
        self.numbers = itertools.cycle([1.0, 1.1, 1.3])
        TEMPERATURE["calls"] = 0
        NOISE.manual_seed(0)

    def _initialise(self, module, args, output):
        module.weight.data.div_(output.std())
        self.once.remove()

    def forward(self, x):
        TEMPERATURE["calls"] += 1
        noise = torch.rand(1, generator=NOISE)
        if not self.training and TEMPERATURE["calls"] > 20:
            self.head.requires_grad_(False)
        return super().forward(x) * (next(self.numbers) + TEMPERATURE["calls"] / 100 + noise)


def test_globals_closures_hooks_and_iterators_are_restored():
    def train(*callbacks):
        model, fitted = run(*callbacks, model=WritesToGlobals, num_sanity_val_steps=0)
        return model.state_dict(), TEMPERATURE["calls"], NOISE.get_state(), fitted.callback_metrics["val_loss"]

    (weights, *rest), (plain, *plain_rest) = train(CKAMonitor(["initial", "previous"])), train()
    assert all(torch.equal(value, plain[name]) for name, value in weights.items())
    assert all(map(torch.equal, *([torch.as_tensor(each) for each in values] for values in (rest, plain_rest))))


class BatchesThatWait(Net):
    """Computes the gradients of a batch after the next one, also where a validation lies between."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization, self.waiting = False, None

    def training_step(self, batch, batch_idx):
        loss, self.waiting = self.waiting, nn.functional.cross_entropy(self(batch[0]), batch[1])
        if loss is not None:
            self.manual_backward(loss)
        if batch_idx % 3 == 2:
            self.waiting = None
            self.optimizers().step()
            self.optimizers().zero_grad()


def test_graphs_and_gradients_that_outlive_a_validation():
    monitor = CKAMonitor(num_samples=64)
    (model, _), (plain, _) = (
        run(*callbacks, model=BatchesThatWait, max_epochs=1, val_check_interval=1) for callbacks in ((monitor,), ())
    )
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
    assert len(monitor.results["initial"]) == 8


class Frozen(Net):
    """Its first layers run in inference mode, and it keeps their outputs."""

    def forward(self, x):
        with torch.inference_mode():
            self.last = self.net(x)
        return self.head(self.last.clone())


def test_layers_in_inference_mode(tmp_path):
    monitor = CKAMonitor(["initial", "self"], num_samples=64)
    model, fitted = run(monitor, model=Frozen)
    plain, _ = run(model=Frozen)
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())
    assert {"net.0", "head"} <= set(monitor.results["self"][-1].layers)
    assert monitor.results["self"][-1].matrix.isfinite().all()
    assert model.last.is_inference()
    fitted.validate(model, loaders()[1], verbose=False)
    batches = [torch.randn(16, 8) for _ in range(4)]
    ordinary = Net()
    ordinary.load_state_dict(model.state_dict())
    result = compare_models(model, ordinary, batches, progress_bar=False)
    torch.testing.assert_close(result.matrix.diagonal(), torch.ones(len(result.layers)).double())


FAILURES = Notes()
"""Where copying failed, and the error."""


def check_copies(where, *values):
    for value in values:
        for copied in (copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))):
            try:
                duplicate = copied(value)
                if isinstance(duplicate, L.LightningModule):
                    assert duplicate.log.__func__ is L.LightningModule.log
                    assert duplicate(torch.zeros(4, 8)).shape == (4, 3)
            except Exception as error:  # noqa: BLE001  # Whatever fails is recorded.
                FAILURES.put((where, type(value).__name__, error))


class PicklesItself(Net):
    def forward(self, x):
        if not PICKLING["busy"]:
            PICKLING["busy"] = True
            check_copies("forward", self)
            PICKLING["busy"] = False
            PICKLED.put(1)
        return super().forward(x)


PICKLING = {"busy": False}
PICKLED = Notes()


class Copies(L.Callback):
    def setup(self, trainer, module, stage):
        check_copies("setup", trainer, module, *trainer.callbacks)

    def on_validation_batch_end(self, trainer, module, outputs, batch, batch_idx, *args):
        if batch_idx in (0, 7):
            check_copies("validation", trainer, module, *trainer.callbacks)

    def on_train_epoch_start(self, trainer, module):
        check_copies("epoch", trainer, module, *trainer.callbacks)

    def on_exception(self, trainer, module, exception):
        check_copies("exception", trainer, module, *trainer.callbacks)


def test_the_monitor_the_trainer_and_the_module_can_always_be_copied_and_pickled():
    FAILURES.clear()
    PICKLED.clear()
    monitor = CKAMonitor(["initial", "previous", "self", Net()], num_samples=16, batch_size=8)
    model, fitted = run(Copies(), monitor, model=PicklesItself)
    check_copies("end", fitted, model, monitor)
    assert FAILURES.all() == []
    assert len(PICKLED.all()) > 16
    duplicate = pickle.loads(pickle.dumps(monitor))
    assert duplicate.results.keys() == monitor.results.keys()
    trainer(duplicate, max_epochs=1).fit(Net(), *loaders())
    assert len(duplicate.results["initial"]) == 1


class RaisesOnce(Net):
    """Fails in one forward pass of the monitor's: in the dry run, or in the middle of a pass."""

    error, at_call = RuntimeError, 1

    def forward(self, x):
        if not self.training and FAULTS.qsize() < self.at_call:
            FAULTS.put(1)
            if FAULTS.qsize() == self.at_call:
                raise self.error("a fault")
        return super().forward(x)


FAULTS = Notes()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize(("at_call", "raises_early"), [(1, True), (6, False)])
def test_all_can_be_copied_and_pickled_after_an_error_in_a_pass(monkeypatch, error, at_call, raises_early):
    FAILURES.clear()
    FAULTS.clear()
    monkeypatch.setattr(RaisesOnce, "error", error)
    monkeypatch.setattr(RaisesOnce, "at_call", at_call)
    handler = signal.getsignal(signal.SIGINT)
    model, monitor = RaisesOnce(), CKAMonitor(["initial", "previous", Net()], num_samples=64, batch_size=8)
    fitted = trainer(Copies(), monitor, num_sanity_val_steps=0)
    try:
        # Lightning exits after Ctrl+C. The dry run tells what to pass.
        with pytest.raises((RuntimeError, ValueError, SystemExit)):
            fitted.fit(model, *loaders())
    finally:
        signal.signal(signal.SIGINT, handler)
    assert FAULTS.qsize() == at_call
    assert fitted.global_step == 0 or not raises_early
    check_copies("end", fitted, model, monitor)
    assert FAILURES.all() == []
    for used_model, used in ((model, monitor), (copy.deepcopy(model), pickle.loads(pickle.dumps(monitor)))):
        trainer(used, max_epochs=1).fit(used_model, *loaders())
        assert len(used.results["initial"]) == 1


class Locked(Net):
    """Cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock, self.numbers = threading.Lock(), (number for number in range(3))


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_references_that_cannot_be_copied_are_used_themselves(caplog, precision):
    caplog.set_level("INFO")
    reference = Locked()
    before = copy.deepcopy(reference.state_dict())
    pointers = [parameter.data_ptr() for parameter in reference.parameters()]
    monitor = CKAMonitor(reference, num_samples=32)
    trainer(monitor, max_epochs=1, precision=precision).fit(Net(), *loaders())
    assert len(monitor.results["Locked"]) == 1
    assert "reference 'Locked' is shown the probe set itself, and restored afterwards: Locked cannot be" in caplog.text
    assert reference.training
    assert reference._trainer is None
    assert [parameter.data_ptr() for parameter in reference.parameters()] == pointers
    assert all(torch.equal(value, before[name]) for name, value in reference.state_dict().items())


def test_the_checkpoint_of_a_model_that_cannot_be_copied(tmp_path):
    torch.save(Net().state_dict(), tmp_path / "net.ckpt")
    results = []
    for model in (Net, Locked):
        monitor = CKAMonitor(tmp_path / "net.ckpt", num_samples=32)
        trained, _ = run(monitor, model=model, max_epochs=1)
        plain, _ = run(model=model, max_epochs=1)
        assert all(torch.equal(value, plain.state_dict()[name]) for name, value in trained.state_dict().items())
        results.append(monitor.results["net"][-1].matrix)
    assert torch.equal(*results)


class Collates(Net):
    def collate(self, items):
        return tuple(map(torch.stack, zip(*items, strict=True)))

    def start(self, worker_id):
        pass


@pytest.mark.filterwarnings("ignore:Consider setting `persistent_workers")
@pytest.mark.parametrize("context", ["forkserver", "spawn"])
def test_workers_that_are_started_by_pickling_take_methods_of_the_module(context):
    train, validation = loaders()
    model, monitor = Collates(), CKAMonitor(num_samples=16, batch_size=8)
    workers = DataLoader(
        validation.dataset,
        16,
        collate_fn=model.collate,
        worker_init_fn=model.start,
        num_workers=1,
        multiprocessing_context=context,
        timeout=300,
    )
    trainer(monitor, max_epochs=1, num_sanity_val_steps=0, limit_val_batches=1).fit(model, train, workers)
    assert len(monitor.results["initial"]) == 1
