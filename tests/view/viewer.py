"""`Viewer`: what a user does with the page in a browser."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from urllib.request import urlopen

from lightning_cka.view.page import write_page
from lightning_cka.view.payload import view_payload

OWN = ("file:", "data:", "blob:", "about:", "chrome:")


class Viewer:
    def __init__(self, driver, folder):
        self.driver = driver
        self.folder = folder
        self.console = []
        self.requests = []
        self.own = OWN
        self._logs()
        self.console, self.requests = [], []
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        self.cdp("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
        self.resize(1200, 900)
        self.scheme("light")

    def cdp(self, command, **values):
        return self.driver.execute_cdp_cmd(command, values)

    def resize(self, width, height, mobile=False):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def scheme(self, name):
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def run(self, script, *values):
        return self.driver.execute_script(script, *values)

    def open(self, runs, fragment="", **kwargs):
        """Write and open the page of some runs; ``runs`` may be one run."""
        is_one = all(isinstance(results, list) for results in runs.values())
        payload = view_payload({"run": runs} if is_one else runs, **kwargs)
        return self.open_payload(payload, fragment)

    def open_payload(self, payload, fragment=""):
        path = self.folder / "report.html"
        write_page(path, payload)
        return self.open_file(path, fragment)

    def open_file(self, path, fragment=""):
        self.driver.get("about:blank")  # Otherwise, another fragment would not load the page again.
        self.driver.get(f"{Path(path).resolve().as_uri()}{fragment}")
        self.wait("return document.querySelector('.grid canvas[aria-label], .problem, .cka-view.empty') !== null")
        return self

    def open_tab(self, address, seconds=60):
        """Open the tab of a TensorBoard, once it has events, and go into the tab's frame."""
        self.own = (*OWN, f"{address}/")
        end = time.monotonic() + seconds
        while not json.loads(urlopen(f"{address}/data/plugins_listing", timeout=60).read())["lightning_cka"]["enabled"]:
            assert time.monotonic() < end
            time.sleep(0.2)
        self.driver.get(f"{address}/#lightning_cka")
        self.wait("return document.querySelector('iframe') !== null", seconds=seconds)
        self.driver.switch_to.frame(self.element("iframe"))
        self.wait("return document.querySelector('.grid canvas[aria-label], .problem') !== null", seconds=seconds)
        return self

    def wait(self, script, *values, seconds=20):
        """Wait until a script returns something true, and return it."""
        end = time.monotonic() + seconds
        while not (found := self.run(script, *values)):
            assert time.monotonic() < end, script
            time.sleep(0.02)
        return found

    def texts(self, selector):
        shown = "[...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility())"
        return self.run(f"return {shown}.map(e => e.innerText)", selector)

    def text(self, selector):
        (found,) = self.texts(selector)
        return found

    def element(self, selector, place=0):
        return self.driver.find_elements("css selector", selector)[place]

    def choose(self, name, value):
        """Choose a value of a list by the list's label."""
        self.run(
            """const [name, value] = arguments;
            const labels = [...document.querySelectorAll('label.field')];
            const select = labels.find(l => l.firstChild.textContent === name).querySelector('select');
            select.value = [...select.options].find(o => o.text === value).value;
            select.dispatchEvent(new Event('change'));""",
            name,
            value,
        )
        self.drawn()

    def options(self, name):
        return self.run(
            """const labels = [...document.querySelectorAll('label.field')];
            const select = labels.find(l => l.firstChild.textContent === arguments[0]).querySelector('select');
            return [...select.options].map(o => o.text)""",
            name,
        )

    def filter(self, patterns):
        self.run(
            """const input = document.querySelector('input[type=search]'); input.value = arguments[0];
            input.dispatchEvent(new Event('input'));""",
            patterns,
        )
        self.drawn()

    def drawn(self):
        """Wait until the page has drawn. A busy browser may not draw at all for a while: then, wait two seconds."""
        self.driver.execute_async_script(
            """const done = arguments[0];
            setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 30);
            setTimeout(done, 2000);"""
        )

    def settle(self):
        """Wait until the page has drawn, and has put its state into the address."""
        self.driver.execute_async_script(
            "const done = arguments[0]; setTimeout(() => requestAnimationFrame(done), 350)"
        )

    def go(self, place):
        """Move the slider."""
        self.run(
            """const slider = document.querySelector('input[type=range]'); slider.value = arguments[0];
            slider.dispatchEvent(new Event('input'));""",
            place,
        )

    def cell_place(self, row, column, selector=".maps .grid", panel=0):
        """Return the middle of a cell in the window, after scrolling it into view."""
        return self.run(
            """const [row, column, selector, panel] = arguments;
            const canvas = document.querySelectorAll(selector)[panel].querySelector('canvas');
            canvas.scrollIntoView({block: 'center'});
            const box = canvas.getBoundingClientRect();
            const frame = window.frameElement?.getBoundingClientRect() ?? {left: 0, top: 0};
            return [frame.left + box.left + (column + 0.5) / canvas.width * box.width,
                    frame.top + box.bottom - (row + 0.5) / canvas.height * box.height];""",
            row,
            column,
            selector,
            panel,
        )

    def hover(self, row, column, **kwargs):
        """Move the mouse to a cell, and return the tooltip: texts by term. The flags are a list."""
        x, y = self.cell_place(row, column, **kwargs)
        self.cdp("Input.dispatchMouseEvent", type="mouseMoved", x=1, y=1)
        self.cdp("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        return self.tooltip()

    def click(self, row, column, **kwargs):
        x, y = self.cell_place(row, column, **kwargs)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.cdp("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.drawn()

    def tooltip(self):
        terms, texts = self.texts(".tooltip dt"), self.texts(".tooltip dd")
        found = {term: text for term, text in zip(terms, texts, strict=True) if term != "⚠ flag"}
        return found | {"flags": [text for term, text in zip(terms, texts, strict=True) if term == "⚠ flag"]}

    def labels(self, selector=".maps .grid"):
        """Return the texts along the axes."""
        return self.run(
            "return [...document.querySelector(arguments[0]).querySelectorAll('svg text')].map(t => t.textContent)",
            selector,
        )

    def pixels(self, selector=".maps .grid canvas"):
        """Return the colours of the cells, row by row from the top, as hexadecimal digits."""
        return self.run(
            """const canvas = document.querySelector(arguments[0]);
            const {data} = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
            const hex = i => [0, 1, 2].map(p => data[4 * i + p].toString(16).padStart(2, '0')).join('');
            return Array.from({length: data.length / 4}, (_, i) => hex(i));""",
            selector,
        )

    def saved(self, button):
        """Click a button that saves a file, and return the file's content."""
        for file in self.downloads.iterdir():
            file.unlink()
        self.run(
            "[...document.querySelectorAll('.exports button')].find(b => b.innerText === arguments[0]).click()", button
        )
        end = time.monotonic() + 20
        while True:
            # The browser makes an empty file first.
            files = [file for file in self.downloads.iterdir() if file.suffix == f".{button.lower()}"]
            if files and files[0].stat().st_size:
                return files[0].read_bytes()
            assert time.monotonic() < end
            time.sleep(0.05)

    def table(self):
        return list(csv.DictReader(io.StringIO(self.saved("CSV").decode())))

    def key(self, *keys, selector=None):
        from selenium.webdriver.common.action_chains import ActionChains

        if selector:
            self.run("document.querySelector(arguments[0]).focus({focusVisible: true})", selector)
        ActionChains(self.driver).send_keys(*keys).perform()

    def screenshot(self, path):
        self.driver.save_screenshot(str(path))

    def _logs(self):
        self.console += [entry for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent" and message["params"]["documentURL"].startswith(
                ("file:", "http://localhost")
            ):
                self.requests.append(message["params"]["request"]["url"])

    def check_quiet(self):
        self._logs()
        assert not self.console, self.console
        others = [address for address in self.requests if not address.startswith(self.own)]
        assert not others, others
