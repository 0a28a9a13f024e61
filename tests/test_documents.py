"""The documents: their code runs, their links exist, and they keep to their length."""

import importlib.util
import inspect
import os
import re
import shutil
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import forked_scripts
import lightning as L
import lightning_cka
import lightning_cka.plotting
import numpy as np
import pytest
import torch
import yaml
from conftest import blank_figures, draw_blank
from documents import anchors, blocks, links, sentences
from lightning_cka import RBF, CKAMonitor, CKAResult, GramBank, Thresholds, compare_banks
from lightning_cka.cli import main
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ROOT = Path(__file__).parents[1]
GUIDES = ROOT / "examples" / "guides"
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for path in (
        *(ROOT / "README.md", ROOT / "examples" / "README.md", ROOT / "examples" / "benchmarks" / "README.md"),
        *(ROOT / "tests" / "README.md", *sorted(GUIDES.glob("*.md"))),
    )
}
README = DOCUMENTS["README.md"]
SNIPPET = blocks(README, "python")[0]
RECIPES = dict(re.findall(r"\*\*([^*]+)\.\*\*[^`\n]*(?:`[^`]*`[^`\n]*)*\n```python\n(.*?)```", README, re.DOTALL))


def guide(name):
    return DOCUMENTS[f"examples/guides/{name}.md"]


@contextmanager
def only_warnings_of_others():
    """Allow warnings of Lightning and jsonargparse, but none of ours."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    ours = [text for text in (str(each.message) for each in caught) if re.search("CKA|cka|bank|layer", text)]
    assert not ours


def run(code, namespace):
    """Run a block as a part of a user's script."""
    with only_warnings_of_others():
        exec(compile(code, "block", "exec"), namespace)
    return namespace


def run_script(folder, code):
    (folder / "script.py").write_text(code)
    process = forked_scripts.run(["script.py"], folder, os.environ, timeout=240)
    assert process.returncode == 0, process.stderr[-4000:]
    return process


# Length, links and names.


def test_the_readme_has_two_pages():
    assert len(README.splitlines()) <= 180
    assert len(README.encode()) <= 12 * 1024


@pytest.mark.parametrize("name", sorted(path.name for path in GUIDES.glob("*.md") if path.name != "reference.md"))
def test_a_guide_has_fewer_than_150_lines(name):
    assert len((GUIDES / name).read_text().splitlines()) < 150


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if not name.endswith("reference.md")])
def test_sentences_are_short(name):
    lengths = [len(sentence.split()) for sentence in sentences(DOCUMENTS[name])]
    assert sum(lengths) / len(lengths) <= 20
    assert max(lengths) <= 40


def test_sentences_are_counted_as_they_read():
    prose = "# A title\n\nOne `two` [three four](five.md). Is\nit? Yes.\n\n- An item\n- Another: item.\n"
    text = f"{prose}\n```\nno no\n```\n| no |\n"
    assert sentences(text) == ["One `two` three four.", "Is it?", "Yes.", "An item", "Another: item."]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_files_and_headings(name):
    assert links(DOCUMENTS[name])
    for link in links(DOCUMENTS[name]):
        path, _, anchor = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if anchor and not name.endswith("reference.md"):
            assert anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("name", DOCUMENTS)
def test_programs_and_folders_that_are_named_exist(name):
    for path in re.findall(r"(?:examples|tests)/[a-z\d_/]+\.py", DOCUMENTS[name]):
        assert (ROOT / path).exists(), path


def test_the_readme_has_its_parts_in_order():
    titles = re.findall(r"^## (.*)", README, re.MULTILINE)
    assert titles == [
        *(
            "Install",
            "First steps",
            "The two commands",
            "Recipes",
            "Options",
            "Reading the heatmap",
            "Limits",
            "Guides",
        ),
    ]
    commands = blocks(README, "bash")[0].splitlines()
    assert commands == [
        'pip install -e ".[examples]" && python examples/digits.py',
        'pip install -e ".[test]" && python -m pytest',
    ]
    linked = {Path(link).name for link in links(README[README.index("## Guides") :])}
    assert linked >= {path.name for path in GUIDES.glob("*.md")}


def test_options_are_arguments():
    table = README[README.index("## Options") : README.index("## Reading")]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    assert len(named) >= 12
    assert named <= set(inspect.signature(CKAMonitor).parameters)


