"""Rows that are about to be shown or reckoned with: of the right types, but from anywhere.

A part's checksum says that it is as it was written, not by whom. What no run of codingbench can
have written is refused here in one line, so that no formula or table has to reckon with it.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from codingbench.errors import StoreError
from codingbench.schema import COORDINATES, COUNTS, TABLES
from codingbench.store.folder import Store

if TYPE_CHECKING:
    import pandas as pd

REQUIRED: Final = frozenset(
    {*COORDINATES, "images", "num_classes", "step", "epoch", "layer", "kind"}
)
"""Columns without which a row cannot be named or counted; of others the value may be unknown."""

LEAST: Final = {
    **dict.fromkeys(("images", "num_classes", "num_steps", "step", "epoch", "epochs"), 1),
    **dict.fromkeys(("batch_size", "micro_batch", "train_samples", "test_samples"), 1),
    **dict.fromkeys(("spikes", "neurons", "parameters", "executions", "seed", *COUNTS), 0),
    **dict.fromkeys(("input_values", "input_nonzero", "code_values", "code_nonzero"), 0),
}
"""The least value of the columns that formulas divide by, or take roots or logarithms of."""

MOST: Final = 2**62
"""Sums of a few larger whole numbers are none of theirs."""

_CONTROL: Final = r"[\p{C}]"  # a terminal would obey them
_ANY: Final = ("train_loss", "val_loss")  # infinite where a training diverged
_LINES: Final = ("traceback",)  # of many lines; escaped where it is printed


def read(store: Store, table: str, keys: Collection[str] | None = None) -> "pd.DataFrame":
    """:meth:`codingbench.store.folder.Store.read`, but for rows that cannot be a result.

    Raises:
        StoreError: as there; or a value is missing, below what it counts, or a text with control
            characters. The message names the table and the column.
    """
    rows = store.read_table(table, keys)
    for field in TABLES[table]:
        if wrong := _wrong(field, rows[field.name]):
            where = f"{str(store.folder)!r}, table {table!r}"
            raise StoreError(f"{where}: column {field.name!r} {wrong}")
    frame: pd.DataFrame = rows.to_pandas()
    return frame


def _wrong(field: pa.Field, values: pa.ChunkedArray) -> str | None:
    """What no run writes into the column, if there is such a value."""
    import pyarrow.compute as pc

    if values.null_count and field.name in REQUIRED:
        return "has no value in some row"
    if pa.types.is_string(field.type) and field.name not in _LINES:
        texts = values.unique()
        odd = texts.filter(pc.fill_null(pc.match_substring_regex(texts, _CONTROL), False))
        return f"has control characters: {odd[0].as_py()[:40]!r}" if len(odd) else None
    is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    if not is_number or field.name in _ANY:
        return None
    if field.name in COUNTS and pc.any(pc.is_nan(values)).as_py():
        return "has NaN, expected a count"
    low, high = pc.min_max(values).as_py().values()
    least = LEAST.get(field.name, -MOST)
    # neither without rows, nor where all are NaN
    if low is not None and low == low and not least <= low <= high <= MOST:
        return f"has {low} to {high}, expected from {least} to {MOST}"
    return None
