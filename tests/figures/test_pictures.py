"""Pixels of a figure, and their file."""

import numpy as np
from figure_contents import lay_out
from lightning_cka import plot_cka
from lightning_cka.figures.pictures import render, write_picture
from PIL import Image
from synthetic_results import result


def test_pixels_are_those_in_the_file(tmp_path):
    figure, _ = plot_cka(result())
    pixels = render(figure)
    assert (pixels.shape, pixels.dtype) == ((*lay_out(figure)[::-1], 3), np.uint8)
    write_picture(tmp_path / "new" / "a.png", pixels)
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert np.array_equal(np.asarray(image), pixels)
