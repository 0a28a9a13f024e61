"""Make ``view.png``: train the digits example, and take a picture of its report in headless Chromium.

This needs Chromium with its driver (Debian: apt-get install chromium chromium-driver) and ``pip install -e ".[test]"``.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.wait import WebDriverWait

HERE = Path(__file__).parent
SIZE = (1200, 800)
STATE = "#row=fc2&column=fc2&at=epoch+8%2C+step+134"
"""The chosen layer and the moment, as in links of the view."""

CELL = (4, 3)
"""Row and column of the cell that has the tooltip, counted from the lower left."""

HOVER = """const [row, column] = arguments;
const canvas = document.querySelector('.maps .grid canvas');
const box = canvas.getBoundingClientRect();
const clientX = box.left + (column + 0.5) / canvas.width * box.width;
const clientY = box.bottom - (row + 0.5) / canvas.height * box.height;
canvas.dispatchEvent(new PointerEvent('pointermove', {clientX, clientY}));"""
"""A mouse that is moved by the driver would leave the cell when the picture is taken."""


def screenshot(page):
    """Return a picture of a page, with the mouse on one cell of the heatmap."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--hide-scrollbars", "--force-color-profile=srgb"):
        options.add_argument(argument)
    with webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver"))) as browser:
        width, height = SIZE
        metrics = {"width": width, "height": height, "deviceScaleFactor": 2, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        browser.get(f"{page.resolve().as_uri()}{STATE}")
        WebDriverWait(browser, 20).until(
            lambda _: browser.execute_script("return document.querySelector('.curve svg')")
        )
        browser.execute_script(HOVER, *CELL)
        return Image.open(BytesIO(browser.get_screenshot_as_png())).convert("RGB")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", type=Path, help="a report of the digits example; default: train it")
    parser.add_argument("--output", type=Path, default=HERE / "view.png")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.page is None:
            command = [sys.executable, HERE.parent / "digits.py", "--output", f"{folder}/digits"]
            subprocess.run(command, check=True)
        picture = screenshot(args.page or Path(folder, "digits", "cka", "report.html"))
    picture.save(args.output, optimize=True)
    print(f"{args.output}: {picture.width} x {picture.height} pixels, {args.output.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
