"""Paths that users write, made absolute once: where they enter the program."""

import os
from pathlib import Path


def user_path(path: str | Path) -> Path:
    """Return the absolute path of what a user wrote; ``~`` is the home folder.

    Shells do not expand ``~`` in ``--results='~/r'`` or in a file, and a relative path would mean
    another place in a process that works in another folder.

    >>> user_path("~/r") == Path.home() / "r"
    True
    """
    return Path(os.path.abspath(os.path.expanduser(path)))
