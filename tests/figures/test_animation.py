"""A run as an animated GIF."""

import numpy as np
import pytest
from lightning_cka import plot_cka
from lightning_cka.compare.flags import Flag
from lightning_cka.figures.animation import write_animation, write_gif
from lightning_cka.figures.pictures import PRINT_DPI, png, render
from PIL import Image
from synthetic_results import result, with_flags


def frames(path):
    with Image.open(path) as image:
        for place in range(image.n_frames):
            image.seek(place)
            yield image.convert("RGB"), image.info["duration"]


def test_an_animation_has_a_frame_for_each_result(tmp_path):
    results = [result(3, 3, epoch=epoch, step=10 * epoch) for epoch in range(4)]
    results[2] = with_flags(results[2], Flag("layer1", "standard_error", 0.2, 0.05, ()))
    write_animation(results, tmp_path / "new" / "a.gif", seconds=0.2)
    found = list(frames(tmp_path / "new" / "a.gif"))
    assert [duration for _, duration in found] == [200, 200, 200, 800]
    assert len({image.size for image, _ in found}) == 1
    expected = render(plot_cka(results[2])[0])
    assert found[2][0].size == expected.shape[1::-1]
    # A GIF has 256 colours.
    assert np.abs(np.asarray(found[2][0]).astype(int) - expected).mean() < 3
    # Titles differ, and the notes on flags of the frame before are gone.
    assert np.abs(np.asarray(found[0][0]).astype(int) - np.asarray(found[1][0])).max() > 100
    assert (np.asarray(found[3][0])[-20:] == 255).all()


@pytest.fixture
def small_pictures(tmp_path):
    """Files of nine pictures with one colour each, instead of heatmaps."""
    paths = [tmp_path / f"{place}.png" for place in range(9)]
    for place, path in enumerate(paths):
        Image.fromarray(np.full((8, 8, 3), 20 * place, dtype=np.uint8)).save(path)  # As older versions wrote them.
    return paths


def test_long_runs_are_thinned(tmp_path, small_pictures):
    results = [result(2, 2, epoch=epoch) for epoch in range(9)]
    write_animation(results, tmp_path / "a.gif", pictures=small_pictures, max_frames=4)
    assert [np.asarray(image).mean() for image, _ in frames(tmp_path / "a.gif")] == [0, 60, 100, 160]
    write_animation(results[:1], tmp_path / "a.gif", pictures=small_pictures)
    assert len(list(frames(tmp_path / "a.gif"))) == 1


def test_an_animation_needs_a_result_and_a_duration(tmp_path):
    with pytest.raises(ValueError, match="there is no result to animate"):
        write_animation([], tmp_path / "a.gif")
    with pytest.raises(ValueError, match=r"seconds must be from 0\.01 to 100, but got 0"):
        write_animation([result()], tmp_path / "a.gif", seconds=0)


def test_frames_from_files_for_print_have_the_resolution_of_frames_that_are_drawn(tmp_path):
    results = [result(3, 3, epoch=epoch) for epoch in range(2)]
    (tmp_path / "0.png").write_bytes(png(render(plot_cka(results[0])[0], PRINT_DPI), PRINT_DPI))
    write_animation(results, tmp_path / "a.gif", pictures=[tmp_path / "0.png", tmp_path / "missing.png"])
    (first, _), (second, _) = frames(tmp_path / "a.gif")
    expected = render(plot_cka(results[0])[0]).shape[1::-1]
    assert first.size == second.size == pytest.approx(expected, abs=1)
    pixels = np.asarray(first)[..., :3].astype(int)[: expected[1], : expected[0]]
    assert np.abs(pixels - render(plot_cka(results[0])[0])[: pixels.shape[0], : pixels.shape[1]]).mean() < 8


def test_smaller_frames_are_filled_with_their_own_background(tmp_path):
    small, large = np.full((4, 4, 3), 30, np.uint8), np.full((8, 9, 3), 60, np.uint8)
    write_gif([small, large], tmp_path / "a.gif", 0.1)
    (first, _), (second, _) = frames(tmp_path / "a.gif")
    assert (np.asarray(first) == 30).all()
    assert (np.asarray(second) == 60).all()
