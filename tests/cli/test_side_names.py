"""Names that tell two runs apart."""

from pathlib import Path

import pytest
from lightning_cka.cli.side_names import name_runs
from lightning_cka.figures.labels import MAX_LABEL

BANK = "banks/epoch=001-step=000019.safetensors"
LOGS = "lightning_logs/version"


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        (f"runs/seed0/{BANK}", f"runs/seed1/{BANK}", ("Net (seed0)", "Net (seed1)")),
        (
            f"r/lightning_logs/version_0/cka/{BANK}",
            f"r/lightning_logs/version_1/cka/{BANK}",
            ("version_0", "version_1"),
        ),
        (
            f"a/lightning_logs/version_0/cka/{BANK}",
            f"b/lightning_logs/version_1/cka/{BANK}",
            ("a/version_0", "b/version_1"),
        ),
        (f"run/{BANK}", "run/banks/initial.safetensors", ("Net", "Net")),
        (f"run/{BANK}", f"run/{BANK}", ("Net", "Net")),
        ("a/initial/epoch=001-step=000019.json", "a/previous/epoch=002-step=000029.json", ("Net", "Net")),
        ("a/initial/epoch=001-step=000019.json", "b/initial/epoch=001-step=000019.json", ("Net (a)", "Net (b)")),
        ("a.safetensors", "b.safetensors", ("Net (a)", "Net (b)")),
        ("a/initial.safetensors", "b/initial.safetensors", ("Net (a)", "Net (b)")),
        ("c/epoch=1-step=9.ckpt", "c/epoch=2-step=19.ckpt", ("Net (epoch=1-step=9)", "Net (epoch=2-step=19)")),
        (f"x/y/{BANK}", f"y/x/{BANK}", ("Net (x/y)", "Net (y/x)")),
        (f"runs/{BANK}", f"runs/more/{BANK}", ("Net (runs)", "Net (more)")),
        (f"a/cka/{BANK}", f"a/lightning_logs/{BANK}", ("Net (cka)", "Net (lightning_logs)")),
    ],
)
def test_names(one, other, names):
    wanted = tuple(name if name.startswith("Net") else f"Net ({name})" for name in names)
    assert name_runs((Path(one), Path(other)), ("Net", "Net")) == wanted
    assert name_runs((Path(other), Path(one)), ("Net", "Net")) == wanted[::-1]


def test_models_of_different_names_keep_them():
    assert name_runs((Path("a/x.ckpt"), Path("b/x.ckpt")), ("CNN", "MLP")) == ("CNN", "MLP")


def test_a_long_name_loses_the_class_that_both_share():
    paths = Path("learning_rate_0.001/x.ckpt"), Path("learning_rate_0.003/x.ckpt")
    names = name_runs(paths, ("TransformerForClassification",) * 2)
    assert names == ("learning_rate_0.001", "learning_rate_0.003")
    assert max(map(len, names)) <= MAX_LABEL


def test_the_history_marks_the_folder_of_a_run(tmp_path):
    """A kernel's results are one folder deeper."""
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        (tmp_path / run / "history.jsonl").touch()
    paths = (tmp_path / "a/initial/rbf/epoch=001-step=000019.json", tmp_path / "a/initial/epoch=001-step=000019.json")
    assert name_runs(paths, ("Net", "Net")) == ("Net", "Net")
    assert name_runs((paths[0], tmp_path / "b/initial/epoch=001-step=000019.json"), ("Net", "Net")) == (
        "Net (a)",
        "Net (b)",
    )
