"""The browser that pages are tested in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextmanager
def running_browser() -> Iterator[Any]:
    """Playwright's handle of the installed Chromium; without one, the test is skipped."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=path,
            # a name that has to be looked up is of another host
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking",
                  "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"],
        )  # fmt: skip
        yield browser
        browser.close()
