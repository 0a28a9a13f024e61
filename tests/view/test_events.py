"""Comparisons as events, and what is put together from them, against the payload of the results themselves."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
from gram_banks import make_bank
from lightning_cka import compare_banks, seed_ceiling
from lightning_cka.view.blocks import block_content
from lightning_cka.view.event_content import event_content
from lightning_cka.view.events import read_event
from lightning_cka.view.joined_events import joined_payload
from lightning_cka.view.packing import packed_integers, packed_json, unpacked_json
from lightning_cka.view.payload import view_payload
from view_results import flagged, large_run, one_run, results, trace_flag, without_layer


def events(run):
    return [read_event(event_content(f"cka/{key}/", result)) for key, found in run.items() for result in found]


@pytest.mark.parametrize("run", [one_run(), {"initial": results(batches=1)}, {"self": results(self_comparison=True)}])
def test_joined_events_are_the_payload_of_their_results(run):
    (found,) = joined_payload({"run": events(run)}, title="CKA")["runs"]
    (expected,) = view_payload({"run": {f"cka/{key}": value for key, value in run.items()}})["runs"]
    assert found["name"] == expected["name"]
    for one, other, each in zip(found["series"], expected["series"], run.values(), strict=True):
        assert unpacked_json(one["flags"]) == unpacked_json(other["flags"])
        assert one["blocks"] == [block_content([result]) for result in each]
        assert one | {"flags": "", "blocks": []} == other | {"flags": "", "blocks": []}


def test_a_seed_ceiling_is_in_the_payload_as_that_of_the_results():
    banks = [make_bank(1 + variant, sizes=(16,) * 5) for variant in range(4)]
    ceiling = seed_ceiling(banks[1:], progress_bar=False)
    run = [replace(compare_banks(banks[0], banks[1]), epoch=epoch, step=epoch) for epoch in range(2)]
    found = [read_event(event_content("cka/a/", result, [ceiling])) for result in run]
    (series,) = joined_payload({"run": found}, title="CKA")["runs"][0]["series"]
    (expected,) = view_payload({"run": {"a": run}}, ceilings=[ceiling])["runs"][0]["series"]
    assert series["ceiling"] == expected["ceiling"]
    assert series["ceiling"]["layers"].keys() == {"a", "b.c"}
    damaged = json.loads(zlib.decompress(event_content("cka/a/", run[0], [ceiling])))
    for wrong in ({"label": 3}, {"label": "x", "layers": []}, {"label": "x", "layers": {"a": [1, "2", 3]}}):
        damaged["series"]["ceiling"] = wrong
        with pytest.raises(ValueError, match=r"expected (a ceiling|layers of|three numbers)"):
            read_event(zlib.compress(json.dumps(damaged).encode()))


def test_an_event_of_28_layers_is_small():
    sizes = [len(event_content("cka/initial/", result)) for result in large_run()["initial"][::20]]
    assert max(sizes) < 12_000


def test_what_a_run_left_behind_when_it_went_back_to_a_checkpoint_is_left_out():
    first, second = results(epochs=8), results(epochs=7, seed=1)
    run = [*first, *first[:5], *second[5:]]  # After 8 epochs, the run continues from epoch 4.
    (series,) = joined_payload({"run": events({"initial": run})}, title="CKA")["runs"][0]["series"]
    assert [block["epochs"] for block in series["blocks"]] == [[epoch] for epoch in range(7)]
    assert [block["means"] for block in series["blocks"]] == [[round(e.mean(), 4)] for e in [*first[:5], *second[5:]]]


def test_series_of_one_name_have_their_keys():
    run = {"a": results(), "b": results(seed=1)}
    (found,) = joined_payload({"run": events(run)}, title="CKA")["runs"]
    assert [series["reference"] for series in found["series"]] == ["initial (cka/a)", "initial (cka/b)"]


def content(**changes):
    """Return an event with other values at paths such as ``block.rows``."""
    run = [flagged(without_layer(results()[0], 1), trace_flag("net.1"))]
    found = json.loads(zlib.decompress(event_content("cka/initial/", run[0])))
    places = {"": found, "series": found["series"], "block": found["series"]["blocks"][0]}
    places["paired"] = places["block"]["paired"]
    for path, value in changes.items():
        place, _, name = path.rpartition("__")
        places[place][name] = value
    return zlib.compress(json.dumps(found).encode())


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (b"", "not complete"),
        (b"<script>", "damaged"),
        (content()[:-9], "not complete"),
        (zlib.compress(b"[]"), "expected an object"),
        (zlib.compress(b"{"), "Expecting"),
        (zlib.compress(b"NaN"), "not a number"),
        (zlib.compress(b"[" * 20000), "brackets"),
        (content(format=2), "expected format 1, got 2; install a newer lightning-cka"),
        (content(key=1), "a key"),
        (content(series=None), "a series"),
        (content(series__reference=3), "names and flags"),
        (content(series__self="yes"), "itself"),
        (content(series__blocks=[]), "one block"),
        (content(series__blocks=[[]]), "one block"),
        (content(series__flags="!"), "base64"),
        (content(series__flags=packed_json([[0, 1]])), "flags with a layer"),
        (content(block__mean=None), "name of the mean"),
        (content(block__epochs=[0, 1]), "one number as epochs"),
        (content(block__steps=["<b>"]), "one number as steps"),
        (content(block__model=[]), "one name of the model"),
        (content(block__rows="net"), "names of layers"),
        (content(block__rows=["a"] * 20000), "at most 10000 layers"),
        (content(block__rows=["a"]), "pairs of layers"),
        (content(block__pairs=[[0, 9]]), "pairs of layers"),
        (content(block__values=None), "packed numbers"),
        (content(block__values=packed_integers(np.zeros((1, 4), np.int32))), "expected 25 packed numbers"),
        (content(block__values="p"), "not complete"),
        (content(block__errors="pAAAA"), "damaged"),
        (content(paired__batches="8"), "numbers of paired layers"),
        (content(paired__batches=0), "a number of batches"),
        (content(paired__batches=10**12), "a number of batches"),
        (content(paired__factor="2"), "a factor"),
        (content(paired__probe=None), "the probe set"),
        (content(paired__fine=packed_integers(np.zeros((1, 4), np.int32))), "expected 5 packed numbers"),
    ],
)
def test_damaged_events_say_what_is_wrong(damaged, message):
    with pytest.raises(ValueError, match=message):
        read_event(damaged)


def test_an_event_that_unpacks_to_very_much_is_refused(monkeypatch):
    monkeypatch.setattr("lightning_cka.view.events.MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        read_event(zlib.compress(b" " * 5000))
