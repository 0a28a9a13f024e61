"""Charts with confidence bands in TensorBoard, read back from its event files."""

import pytest
from conftest import Net, loaders, trainer
from lightning.pytorch import seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning_cka import CKAMonitor, Thresholds
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

# Small models and probe sets are flagged, which these tests do not check; see tests/compare/test_flags.py.
pytestmark = [
    pytest.mark.usefixtures("_without_figures"),
    pytest.mark.filterwarnings("ignore:CKA( with '.*')?. layers (that|whose)"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]


def fit(logger, *monitors, model=Net, ckpt_path=None, **kwargs):
    seed_everything(0, verbose=False)
    used = trainer(*monitors, logger=logger, **({"max_epochs": 1, "log_every_n_steps": 1} | kwargs))
    used.fit(model(), *loaders(), ckpt_path=ckpt_path)
    return used


def events_of(logger):
    return EventAccumulator(logger.log_dir, size_guidance={"scalars": 0, "tensors": 0}).Reload()


def layout(logger):
    """Return the keys of each chart of the last layout, by category and title."""
    (event,) = events_of(logger).Tensors("custom_scalars__config__")[-1:]
    found = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    return {
        category.title: {
            chart.title: [(s.value, s.lower, s.upper) for s in chart.margin.series] for chart in category.chart
        }
        for category in found.category
    }


def bands(key, *names):
    return [(f"{key}{name}", f"{key}{name}_lower", f"{key}{name}_upper") for name in names]


MEAN = "cka: mean with 95 % intervals"


def test_the_mean_of_each_reference_has_a_chart_of_three_scalars_at_the_same_steps(tmp_path):
    logger, monitor = TensorBoardLogger(tmp_path), CKAMonitor(["initial", "self"])
    fit(logger, monitor, max_epochs=2)
    assert layout(logger) == {MEAN: {name: bands(f"cka/{name}/", "mean") for name in ("initial", "self")}}
    events = events_of(logger)
    assert len(events.Tensors("custom_scalars__config__")) == 1
    for name, results in monitor.results.items():
        value, lower, upper = (events.Scalars(f"cka/{name}/mean{each}") for each in ("", "_lower", "_upper"))
        assert [e.step for e in value] == [e.step for e in lower] == [e.step for e in upper] == [7, 15]
        for result, each, low, high in zip(results, value, lower, upper, strict=True):
            # The quantile of Student's t with 7 degrees of freedom.
            assert each.value - low.value == pytest.approx(2.365 * result.mean_standard_error, rel=1e-3)
            assert high.value - each.value == pytest.approx(2.365 * result.mean_standard_error, rel=1e-3)


def test_layers_have_charts_on_request(tmp_path):
    logger, monitor = TensorBoardLogger(tmp_path), CKAMonitor(["initial", "self"], "net.?", log_intervals=True)
    fit(logger, monitor)
    (result,) = monitor.results["initial"]
    expected = {name: bands("cka/initial/", name) for name in result.layers}
    assert layout(logger) == {
        MEAN: {name: bands(f"cka/{name}/", "mean") for name in ("initial", "self")},
        "cka/initial: layers with 95 % intervals": expected,
    }
    events, (low, high) = events_of(logger), result.confidence_interval()
    for place, name in enumerate(result.layers):
        (lower,), (upper,) = (events.Scalars(f"cka/initial/{name}{each}") for each in ("_lower", "_upper"))
        assert (lower.value, upper.value) == pytest.approx((low[place, place].item(), high[place, place].item()))


def test_without_a_request_layers_take_one_key_each(tmp_path):
    used = fit(False, CKAMonitor("initial", "net.?"))
    names = {key.removeprefix("cka/initial/") for key in used.callback_metrics if key.startswith("cka/")}
    assert {name for name in names if name.endswith(("_lower", "_upper"))} == {"mean_lower", "mean_upper"}


def test_each_measure_has_a_chart(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    fit(logger, CKAMonitor("initial", measures=["cka", "mutual_knn"], thresholds=Thresholds.off()))
    keys = ("initial/cka", "initial/mutual_knn")
    assert layout(logger) == {MEAN: {key: bands(f"cka/{key}/", "mean") for key in keys}}


def test_several_monitors_of_one_logger_have_their_charts_in_one_layout(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    fit(logger, CKAMonitor(), CKAMonitor(log_key_prefix="teacher/"), CKAMonitor(log_key_prefix="", dirpath="other"))
    assert layout(logger) == {
        MEAN: {"initial": bands("cka/initial/", "mean")},
        "teacher: mean with 95 % intervals": {"initial": bands("teacher/initial/", "mean")},
        "CKA: mean with 95 % intervals": {"initial": bands("initial/", "mean")},
    }


def test_each_logger_of_a_list_has_a_layout_and_other_loggers_have_the_scalars(tmp_path):
    first, second, csv = TensorBoardLogger(tmp_path, "a"), TensorBoardLogger(tmp_path, "b", prefix="x"), CSVLogger("c")
    fit([first, second, csv], CKAMonitor())
    assert layout(first) == {MEAN: {"initial": bands("cka/initial/", "mean")}}
    assert layout(second) == {MEAN: {"initial": bands("x-cka/initial/", "mean")}}
    assert "x-cka/initial/mean_lower" in events_of(second).Tags()["scalars"]


def test_a_resumed_run_keeps_its_layout(tmp_path):
    saves = ModelCheckpoint(tmp_path, filename="last")
    first = TensorBoardLogger(tmp_path, version=0)
    fit(first, CKAMonitor(), saves, enable_checkpointing=True)
    for version in (0, 1):  # In the same folder, or in another one.
        logger = TensorBoardLogger(tmp_path, version=version)
        fit(logger, CKAMonitor(), max_epochs=2, ckpt_path=tmp_path / "last.ckpt")
        assert layout(logger) == {MEAN: {"initial": bands("cka/initial/", "mean")}}


class HasLayout(Net):
    """Writes a layout of its own before training, or at the end."""

    when = "on_fit_start"

    def on_fit_start(self):
        self.write("on_fit_start")

    def on_train_end(self):
        self.write("on_train_end")

    def write(self, event):
        if event == self.when:
            self.logger.experiment.add_custom_scalars({"mine": {"loss": ["Multiline", ["val_loss"]]}})


class HasLayoutAtEnd(HasLayout):
    when = "on_train_end"


@pytest.mark.parametrize("model", [HasLayout, HasLayoutAtEnd])
def test_a_layout_of_the_user_is_left_alone(tmp_path, model):
    logger = TensorBoardLogger(tmp_path)
    fit(logger, CKAMonitor(["initial", "self"]), model=model)
    assert layout(logger) == {"mine": {"loss": []}}


def test_too_few_batches_give_no_band(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    fit(logger, CKAMonitor(num_samples=24, gram_batch_size=8))
    assert "custom_scalars__config__" not in events_of(logger).Tags()["tensors"]
    (lower,) = events_of(logger).Scalars("cka/initial/mean_lower")
    assert lower.value != lower.value


class WithoutLayouts(TensorBoardLogger):
    """Its writer cannot write layouts."""

    @property
    def experiment(self):
        writer = super().experiment

        def fail(layout):
            raise OSError("the disk is full")

        writer.add_custom_scalars = fail
        return writer


def test_a_writer_that_fails_gives_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="TensorBoard got no charts with confidence bands, training continues: OSErr"):
        fit(WithoutLayouts(tmp_path), CKAMonitor())


def test_a_fast_dev_run_writes_nothing(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    fit(logger, CKAMonitor(), fast_dev_run=True)
    assert list(tmp_path.rglob("*tfevents*")) == []
