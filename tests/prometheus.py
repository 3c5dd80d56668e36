"""Finds Debian's Prometheus, and says what to do where there is none."""

from __future__ import annotations

import os
import shutil

MISSING = (
    "No prometheus was found, so its rules (tests/test_prometheus.py) were left out. "
    "`apt-get install prometheus` brings it; LEPTON_PROMETHEUS=required makes it a must."
)


def left_out() -> bool:
    """Whether the tests with Prometheus are left out."""
    there = shutil.which("prometheus") and shutil.which("promtool")
    return not there and os.environ.get("LEPTON_PROMETHEUS") != "required"
