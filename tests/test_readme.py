"""The README's first block runs as it stands, and what it says of files and commands is so."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_first_code_block_runs(tmp_path):
    (tmp_path / "block.py").write_text(re.search(r"```python\n(.*?)```", README, re.DOTALL)[1])
    command = [sys.executable, "block.py"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert process.returncode == 0, process.stderr
    assert "'layers.0':" in process.stdout
    assert list(tmp_path.glob("lightning_logs/*/cka/initial/drift.png"))


def test_files_and_links_exist():
    for path in re.findall(r"\]\((?!http)([^)]+)\)", README) + re.findall(r"examples/\w+\.py", README):
        assert (ROOT / path).exists(), path


def test_messages_are_those_of_the_code():
    source = "".join(path.read_text() for path in (ROOT / "lightning_cka").glob("*.py"))
    for fragment in ("matches no module; closest:", "did not run in forward", "could not be shown a probe batch"):
        assert fragment in README
        assert fragment in source
