"""A real browser that opens the page from disk. After each test, it must have no error and no request behind it."""

from __future__ import annotations

import os
import shutil

import pytest
from viewer import Viewer

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


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    """A headless Chromium. Without one, tests are skipped, or fail if LIGHTNING_CKA_REQUIRE_BROWSER is set."""
    program, driver_program = found("chromium", "chromium-browser", "google-chrome"), found("chromedriver")
    if program is None or driver_program is None:
        missing = "Chromium" if program is None else "chromedriver"
        leave = pytest.fail if os.environ.get("LIGHTNING_CKA_REQUIRE_BROWSER") else pytest.skip
        leave(f"{missing} is not installed (Debian: apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver_program))
    yield browser
    browser.quit()


@pytest.fixture
def viewer(driver, tmp_path):
    """Opens pages. At the end, there must be no error in the console and no request elsewhere."""
    opened = Viewer(driver, tmp_path)
    yield opened
    opened.check_quiet()
