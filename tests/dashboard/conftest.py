"""A set of runs, its page and a browser, shared by all tests here. Tests leave the set as it is."""

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


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def page_file(made: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page([made.sweep], tmp_path_factory.mktemp("page") / "page.html")


@pytest.fixture(scope="module")  # an open playwright has an event loop, which other modules may not expect
def browser() -> Iterator[Browser]:
    """The system's Chromium; playwright's own would have to be downloaded."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        why = f"none of {', '.join(BROWSERS)} is on the PATH, so the page was not tested in a browser"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()
