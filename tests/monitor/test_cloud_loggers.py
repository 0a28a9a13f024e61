"""What Comet and LitLogger get, recorded by classes with the signatures of comet_ml 3.58 and litlogger 2026.8."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from lightning_cka.figures.pictures import png
from lightning_cka.monitor.loggers import LoggerOutput
from lightning_cka.monitor.output_errors import OutputErrors
from lightning_cka.monitor.warn_once import WarnOnce
from PIL import Image

PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


class CometExperiment:
    def __init__(self):
        self.calls = []

    def log_image(
        self,
        image_data,
        name=None,
        overwrite=False,
        image_format="png",
        image_scale=1.0,
        image_shape=None,
        image_colormap=None,
        image_minmax=None,
        image_channels="last",
        copy_to_tmp=True,
        step=None,
        annotations=None,
        metadata=None,
    ):
        self.calls.append((name, np.asarray(image_data).tolist(), step))

    def log_text(self, text, step=None, metadata=None):
        self.calls.append((metadata["key"], text, step))

    def log_video(self, file, name=None, overwrite=False, format=None, step=None, epoch=None, metadata=None):  # noqa: A002
        self.calls.append((name, Path(file).read_bytes(), step))


class CometLogger:
    def __init__(self):
        self.experiment = CometExperiment()


class LitFile:
    def __init__(self, data, format="png", description=""):  # noqa: A002
        self.data = data


class LitImage(LitFile):
    def read(self):
        with Image.open(self.data) as image:
            return np.asarray(image).tolist()


class LitText:
    def __init__(self, content, description=""):
        self.content = content

    def read(self):
        return self.content


class LitVideo:
    def __init__(self, data, format="mp4", description="", fps=None):  # noqa: A002
        self.data = data

    def read(self):
        return Path(self.data).read_bytes()


class LitSeries:
    def __init__(self, key, calls):
        self.key, self.calls = key, calls

    def append(self, value, step=None):
        self.calls.append((self.key, value.read(), step))  # It uploads at once.


class LitExperiment:
    def __init__(self):
        self.calls = []

    def __getitem__(self, key):
        return LitSeries(key, self.calls)


class LitLogger:
    def __init__(self):
        self.experiment = LitExperiment()


@pytest.mark.parametrize("make", [CometLogger, LitLogger])
def test_pictures_texts_and_videos_arrive_with_key_and_step(tmp_path, monkeypatch, make):
    monkeypatch.setitem(sys.modules, "litlogger", SimpleNamespace(Image=LitImage, Text=LitText, Video=LitVideo))
    video = tmp_path / "evolution.gif"
    video.write_bytes(b"GIF89a")

    class OfTheUser(make):  # Loggers are recognised by the name of a base class.
        pass

    logger = OfTheUser()
    output = LoggerOutput([logger], OutputErrors(tmp_path, WarnOnce()))
    assert output.send("image", "cka/initial/heatmap", png(PIXELS), 7) == []
    assert output.send("text", "cka_diagnostics/warnings", "a text", 7) == []
    assert output.send("video", "cka/initial/evolution", video, 15) == []
    output.finish()
    assert logger.experiment.calls == [
        ("cka/initial/heatmap", PIXELS.tolist(), 7),
        ("cka_diagnostics/warnings", "a text", 7),
        ("cka/initial/evolution", b"GIF89a", 15),
    ]
