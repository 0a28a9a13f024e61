"""Files are written whole or not at all."""

import subprocess
import sys

import pytest
from lightning_cka.runtime.files import write_atomically


def test_a_failed_write_leaves_only_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_process_leaves_no_partial_file(tmp_path):
    """The process is killed when the content is in the temporary file."""
    script = (
        "import os, signal\nfrom pathlib import Path\nfrom lightning_cka.runtime.files import write_atomically\n"
        "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(Path('a.safetensors'), bytes(10**6))\n"
    )
    process = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, timeout=60)
    assert process.returncode == -9
    assert not (tmp_path / "a.safetensors").exists()