def test_names_in_the_guides_exist():
    text = "".join(DOCUMENTS.values())
    for name in set(re.findall(r"`(plot_\w+)`", text)):
        assert hasattr(lightning_cka.plotting, name)
    options = inspect.signature(lightning_cka.plot_cka).parameters
    assert {"add_text", "triangle", "cmap", "vmin", "vmax", "max_ticks", "max_label"} <= set(options)
    assert {"save_banks", "trajectory"} <= set(inspect.signature(CKAMonitor).parameters)
    assert set(re.findall(r"`((?:plot|animate)_\w+)`", guide("without-a-trainer"))) == set(
        lightning_cka.plotting.__all__
    )


def test_thresholds_are_those_of_the_code():
    text, thresholds = guide("reading-cka"), Thresholds()
    assert f"dominant direction > {thresholds.dominant_direction:g} |" in text
    assert f"separated group > {thresholds.separated_group:g} |" in text
    assert f"influence > {thresholds.influence:g} |" in text
    assert f"copies > {thresholds.copies:g} |" in text
    assert f"trace ratio > {thresholds.trace_ratio:g} |" in text
    assert f"leave-one-out > {thresholds.leave_one_out:g} |" in text
    assert f"standard error > {thresholds.standard_error:g} |" in text
    assert f"threshold ({RBF().threshold:g}) times" in text


