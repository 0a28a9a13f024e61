"""The samples of a run as an animated GIF."""

import numpy as np
import pytest
from gram_banks import make_bank
from lightning_cka.compare.sample_maps import sample_maps
from lightning_cka.figures.pictures import render
from lightning_cka.figures.samples import axis_limits, draw_sample_maps
from lightning_cka.plotting import animate_samples
from PIL import Image

BANKS = [make_bank(step=0), *(make_bank(variant, epoch=variant, step=variant) for variant in (1, 2, 3))]
LABELS = {sample: sample % 3 for sample in range(300)}


def frames(path):
    with Image.open(path) as image:
        for place in range(image.n_frames):
            image.seek(place)
            yield np.asarray(image.convert("RGB")).astype(int), image.info["duration"]


def test_each_moment_has_a_frame_with_the_limits_of_all(tmp_path):
    animate_samples(BANKS, None, tmp_path / "new" / "a.gif", LABELS, marked=[3], seconds=0.2)
    found = list(frames(tmp_path / "new" / "a.gif"))
    assert [duration for _, duration in found] == [200, 200, 200, 800]
    maps = sample_maps(BANKS, None)
    limits = axis_limits(maps)
    for place, (frame, _) in enumerate(found):
        figure, grid = draw_sample_maps(maps.at(place), LABELS, limits=limits)
        assert [ax.get_xlim() for ax in grid] == [(-limit, limit) for limit in limits.values()]
        assert (
            figure.texts[1].get_text()
            == ("Net, before training", "Net, epoch 1", "Net, epoch 2", "Net, epoch 3")[place]
        )
        drawn = render(figure)
        assert frame.shape[0] == drawn.shape[0]  # The legend of marks makes the frame wider.
        assert np.abs(frame[:, : drawn.shape[1] // 2] - drawn[:, : drawn.shape[1] // 2]).mean() < 5
    assert np.abs(found[0][0] - found[1][0]).max() > 100


def test_long_runs_are_thinned_and_epochs_are_chosen(tmp_path):
    path = tmp_path / "a.gif"
    animate_samples(BANKS, "a", path, max_frames=3)
    assert len(list(frames(path))) == 3
    animate_samples(BANKS, "a", path, epochs=["init", 3])
    assert len(list(frames(path))) == 2
    animate_samples(BANKS[:1], "a", path)
    assert len(list(frames(path))) == 1
    with pytest.raises(ValueError, match=r"seconds must be from 0\.01 to 100, but got 0"):
        animate_samples(BANKS, "a", path, seconds=0)
