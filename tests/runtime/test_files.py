"""Files are written whole or not at all, and old ones are moved aside."""

import subprocess
import sys

import pytest
from lightning_cka.runtime.files import digest, set_aside, write_atomically


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", lambda _file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, b"new and longer")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_content_can_be_written_by_a_function(tmp_path):
    path = tmp_path / "a.bin"
    write_atomically(path, lambda file: (file.seek(2), file.write(b"end"), file.seek(0), file.write(b"a ")))
    assert path.read_bytes() == b"a end"

    def fail(file):
        file.write(bytes(10**6))
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"a end"
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_process_leaves_no_half_file(tmp_path):
    """SIGKILL at the moment when the content is in the temporary file."""
    script = (
        "import os, signal\nfrom pathlib import Path\nfrom lightning_cka.runtime.files import write_atomically\n"
        "os.fsync = lambda file: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_atomically(Path('a.safetensors'), bytes(10**6))\n"
    )
    process = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, timeout=60)
    assert process.returncode == -9
    assert not (tmp_path / "a.safetensors").exists()


def test_writing_creates_folders_and_replaces_files(tmp_path):
    path = tmp_path / "new" / "folder" / "a.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_digests_identify_contents():
    assert digest(b"a") == digest(b"a") != digest(b"b")
    assert len(digest(b"a")) == 32


def test_files_of_earlier_runs_are_moved_to_a_new_folder(tmp_path):
    def make():
        for name in ("a.csv", "b.csv", "banks/1/x.bank", "banks/y.bank", "other.txt"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(name)

    def files(folder):
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    for number in (1, 2):
        make()
        target = set_aside(tmp_path, ["a.csv", "b.csv", "banks", "missing"], keep=lambda path: path.name == "b.csv")
        assert target == tmp_path / f"earlier-{number}"
        assert files(target) == {"a.csv", "banks/1/x.bank", "banks/y.bank"}
        assert (target / "banks/1/x.bank").read_text() == "banks/1/x.bank"
        assert {"b.csv", "other.txt"} == files(tmp_path) - {name for name in files(tmp_path) if "earlier" in name}
    assert set_aside(tmp_path, ["a.csv", "banks", "missing"], keep=lambda _path: False) is None
    assert not (tmp_path / "earlier-3").exists()