def test_the_size_of_a_bank():
    n, batches, layers = 128, 16, 50
    size = batches * 4 * layers * (n * (n + 3) // 2 + 1)
    assert f"for 2048 samples in batches\nof 128 and 50 layers, {size / 2**20:.0f} MiB" in guide("run-files")


def test_every_line_of_what_works_names_its_tests():
    text = DOCUMENTS["tests/README.md"]
    rows = [line.split("|")[-2] for line in text.splitlines() if line.count("|") == 5 and not line.startswith("| **")]
    rows = [row for row in rows[2:] if row.strip()]
    assert len(rows) > 40
    for row in rows[:-1]:  # The last line is about versions, which all tests are for.
        assert (names := re.findall(r"`(test_\w+\.py)`", row)), row
        assert all(list((ROOT / "tests").rglob(name)) for name in names), row


def _public(name):
    return getattr(lightning_cka, name, None) or getattr(lightning_cka.functional, name)


def test_the_reference_has_every_argument():
    spec = importlib.util.spec_from_file_location("make_reference", GUIDES / "make_reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = module.reference()
    for name in {*lightning_cka.__all__, *lightning_cka.functional.__all__} - {"__version__", "functional"}:
        section = re.search(rf"^### {name}\n(.*?)(?=^#{{2,4}} )", text, re.DOTALL | re.MULTILINE)[1]
        for argument in inspect.signature(_public(name)).parameters:
            assert re.search(rf"^- `{argument}`.*: \S", section, re.MULTILINE), f"{name}({argument}) has no text"


# README.md: the script and the recipes.


def test_the_script_runs_as_it_stands_and_prints_the_picture_that_is_shown(tmp_path):
    process = run_script(tmp_path, SNIPPET)
    made = Image.open(tmp_path / re.search(r"Picture: (\S+)", process.stdout)[1])
    shown = Image.open(ROOT / re.search(r'<img src="([^"]+)"', README)[1])
    assert np.isclose(made.width / made.height, shown.width / shown.height, rtol=0.1)  # At any dots per inch.
    difference = np.subtract(*(np.asarray(image.convert("RGB").resize((200, 250)), float) for image in (made, shown)))
    assert np.abs(difference).mean() < 20
    assert "Warning" not in re.sub(r".*(GPU|workers|ModelSummary).*", "", process.stderr)


class TinyBert(L.LightningModule):
    """A user's transformer, for the recipe that chooses its blocks."""

    def __init__(self):
        from transformers import BertConfig, BertModel

        super().__init__()
        size = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
        self.bert = BertModel(BertConfig(vocab_size=50, num_hidden_layers=11, max_position_embeddings=16, **size))
        self.head = nn.Linear(8, 2)

    def forward(self, input_ids, attention_mask):
        return self.head(self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state[:, 0])

    def training_step(self, batch, batch_idx):
        return self(**batch).square().mean()

    def validation_step(self, batch, batch_idx):
        self(**batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def layers_of_bert(monitor):
    tokens = torch.randint(0, 50, (64, 6), generator=torch.Generator().manual_seed(0))
    samples = [{"input_ids": row, "attention_mask": torch.ones(6, dtype=torch.long)} for row in tokens]
    loader = DataLoader(samples, batch_size=8)
    trainer = L.Trainer(max_epochs=1, limit_train_batches=1, callbacks=[monitor], logger=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Flags of 64 random samples.
        trainer.fit(TinyBert(), loader, loader)
    return monitor.results["initial"][-1].layers


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The folder that the script ran in, with blank pictures, and its names."""
    folder = tmp_path_factory.mktemp("script")
    with pytest.MonkeyPatch.context() as patch, blank_figures():
        patch.chdir(folder)
        return folder, run(SNIPPET, {"__name__": "script"})


@pytest.fixture
def after_the_script(script, tmp_path, monkeypatch):
    """The script's names, in a copy of the folder that it ran in. Further pictures of training are blank, too."""
    folder, names = script
    draw_blank(monkeypatch)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return dict(names)


def test_recipes_have_at_most_six_lines():
    assert 5 <= len(RECIPES) <= 8
    assert len(RECIPES) == len(blocks(README, "python")) - 1
    assert all(len(code.splitlines()) <= 6 for code in RECIPES.values())


def test_recipes_run(after_the_script):
    def recipe(title):
        return SimpleNamespace(**run(RECIPES[title], dict(after_the_script)))

    found = recipe("Compare fine-tuning with the pretrained checkpoint")
    assert len(found.monitor.results["pretrained"]) == 3

    found = recipe("Two checkpoints without a Trainer")
    assert (found.result.model_name, found.result.reference_name) == ("finetuned", "first")
    assert Path("two_checkpoints.png").is_file()

    found = recipe("Resume")
    assert [result.epoch for result in found.monitor.results["initial"]] == list(range(12))
    assert found.monitor.results["initial"][-1].reference_name == "initial"

    found = recipe("Early stopping on a CKA value")
    assert found.stop.stopped_epoch > 0
    assert found.trainer.callback_metrics["cka/previous/mean"] > 0.99

    recipe("What has converged, and what is redundant")
    assert CKAResult.load(sorted(Path("my_first_cka/initial").glob("*.json"))[0]).epoch == 0


def test_the_recipe_for_a_transformer_chooses_its_blocks(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    names = tuple(f"bert.encoder.layer.{place}" for place in range(11))
    assert layers_of_bert(run(RECIPES["Every block of a transformer"], {"CKAMonitor": CKAMonitor})["monitor"]) == names
    pattern = re.search(r"\*\*Every block.*By name: `layers=\"(.*?)\"`", README)[1]
    assert layers_of_bert(CKAMonitor(layers=pattern, feature_fn="mean", dirpath="by_name")) == names


_PRINT_SIZES = """
if trainer.is_global_zero:
    print(f"{trainer.world_size} processes, {monitor.results['initial'][-1].num_samples} samples")
"""


def test_the_recipe_for_two_processes(tmp_path):
    code, count = re.subn(r"^trainer = .*\n", RECIPES["DDP"], SNIPPET, flags=re.MULTILINE)
    assert count == 1
    code, count = re.subn("max_epochs=10", "max_epochs=2", code)
    assert count == 1
    process = run_script(tmp_path, code + _PRINT_SIZES)
    assert "2 processes, 2048 samples" in process.stdout
    assert (tmp_path / "my_first_cka" / "initial" / "drift.png").is_file()


def test_the_recipe_for_pandas(after_the_script):
    rows = after_the_script["monitor"].results["initial"][-1].to_rows()
    assert all(list(row) == list(rows[0]) for row in rows)
    assert {"layer", "reference_layer", "cka"} <= set(rows[0])
    header = Path("my_first_cka/initial.csv").read_text().splitlines()[0].split(",")
    assert header == list(rows[0])
    found = run(RECIPES["Figures for a paper, and tables"], dict(after_the_script))
    assert all(Path(name).read_bytes().startswith(b"%PDF") for name in ("cka.pdf", "change.pdf"))
    assert found["table"].shape == (5, 5)
    assert list(found["table"].index) == list(found["result"].layers)
    assert len(found["history"]) == len(after_the_script["monitor"].to_rows()) >= 10 * len(rows)


# The guides.


def test_the_block_on_reading_cka_runs_and_shows_what_it_is_for(tmp_path):
    (block,) = blocks(guide("reading-cka"), "python")
    process = run_script(tmp_path, block)
    linear, rbf = process.stdout.split("rbf")
    assert re.search(r"flagged: 0 trace_ratio \d+\.\d+ \(77,\)", linear)
    assert "flagged" not in rbf
    assert "at loader position 77" in process.stderr


def test_the_block_on_flags_runs_and_leaving_the_outlier_out_removes_its_flags(tmp_path):
    (block,) = blocks(guide("flags"), "python")
    flagged, without, mean = run_script(tmp_path, block).stdout.splitlines()
    assert re.search(r"reason='trace_ratio'.*samples=\(77,\)", flagged)
    assert without == "()"
    assert 0 < float(mean) < 1


def test_the_blocks_on_samples_run_and_shows_the_outlier(tmp_path):
    process = run_script(tmp_path, "\n".join(blocks(guide("samples"), "python")))
    assert "at loader position 77" in process.stderr
    pictures = set(re.findall(r"\"(\w+\.(?:png|gif))\"", guide("samples")))
    assert len(pictures) == 7
    assert {path.name for path in (*tmp_path.glob("*.png"), *tmp_path.glob("*.gif"))} == pictures


def test_the_block_on_differences_runs(after_the_script, capsys):
    (block,) = blocks(guide("intervals"), "python")
    change = run(block, dict(after_the_script))["change"]
    assert (change.later.epoch, change.earlier.epoch) == (9, 8)
    assert Path("change.png").is_file()
    assert "True" in capsys.readouterr().out


class Small(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.second(self.first(x).relu())

    def training_step(self, batch, batch_idx):
        return self(batch[0]).square().mean()

    def validation_step(self, batch, batch_idx):
        self(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def small_loader(*shape, **kwargs):
    samples = torch.randn(256, *shape, generator=torch.Generator().manual_seed(0))
    return DataLoader(TensorDataset(samples), batch_size=32, **kwargs)


def test_the_blocks_on_files_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monitor = CKAMonitor(["initial", "previous"], dirpath="cka", trajectory=True)
    L.Trainer(max_epochs=2, callbacks=[monitor], logger=False).fit(Small(), small_loader(8), small_loader(8))
    namespace = {}
    for block in blocks(guide("run-files"), "python"):
        run(block, namespace)
    assert [result.epoch for result in namespace["results"]] == [0, 1]
    assert "first ('init', '0', '1')" in capsys.readouterr().out
    table = guide("run-files").split("## Banks")[0]
    for name in re.findall(
        r"`([\w./-]*\.(?:json|png|csv|gif|safetensors)|trajectory/)`", table.replace("NAME", "initial")
    ):
        if "=" not in name and name != "owner.json":  # It is removed at the end.
            assert Path("cka", name.split(" ")[0]).exists() or Path("cka", "trajectory", name).exists(), name
    for pattern in (
        "initial/epoch=000-step=*.json",
        "initial/heatmap-epoch=001-*.png",
        "banks/epoch=001-*.safetensors",
    ):
        assert list(Path("cka").glob(pattern))


def test_the_blocks_on_decisions_run(after_the_script):
    monitor = after_the_script["monitor"]
    banks = [
        GramBank.from_model(after_the_script["Net"](), after_the_script["val"], progress_bar=False) for _ in "1234"
    ]
    for place, bank in enumerate(banks):
        bank.save(f"runs/seed{place}/banks/epoch=009-step=000320.safetensors")
    banks[0].save("teacher.safetensors")
    Path("teacher.ckpt").touch()
    result = compare_banks(banks[0], banks[1])
    names = {name: getattr(lightning_cka, name) for name in lightning_cka.__all__}
    namespace = names | {"monitor": monitor, "bank": banks[0], "result": result, "L": L}
    for block in blocks(guide("decisions"), "python"):
        run(block, namespace)
    assert set(namespace["comparison"].names) == {"runs/seed0", "runs/seed1", "teacher"}


def test_the_block_on_the_view_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("before", "after"):
        CKAResult(torch.eye(2), ("a", "b"), ("a", "b"), epoch=0, step=0).save(f"{name}.json")
    (block,) = blocks(guide("view"), "python")
    run(block, {})
    assert "<title>Before and after</title>" in Path("two.html").read_text()


def test_the_blocks_on_comparing_without_a_trainer_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Convolutions(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, x):
            return self.conv2(self.conv1(x).relu())

    torch.manual_seed(0)
    cnn, other = Convolutions(), Convolutions()
    mlp = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 8))
    loader = small_loader(1, 8, 8, shuffle=True)
    for name, model in (("early", cnn), ("late", other)):
        GramBank.from_model(model, loader, progress_bar=False).save(f"{name}.safetensors")
    for name, model in (("first", cnn), ("tuned", other)):
        torch.save({"state_dict": model.state_dict()}, f"{name}.ckpt")
    noisy = small_loader(1, 8, 8, shuffle=True)
    namespace = {"cnn": cnn, "mlp": mlp, "loader": loader, "early": "early.safetensors", "late": "late.safetensors"}
    namespace["corrupted_loader"] = noisy
    for block in blocks(guide("without-a-trainer"), "python"):
        run(block, namespace)
    assert namespace["matrix"].shape == (2, 2)
    assert abs(namespace["value"]) < 0.5
    assert namespace["result"].layers == ("conv1", "conv2")
    assert namespace["robust"].reference_name == "Convolutions (reference_dataloader)"
    assert (namespace["both"].model_name, namespace["both"].reference_name) == ("tuned", "first")
    assert {path.name for path in Path().glob("*")} >= {
        *("cnn_and_mlp.png", "model.safetensors", "side_by_side.pdf", "by_depth.svg"),
    }


def test_the_block_on_cka_as_a_loss_runs():
    (block,) = blocks(DOCUMENTS["examples/README.md"], "python")
    namespace = run(block, {})
    assert namespace["loss"].isfinite()
    assert namespace["student"].weight.grad is not None


def test_the_blocks_on_small_batches_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    models = {name: nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Linear(16, 8)) for name in ("cnn", "mlp")}
    batches = list(torch.randn(256, 64).split(2))
    namespace = models | {"CKAMonitor": CKAMonitor, "compare_models": lightning_cka.compare_models}
    namespace["small_batches"] = batches
    for block in blocks(guide("small-batches"), "python"):
        run(block, namespace)
    assert (namespace["result"].num_samples, namespace["result"].num_batches) == (256, 4)


def test_the_block_on_measures_runs_and_they_disagree(capsys):
    (block,) = blocks(guide("second-opinions"), "python")
    exec(block, {})
    values = {line.split()[0]: float(line.split()[1]) for line in capsys.readouterr().out.splitlines()}
    assert max(values["cka"], values["mutual_knn"], values["rsa"]) < 0.3
    assert values["ridge"] > 0.95  # All other directions are the same.


def test_the_blocks_on_large_blocks_print_the_values_that_they_show(capsys):
    block, of_chance = blocks(guide("large-blocks"), "python")
    namespace = run(block, {})
    assert printed_values(capsys) == [*shown_values(block)[:2], f"{1 / 21:.2f}", *shown_values(block)[2:]]
    exec(of_chance, namespace)
    value, null_mean, p_value = printed_values(capsys, "{:.3f}")
    assert shown_values(of_chance) == [f"{float(value):.2f}"]
    assert abs(float(null_mean)) < 0.01
    assert p_value == f"{1 / 201:.3f}"


def shown_values(block):
    return re.findall(r"\d\.\d\d", " ".join(re.findall(r"# .*", block)))


def printed_values(capsys, digits="{:.2f}"):
    return [digits.format(float(value)) for value in re.findall(r"tensor\(\[\[(.*?)\]\]", capsys.readouterr().out)]


def test_the_block_on_processes_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(guide("processes"), "python")
    assert run(block, {})["trainer"].world_size == 2


def test_the_yaml_makes_a_monitor(tmp_path, monkeypatch):
    cli = pytest.importorskip("lightning.pytorch.cli")
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(guide("loggers"), "yaml")
    Path("runs").mkdir()
    Path("runs/teacher.ckpt").touch()
    Path("config.yaml").write_text(block)
    monkeypatch.setattr(sys, "argv", ["train.py", "--config", "config.yaml"])
    with only_warnings_of_others():
        trainer = cli.LightningCLI(Small, run=False, save_config_callback=None).trainer
    monitor = next(callback for callback in trainer.callbacks if isinstance(callback, CKAMonitor))
    assert [reference.name for reference in monitor.references] == ["initial", "previous", "teacher"]
    assert set(yaml.safe_load(block)["trainer"]["callbacks"][0]["init_args"]) <= set(
        inspect.signature(CKAMonitor).parameters
    )
    assert trainer.logger.save_dir == "runs"


def test_commands_are_those_of_the_command_line(capsys):
    commands = [line for text in DOCUMENTS.values() for block in blocks(text, "console") for line in block.splitlines()]
    assert len(commands) >= 6
    for command in commands:
        program, name, *arguments = command.split()
        assert program == "lightning-cka"
        options = [argument for argument in arguments if argument.startswith("--")]
        with pytest.raises(SystemExit) as caught:
            main([name, "--help"])
        assert caught.value.code == 0
        described = capsys.readouterr().out
        assert all(option in described for option in options)


def test_programs_in_shell_blocks_take_their_options():
    for name, text in DOCUMENTS.items():
        for block in blocks(text, "bash"):
            for program, arguments in re.findall(r"python (examples/\w+\.py)((?:[^\n]|\\\n)*)", block):
                source = (ROOT / program).read_text()
                for option in re.findall(r"--[\w-]+", arguments):
                    assert f'"{option}"' in source, f"{name}: {program} {option}"
