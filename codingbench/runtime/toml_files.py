"""TOML files that users write: read and checked, with errors of one line."""

import tomllib
from pathlib import Path
from typing import Any, Final

from codingbench.errors import SpecError

MOST_BYTES: Final = 2**20
"""Size limit; larger files are refused, because settings are a page at most."""


def read_toml(path: Path, what: str) -> tuple[str, dict[str, Any]]:
    """Return the text of a file, and its values.

    Args:
        what: the kind of file, for the message.

    Raises:
        SpecError: the file cannot be read, is too large, or is not TOML; or its numbers have too
            many digits, or its brackets are nested too deeply, to be printed.
    """
    name = repr(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")  # editors on Windows may write a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise SpecError(f"cannot read the {what} {name}: {reason}") from None
    if len(content) > MOST_BYTES:
        raise SpecError(f"the {what} {name} is too large: expected at most {MOST_BYTES:,} bytes")
    try:
        values = tomllib.loads(text)
        repr(values)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{what} {name} is not valid TOML: {error}") from None
    return text, values
