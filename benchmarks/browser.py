"""Debian's Chromium without a window, for tests and benchmarks of the page: no browser is downloaded."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# WebGL by the processor, as on a machine without a graphics card
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--enable-precise-memory-info",
    "--hide-scrollbars",
)


def find_missing() -> str:
    """Say what is missing to drive a browser; "" where all is there."""
    try:
        import selenium  # noqa: F401
    except ModuleNotFoundError:
        return "selenium is missing (extra `test`)"
    if not any(map(shutil.which, _BROWSERS)):
        return "no Chromium: apt-get install chromium chromium-driver"
    return "" if shutil.which("chromedriver") else "no driver of Chromium: apt-get install chromium-driver"


@contextmanager
def open_browser(folder: Path) -> Iterator[Any]:
    """A browser of 1366 x 768 pixels that puts downloads into a folder."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = next(path for path in map(shutil.which, _BROWSERS) if path)
    for option in _OPTIONS:
        options.add_argument(option)
    options.add_experimental_option("prefs", {"download.default_directory": str(folder)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # the driver of this machine: selenium would look for one elsewhere
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        driver.set_script_timeout(120)
        size = {"width": 1366, "height": 768, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        yield driver
    finally:
        driver.quit()
