"""Results are found and read in folders of runs."""

from __future__ import annotations

import pytest
from lightning_cka.view.run_folders import read_runs
from view_results import results


def save(folder, key="initial", epochs=2, journal=False):
    for result in results(epochs=epochs):
        result.save(folder / key / f"epoch={result.epoch:03d}-step={result.step:06d}.json")
    if journal:
        (folder / "history.jsonl").touch()


def test_a_run_has_its_references_and_measures(tmp_path):
    for key in ("initial", "previous/rbf", "previous/mutual_knn"):
        save(tmp_path / "cka", key)
    runs, notes = read_runs([tmp_path / "cka"])
    assert list(runs) == [tmp_path.name]
    assert set(runs[tmp_path.name]) == {"initial", "previous/rbf", "previous/mutual_knn"}
    assert [result.epoch for result in runs[tmp_path.name]["initial"]] == [0, 1]
    assert notes == []


def test_several_runs_have_the_parts_of_their_paths_that_differ(tmp_path):
    folders = [tmp_path / "logs" / version / "cka" for version in ("version_0", "version_1")]
    for folder in folders:
        save(folder)
    assert list(read_runs(folders).runs) == ["version_0", "version_1"]


def test_a_folder_of_runs_has_each_run(tmp_path):
    for version in ("version_0", "version_1"):
        save(tmp_path / version / "cka", journal=True)
    runs = read_runs([tmp_path]).runs
    assert {name: list(keys) for name, keys in runs.items()} == {"version_0": ["initial"], "version_1": ["initial"]}


def test_a_folder_of_one_reference_is_a_run(tmp_path):
    save(tmp_path / "cka", "initial")
    assert list(read_runs([tmp_path / "cka" / "initial"]).runs) == ["initial"]


def test_earlier_runs_are_left_out(tmp_path):
    save(tmp_path / "cka")
    save(tmp_path / "cka" / "earlier-1")
    assert set(read_runs([tmp_path / "cka"]).runs[tmp_path.name]) == {"initial"}


def test_damaged_files_are_left_out_with_a_note(tmp_path):
    save(tmp_path / "cka", epochs=3)
    file = tmp_path / "cka" / "initial" / "epoch=001-step=000099.json"
    file.write_text(file.read_text().replace("0.9", "0.8", 1))
    runs, notes = read_runs([tmp_path / "cka"])
    assert [result.epoch for result in runs[tmp_path.name]["initial"]] == [0, 2]
    assert len(notes) == 1
    assert "epoch=001-step=000099.json" in notes[0]
    assert "damaged" in notes[0]


def test_a_folder_that_is_given_twice_is_one_run(tmp_path):
    save(tmp_path / "cka")
    assert list(read_runs([tmp_path / "cka", tmp_path / "cka"]).runs) == [tmp_path.name]


def test_folders_without_results_raise(tmp_path):
    with pytest.raises(ValueError, match=r"there are no results in .*expected the dirpath of a CKAMonitor"):
        read_runs([tmp_path])
    with pytest.raises(NotADirectoryError, match="there is no folder"):
        read_runs([tmp_path / "missing"])
