"""Finds the browser that the tests look with, and says what to do where there is none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PLACES = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",)
MISSING = (
    "No chromium was found, so the tests in a browser (tests/test_browser.py) were left out. "
    "`apt-get install chromium`, or Chrome, brings them; LEPTON_BROWSER=required makes them a must."
)
# Headless, and silent on the network.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def path() -> str | None:
    """The browser's path, or None."""
    found = [shutil.which(name) for name in NAMES] + [
        place for place in PLACES if Path(place).is_file()
    ]
    return next(filter(None, found), None)


def required() -> bool:
    """Whether a machine without a browser fails the tests."""
    return os.environ.get("LEPTON_BROWSER") == "required"


def left_out() -> bool:
    """Whether the tests in a browser are left out."""
    return path() is None and not required()
