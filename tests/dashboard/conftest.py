"""One world of runs, one page of it and one browser for all tests of a module."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from dashboard_helpers import World, world
from playwright.sync_api import Browser, sync_playwright

from hydraprune.dashboard import write_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def page_file(made: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page([made.sweep], tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium: playwright downloads its own only where it is told to."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        why = f"none of {', '.join(BROWSERS)} is on the PATH, so nobody looked at the page"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()
