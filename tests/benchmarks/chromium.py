"""The installed Chrome or Chromium, and its options in tests and benchmarks."""

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
"""Switches off the sandbox, which root cannot use, and requests by the browser itself."""


def find() -> str | None:
    """Return the path in BROWSER_PATH, else the first known browser on the path, else None."""
    named = os.environ.get("BROWSER_PATH")
    return named or next(filter(None, map(shutil.which, NAMES)), None)
