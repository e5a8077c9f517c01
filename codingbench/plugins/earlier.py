"""Write the table of the digests that shipped plug-ins had before their syntax was hashed.

    python -m codingbench.plugins.earlier FILE.py ... > codingbench/plugins/shipped.toml

The files must be those of the version whose digests are to be kept, byte for byte, for example
those of a checkout of 0.7.0. A file of today with the same syntax then keeps its hash, and with it
the keys of its cells. A file whose syntax has changed is not found in the table, and gets a new
hash.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from codingbench.plugins.syntax import syntax_digest


def lines(files: Iterable[Path]) -> Iterator[str]:
    """Yield the lines of the table, one for each file."""
    yield "# Written by codingbench/plugins/earlier.py: SHA-256 of each file's syntax and bytes."
    for file in files:
        content = file.read_bytes()
        digests = syntax_digest(content).hex(), hashlib.sha256(content).hexdigest()
        yield f'"{file.parent.name}/{file.name}" = {{ syntax = "%s", bytes = "%s" }}' % digests


if __name__ == "__main__":
    print(*lines(map(Path, sys.argv[1:])), sep="\n")
