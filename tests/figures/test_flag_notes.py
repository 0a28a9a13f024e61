"""How flags are marked and explained."""

from lightning_cka.figures.flag_notes import marked, notes_height, wrap_notes


def test_flagged_labels_have_a_sign():
    assert marked(["a", "b", "c"], {1}) == ["a", "⚠ b", "c"]


def test_notes_are_wrapped_with_an_indent_and_without_mathematics():
    lines = wrap_notes(["one two three four", "$x$"], 0.7)
    assert lines == ["one two", "    three", "    four", r"\$x\$"]
    assert notes_height(lines) > notes_height(lines[:1]) > notes_height([]) == 0
