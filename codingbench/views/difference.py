"""``codingbench diff``: the cells in which two stores differ."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from rich.console import Group, RenderableType
from rich.text import Text

from codingbench.runtime.formatting import counted, first_few
from codingbench.runtime.paths import as_typed
from codingbench.store.equality import Difference
from codingbench.store.folder import Store
from codingbench.views.cells import COLUMNS
from codingbench.views.table import rich_table
from codingbench.views.writers import DOCUMENT_FORMATS, check_format, written_document


def present(a: Store, b: Store, found: Difference, form: str = "table") -> str | RenderableType:
    """Return the cells that differ as JSON text, or for the format ``table`` to be printed.

    Raises:
        SpecError: no such format exists.
        StoreError: a store cannot be read.
    """
    check_format(form, DOCUMENT_FORMATS)
    content = {
        "first": as_typed(str(a.folder)),
        "second": as_typed(str(b.folder)),
        "first_only": list(found.first_only),
        "second_only": list(found.second_only),
        "equal": list(found.equal),
        "differing": {key: list(columns) for key, columns in found.differing.items()},
    }
    return written_document(content, lambda: Group(*_parts(a, b, found)), form)


def _parts(a: Store, b: Store, found: Difference) -> Iterator[RenderableType]:
    names = [as_typed(str(store.folder)) for store in (a, b)]
    for name, store, keys in (
        (names[0], a, found.first_only),
        (names[1], b, found.second_only),
    ):
        if keys:
            yield from _section(f"only in {name}", store.read("cells", keys))
    if found.differing:
        yield from _section("different results", a.read("cells", found.differing.keys()))
        for key, columns in found.differing.items():
            yield Text(f"{key}: {first_few(columns)} differ")
        yield Text()
    yield Text(
        f"{counted(len(found.equal), 'cell')} equal, {len(found.differing)} with different "
        f"results, {len(found.first_only)} only in {names[0]}, "
        f"{len(found.second_only)} only in {names[1]}"
    )


def _section(title: str, cells: pd.DataFrame) -> Iterator[RenderableType]:
    rows: list[Any] = list(cells.itertuples())
    yield from (Text(title, style="bold"), rich_table(rows, COLUMNS), Text())
