"""A headless Chromium for tests; without it they are skipped, with a line that names what is missing.

Files whose tests use it are called `test_browser.py`: `make test-browser` installs what they need and runs them alone.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REMEDY = "`make browser` installs it"
QUIET = (  # nothing is asked of the network
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-default-apps"),
)


@contextmanager
def chromium(*arguments: str) -> Iterator[Any]:
    """Playwright's browser for the block. Skips the test where Playwright or a Chromium is missing."""
    # Looked for here: a module that is skipped while it is imported stays half loaded, and breaks who imports it next.
    sync_api = pytest.importorskip("playwright.sync_api", reason=f"no Playwright: {REMEDY}", exc_type=ImportError)
    with sync_api.sync_playwright() as playwright:
        if not (path := executable(playwright)):
            pytest.skip(f"no Chromium: {REMEDY}")
        browser = playwright.chromium.launch(executable_path=path, args=[*QUIET, *arguments])
        try:
            yield browser
        finally:
            browser.close()


def executable(playwright: Any) -> str | None:
    """The machine's Chromium, or else the one that Playwright keeps."""
    named = [os.environ.get("OPD_BROWSER"), *map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))]
    return next((path for path in (*named, playwright.chromium.executable_path) if path and Path(path).exists()), None)
