"""Pixels of a figure, and files of figures."""

import numpy as np
import pytest
from figure_contents import lay_out
from lightning_cka import CKAResult, plot_cka
from lightning_cka.figures.pictures import PRINT_DPI, pixels_of, png, render, write_figure
from PIL import Image
from synthetic_results import result


def test_pixels_are_those_in_the_file(tmp_path):
    figure, _ = plot_cka(result())
    pixels = render(figure)
    assert (pixels.shape, pixels.dtype) == ((*lay_out(figure)[::-1], 3), np.uint8)
    (tmp_path / "a.png").write_bytes(png(pixels))
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), pixels)
    assert np.array_equal(pixels_of(png(pixels)), pixels)


def test_files_have_200_dots_per_inch_and_say_so(tmp_path):
    pixels = render(plot_cka(result())[0], PRINT_DPI)
    (tmp_path / "pixels.png").write_bytes(png(pixels, PRINT_DPI))
    write_figure(plot_cka(result())[0], tmp_path / "figure.png")
    width, height = plot_cka(result())[0].get_size_inches()
    for name in ("pixels.png", "figure.png"):
        with Image.open(tmp_path / name) as image:
            assert image.size == pytest.approx((200 * width, 200 * height), abs=1)
            assert image.info["dpi"] == pytest.approx((200, 200), abs=0.01)


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".PDF", b"%PDF"), (".svg", b"<?xml")])
def test_save_writes_the_heatmap_of_a_result(tmp_path, ending, start):
    result().save(tmp_path / f"new{ending}")
    assert (tmp_path / f"new{ending}").read_bytes().startswith(start)


def test_save_names_what_to_call_for_other_pictures(tmp_path):
    with pytest.raises(ValueError, match=r"'a\.eps': for other pictures, call plot\(\)\[0\]\.savefig"):
        result().save(tmp_path / "a.eps")
    assert not (tmp_path / "a.eps").exists()
    result().save(tmp_path / "a")
    assert CKAResult.load(tmp_path / "a").layers == result().layers
