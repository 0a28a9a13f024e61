"""PNG files that are encoded one after another: other programs read the pixels that were encoded."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning_cka import plot_cka
from lightning_cka.figures.pictures import PRINT_DPI, render
from lightning_cka.figures.png_encoder import PngEncoder
from PIL import Image
from synthetic_results import result


def decoded(content):
    with Image.open(io.BytesIO(content)) as image:
        image.load()  # It checks the checksums of all chunks.
        assert image.mode == "RGB"
        return np.asarray(image)


def random_pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20), st.integers(0, 3)), min_size=1, max_size=5))
def test_pictures_of_any_size_in_any_order_are_read_back(sizes):
    encoder = PngEncoder(200)
    for height, width, seed in sizes:
        pixels = random_pixels(height, width, seed)
        assert np.array_equal(decoded(encoder.encode(pixels)), pixels)


@pytest.mark.parametrize("line", [0, 7, 8, 15, 29])
def test_a_change_of_one_line_is_in_the_next_file(line):
    """Also one at the edge of a band, whose lower neighbour is stored as a difference from it."""
    encoder, first = PngEncoder(), random_pixels(30, 10)
    encoder.encode(first)
    second = first.copy()
    second[line, 4] += 1
    assert np.array_equal(decoded(encoder.encode(second)), second)
    assert np.array_equal(decoded(encoder.encode(first)), first)


def test_the_file_does_not_depend_on_the_last_picture():
    pictures = [random_pixels(30, 10), np.zeros((30, 10, 3), dtype=np.uint8), random_pixels(31, 10)]
    encoder = PngEncoder(100)
    assert [encoder.encode(each) for each in pictures] == [PngEncoder(100).encode(each) for each in pictures]


def test_dots_per_inch_are_named_or_not():
    for dpi in (None, 72, 200):
        with Image.open(io.BytesIO(PngEncoder(dpi).encode(random_pixels(3, 3)))) as image:
            assert image.info.get("dpi", (None, None))[0] == (None if dpi is None else pytest.approx(dpi, abs=0.02))


def test_files_of_figures_are_about_as_small_as_those_of_pillow():
    for size in (6, 30):
        pixels = render(plot_cka(result(size, size))[0], PRINT_DPI)
        other = io.BytesIO()
        Image.fromarray(pixels).save(other, "PNG")
        assert len(PngEncoder().encode(pixels)) < 1.1 * len(other.getvalue())


def test_it_keeps_one_picture():
    encoder = PngEncoder()
    for seed in range(4):
        encoder.encode(random_pixels(50, 100, seed))
    assert 50 * 100 * 3 < encoder.num_bytes < 3 * 50 * 100 * 3
