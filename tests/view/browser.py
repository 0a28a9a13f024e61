"""A real browser, which LIGHTNING_CKA_REQUIRE_BROWSER demands."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager

import pytest

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
)


def found(*names):
    return next(filter(None, map(shutil.which, names)), None)


@contextmanager
def chromium(folder):
    """Yield a headless Chromium with a profile in a folder. Without one, the test is skipped, or fails if demanded."""
    program, driver_program = found("chromium", "chromium-browser", "google-chrome"), found("chromedriver")
    if program is None or driver_program is None:
        missing = "Chromium" if program is None else "chromedriver"
        leave = pytest.fail if os.environ.get("LIGHTNING_CKA_REQUIRE_BROWSER") else pytest.skip
        leave(f"{missing} is not installed (Debian: apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (*ARGUMENTS, f"--user-data-dir={folder}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver_program))
    try:
        yield browser
    finally:
        browser.quit()
