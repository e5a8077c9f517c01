"""``codingbench list cells``: the finished cells of a store, one line each."""

from typing import Any, Final

from rich.console import RenderableType

from codingbench.analysis.selection import EVERYTHING, Selection
from codingbench.runtime.formatting import records
from codingbench.store.folder import Store
from codingbench.views.finished import finished_cells
from codingbench.views.table import Column, neuron_column, rich_table, shown
from codingbench.views.writers import DOCUMENT_FORMATS, check_format, written_document

COLUMNS: Final = [
    Column("key", lambda row: row.key[:8], is_number=False, is_key=True),
    Column("data set", lambda row: row.dataset, is_number=False),
    Column("encoder", lambda row: row.encoder, is_number=False),
    Column("backbone", lambda row: row.backbone, is_number=False),
    neuron_column(),
    Column("T", lambda row: str(row.num_steps)),
    Column("recipe", lambda row: row.recipe, is_number=False),
    Column("epochs", lambda row: str(row.epochs)),
    Column("seed", lambda row: str(row.seed)),
    Column("accuracy %", lambda row: f"{100 * row.accuracy:.2f}"),
]
"""The beginning of the key, the coordinates and the accuracy of a row of table ``cells``."""


def present(
    store: Store, selection: Selection = EVERYTHING, form: str = "table"
) -> str | RenderableType:
    """Return the cells as JSON text (all columns), or for the format ``table`` to be printed.

    Raises:
        SpecError: no such format exists, or no cell is selected.
        StoreError: the store cannot be read, or has no finished cell.
    """
    check_format(form, DOCUMENT_FORMATS)
    cells = finished_cells(store, selection=selection).sort_values(
        ["dataset", "backbone", "neuron", "recipe", "encoder", "num_steps", "seed", "key"]
    )
    rows: list[Any] = list(cells.itertuples())
    return written_document(records(cells), lambda: rich_table(rows, shown(COLUMNS, rows)), form)
