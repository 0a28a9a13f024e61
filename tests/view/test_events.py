"""Comparisons as events, and what is put together from them, against the payload of the results themselves."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
from lightning_cka.view.event_content import event_content
from lightning_cka.view.events import read_event
from lightning_cka.view.joined_events import joined_payload
from lightning_cka.view.packing import integer_planes, joined_integers, packed_integers, packed_json, unpacked_json
from lightning_cka.view.payload import view_payload
from view_results import flagged, large_run, one_run, results, trace_flag, without_layer


def events(run):
    return [read_event(event_content(f"cka/{key}/", result)) for key, found in run.items() for result in found]


def integers(text):
    """Return packed integers, of which the first axis has one result."""
    return np.frombuffer(b"".join(integer_planes(text)), np.uint8).reshape(4, -1)


def assert_same(found, expected, decimals=None):
    """Check two blocks. Packed numbers may be packed in two ways."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name == "paired" and value is not None:
            assert_same(found[name], value, value["decimals"])
        elif name in ("values", "errors", "bounds", "fine", "left_out") and value is not None:
            if decimals in (None, found.get("decimals")) and value.startswith("p"):
                assert (integers(found[name]) == integers(value)).all()
        elif name != "decimals":
            assert found[name] == value, name


@pytest.mark.parametrize("run", [one_run(), {"initial": results(batches=1)}, {"self": results(self_comparison=True)}])
def test_joined_events_are_the_payload_of_their_results(run):
    (found,) = joined_payload({"run": events(run)}, title="CKA")["runs"]
    (expected,) = view_payload({"run": {f"cka/{key}": value for key, value in run.items()}})["runs"]
    assert found["name"] == expected["name"]
    for one, other in zip(found["series"], expected["series"], strict=True):
        assert unpacked_json(one["flags"]) == unpacked_json(other["flags"])
        for block, wanted in zip(one["blocks"], other["blocks"], strict=True):
            assert_same(block, wanted)
        assert [one[name] for name in ("reference", "measure", "self")] == [
            other[name] for name in ("reference", "measure", "self")
        ]


def test_joined_integers_are_all_integers():
    parts = [np.array([[1, -2, 3]], np.int32), np.array([[70000, -(2**31), 0]], np.int32)]
    joined = joined_integers([packed_integers(part) for part in parts])
    assert (integers(joined) == integers("p" + packed_integers(np.concatenate(parts).reshape(1, -1))[1:])).all()
    assert integer_planes(packed_integers(np.zeros((1, 0), np.int32)), 0) == [b""] * 4


def test_an_event_of_28_layers_is_small():
    sizes = [len(event_content("cka/initial/", result)) for result in large_run()["initial"][::20]]
    assert max(sizes) < 12_000


def test_layers_and_probe_sets_that_change_begin_a_new_block():
    run = results(epochs=2) + results(layers=3, epochs=4)[2:] + results(layers=3, epochs=6, standard_error=None)[4:]
    (series,) = joined_payload({"run": events({"initial": run})}, title="CKA")["runs"][0]["series"]
    assert [block["epochs"] for block in series["blocks"]] == [[0, 1], [2, 3], [4, 5]]
    (wanted,) = view_payload({"run": {"initial": run}})["runs"][0]["series"]
    assert [len(block["rows"]) for block in wanted["blocks"]][:2] == [5, 3]
    other = results(epochs=4)[2:]
    for each in other:
        each.left_out_batches.weights[0] = 2
    (series,) = joined_payload({"run": events({"initial": results(epochs=2) + other})}, title="CKA")["runs"][0][
        "series"
    ]
    assert len(series["blocks"]) == 2


def test_what_a_run_left_behind_when_it_went_back_to_a_checkpoint_is_left_out():
    first, second = results(epochs=8), results(epochs=7, seed=1)
    run = [*first, *first[:5], *second[5:]]  # After 8 epochs, the run continues from epoch 4.
    (series,) = joined_payload({"run": events({"initial": run})}, title="CKA")["runs"][0]["series"]
    (block,) = series["blocks"]
    assert block["epochs"] == list(range(7))
    assert block["means"] == [round(each.mean(), 4) for each in [*first[:5], *second[5:]]]


def test_names_of_models_that_change_are_kept():
    run = [replace(each, model_name=f"model {epoch}") for epoch, each in enumerate(results(epochs=3))]
    (series,) = joined_payload({"run": events({"initial": run})}, title="CKA")["runs"][0]["series"]
    assert series["blocks"][0]["model"] == ["model 0", "model 1", "model 2"]


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
        (content(block__values=packed_integers(np.zeros((1, 4), np.int32))), "expected 25 numbers"),
        (content(block__values="p"), "not complete"),
        (content(block__errors="pAAAA"), "damaged"),
        (content(paired__batches="8"), "numbers of paired layers"),
        (content(paired__batches=0), "a number of batches"),
        (content(paired__batches=10**12), "a number of batches"),
        (content(paired__factor="2"), "a factor"),
        (content(paired__fine=packed_integers(np.zeros((1, 4), np.int32))), "expected 5 numbers"),
    ],
)
def test_damaged_events_say_what_is_wrong(damaged, message):
    with pytest.raises(ValueError, match=message):
        read_event(damaged)


def test_an_event_that_unpacks_to_very_much_is_refused(monkeypatch):
    monkeypatch.setattr("lightning_cka.view.events.MOST_BYTES", 1000)
    with pytest.raises(ValueError, match="more than 1000 bytes"):
        read_event(zlib.compress(b" " * 5000))
