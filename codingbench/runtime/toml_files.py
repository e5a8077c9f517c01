"""TOML files that users write: read, or refused in one line."""

import tomllib
from pathlib import Path
from typing import Any, Final

from codingbench.errors import SpecError

MOST_BYTES: Final = 2**20
"""A larger file is not read: settings are a page at most."""


def read_toml(path: Path, what: str) -> tuple[str, dict[str, Any]]:
    """The text of a file and what it says.

    Args:
        what: what the file is, for the message.

    Raises:
        SpecError: it cannot be read, is too large, is not TOML, or has numbers of so many digits,
            or brackets so deep, that they cannot be printed.
    """
    name = repr(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read the {what} {name}: {error}") from None
    if len(content) > MOST_BYTES:
        raise SpecError(f"the {what} {name} is too large: expected at most {MOST_BYTES:,} bytes")
    try:
        values = tomllib.loads(text)
        repr(values)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{what} {name} is not valid TOML: {error}") from None
    return text, values
