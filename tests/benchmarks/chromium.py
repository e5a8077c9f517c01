"""The Chrome or Chromium that is installed, and how tests and benchmarks start it."""

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")

QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
"""Without a sandbox, which root has none of; and without any request of the browser's own."""


def find() -> str | None:
    """Its path: what BROWSER_PATH names, else the first that is on the path."""
    named = os.environ.get("BROWSER_PATH")
    return named or next(filter(None, map(shutil.which, NAMES)), None)
