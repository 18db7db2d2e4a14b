"""A headless Chromium, and where its pictures go: CI keeps them, and people look at them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

from dpdau_tests.support.project import PROJECT

PICTURES = PROJECT / ".artifacts"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def open_browser() -> Iterator[Browser]:
    """What DPDAU_CHROMIUM names, or `chromium`; without one the test is skipped, and fails in CI."""
    path = os.environ.get("DPDAU_CHROMIUM") or shutil.which("chromium")
    if not path:
        assert not os.environ.get("DPDAU_CI"), "CI must have Chromium"
        pytest.skip("no Chromium here: apt-get install chromium, or set DPDAU_CHROMIUM")
    PICTURES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()
