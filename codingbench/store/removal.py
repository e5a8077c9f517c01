"""Remove cells from a store, while other processes read and write it.

The row in ``cells`` goes first, so a cell is finished as a whole or not at all. A removal that is
interrupted leaves files that every reader ignores.
"""

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from codingbench.errors import StoreError
from codingbench.schema import LATER_TABLES
from codingbench.store.durable import remove_durably
from codingbench.store.equality import batches
from codingbench.store.folder import RESULT_TABLES, Store
from codingbench.store.layout import CHECKPOINTS, WEIGHTS

_ORDER: Final = ("failures", "cells", *RESULT_TABLES, *LATER_TABLES)


def remove(store: Store, keys: Sequence[str]) -> None:
    """Remove the rows, weights and checkpoints of cells; unknown keys are left out.

    Raises:
        StoreError: another process is running one of the cells, so that some are not removed; or
            the folder cannot be written.
    """
    for batch in batches(keys):
        with ExitStack() as claims:
            for key in batch:
                if not claims.enter_context(store.claim(key)):
                    raise StoreError(f"another process is running cell {key}: remove it later")
            with store.alone():
                _remove(store, batch)


def _remove(store: Store, keys: Sequence[str]) -> None:
    for table in _ORDER:
        # Compact parts first: a cell in both kinds of parts is read from its single part.
        store.take_out(keys, [table])
        for key in keys:
            remove_durably(store.single(table, key))
    for folder in (WEIGHTS, CHECKPOINTS):
        for key in keys:
            if (path := store.folder / folder / key).exists():
                shutil.rmtree(path)
