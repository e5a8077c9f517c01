"""Paths that users write, made absolute once: where they enter the program."""

import os
import re
from pathlib import Path
from typing import Final

DATA_FOLDER: Final = "CODINGBENCH_DATA_DIR"
"""Environment variable with the folder of data sets, for where ``--data-dir`` is not given."""

_TYPED: Final[dict[str, str]] = {}
"""Absolute path -> the text that a user wrote for it in this process."""


def user_path(path: str | Path) -> Path:
    """Return the absolute path of what a user wrote; ``~`` is the home folder.

    Shells do not expand ``~`` in ``--results='~/r'`` or in a file, and a relative path would mean
    another place in a process that works in another folder.

    >>> user_path("~/r") == Path.home() / "r"
    True
    """
    absolute = os.path.abspath(os.path.expanduser(path))
    if str(path) != absolute:
        _TYPED.setdefault(absolute, str(path))
    return Path(absolute)


def as_typed(text: str) -> str:
    """Return a message whose absolute paths are written as the user wrote them.

    >>> place = user_path("a/b.toml")
    >>> as_typed(f"cannot read '{place}'")
    "cannot read 'a/b.toml'"
    """
    for absolute in sorted(_TYPED, key=len, reverse=True):
        whole = rf"(?<![\w/.-]){re.escape(absolute)}(?![\w-]|\.\w)"
        text = _TYPED[absolute].join(re.split(whole, text))
    return text


def data_folder(given: Path | None) -> Path | None:
    """Return the folder of data sets: the given one, else that of ``CODINGBENCH_DATA_DIR``."""
    if given is not None:
        return given
    text = os.environ.get(DATA_FOLDER, "")
    return user_path(text) if text.strip() else None
