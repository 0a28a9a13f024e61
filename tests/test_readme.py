"""The README's first block runs as it stands, and what it says of files and commands is so."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
from lightning_cka.compare.flags import Thresholds
from lightning_cka.hsic.kernels import RBF

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_first_code_block_runs(tmp_path):
    (tmp_path / "block.py").write_text(re.search(r"```python\n(.*?)```", README, re.DOTALL)[1])
    command = [sys.executable, "block.py"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    assert "'layers.0':" in process.stdout
    assert list(tmp_path.glob("lightning_logs/*/cka/initial/drift.png"))


def test_the_block_on_reading_cka_runs_and_shows_what_it_is_for(tmp_path):
    (block,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "confidence_interval" in code]
    (tmp_path / "block.py").write_text(block)
    command = [sys.executable, "block.py"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    linear, rbf = process.stdout.split("rbf")
    assert re.search(r"flagged: 0 trace_ratio \d+\.\d+ \(77,\)", linear)
    assert "flagged" not in rbf
    assert "at loader position 77" in process.stderr


def test_thresholds_are_those_of_the_code():
    thresholds = Thresholds()
    assert f"effective dimension < {thresholds.effective_dimension:g} |" in README
    assert f"trace ratio > {thresholds.trace_ratio:g} |" in README
    assert f"leave-one-out > {thresholds.leave_one_out:g} |" in README
    assert f"standard error > {thresholds.standard_error:g} |" in README
    assert f"threshold ({RBF().threshold:g}) times" in README


def test_files_and_links_exist():
    anchors = {re.sub(r"[^a-z ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"## (.*)", README)}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors
    for path in re.findall(r"\]\((?!http|#)([^)]+)\)", README) + re.findall(r"examples/\w+\.py", README):
        assert (ROOT / path).exists(), path


def test_messages_are_those_of_the_code():
    source = "".join(path.read_text() for path in (ROOT / "lightning_cka").glob("*.py"))
    for fragment in (
        "matches no module; closest:",
        "did not run in forward",
        "could not be shown a probe batch",
        "layers that single samples dominate",
        "are not exchangeable",
        "which leaves the RBF kernel without a bandwidth",
    ):
        assert fragment in README
        assert fragment in source


def test_commands_are_those_of_the_command_line(capsys):
    from lightning_cka.cli import main

    for command in re.findall(r"^lightning-cka (.*?)(?:\s+#.*)?$", README, re.MULTILINE):
        name, *arguments = command.split()
        options = [argument for argument in arguments if argument.startswith("--")]
        with pytest.raises(SystemExit) as caught:
            main([name, "--help"])
        assert caught.value.code == 0
        described = capsys.readouterr().out
        assert all(option in described for option in options)


def test_the_size_of_a_bank():
    n, batches, layers = 128, 16, 50
    size = batches * 4 * layers * (n * (n + 3) // 2 + 1)
    assert f"for 2048 samples in batches\nof 128 and 50 layers, {size / 2**20:.0f} MiB" in README


def test_names_of_the_section_on_memory_exist():
    import lightning_cka.plotting

    section = README[README.index("## The memory of a run") : README.index("## Options")]
    for name in set(re.findall(r"`(plot_\w+)`", section)):
        assert hasattr(lightning_cka.plotting, name)
    options = inspect.signature(lightning_cka.plot_cka).parameters
    assert {"add_text", "triangle", "cmap", "vmin", "vmax", "max_ticks", "max_label"} <= set(options)
    assert {"save_banks", "trajectory"} <= set(inspect.signature(lightning_cka.CKAMonitor).parameters)


def test_every_line_of_what_works_names_its_tests():
    section = README[README.index("## Works with") : README.index("The tests with other people's modules")]
    rows = re.findall(r"^\|.*\|.*\|.*\| (`.*`) \|$", section, re.MULTILINE)
    assert len(rows) > 40
    for name in {name for row in rows for name in re.findall(r"`(\w+)`", row)}:
        assert (ROOT / "tests" / f"test_{name}.py").exists() or (ROOT / "tests" / name).is_dir()
