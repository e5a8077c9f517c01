"""Validated reads: reject rows with values that no run of codingbench could have produced.

A correct checksum does not tell who wrote a file. Values are checked here once, so that formulas
and tables can rely on them.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from codingbench.errors import StoreError
from codingbench.schema import COORDINATES, COUNTS, TABLES
from codingbench.store import firing
from codingbench.store.folder import Store

if TYPE_CHECKING:
    import pandas as pd

REQUIRED: Final = frozenset(
    {*COORDINATES, "images", "num_classes", "step", "epoch", "layer", "kind"}
)
"""Columns that need a value in every row; in other columns a value can be unknown."""

LEAST: Final = {
    **dict.fromkeys(("images", "num_classes", "num_steps", "step", "epoch", "epochs"), 1),
    "code_channels": 0,
    **dict.fromkeys(("batch_size", "micro_batch", "train_samples", "test_samples"), 1),
    **dict.fromkeys(("spikes", "neurons", "parameters", "executions", "seed", *COUNTS), 0),
    **dict.fromkeys(("input_values", "input_nonzero", "code_values", "code_nonzero"), 0),
    **dict.fromkeys(("encoder_spikes", "encoder_neurons"), 0),
}
"""Column -> smallest allowed value. Formulas divide by these or take their roots or logarithms."""

MOST: Final = 2**62
"""Largest allowed number. The sum of a few larger integers would overflow."""

_CONTROL: Final = r"[\p{C}]"  # control characters, which could manipulate a terminal
_UNBOUNDED: Final = ("train_loss", "val_loss")  # infinite or NaN if training diverged
_MULTILINE: Final = ("traceback",)  # escaped where it is printed


def read(store: Store, table: str, keys: Collection[str] | None = None) -> "pd.DataFrame":
    """Read rows as :meth:`codingbench.store.folder.Store.read` does, and validate their values.

    The firing rates of older parts get the base of today (:mod:`codingbench.store.firing`). They
    are null if the store was handed on without its table ``layers``.

    Raises:
        StoreError: a part cannot be read; or a value is missing or out of range, or a text has
            control characters. The message names the table and the column.
    """
    frame = _validated(store, table, keys)
    return _rebased(store, frame) if table in ("cells", "steps") else frame


def _rebased(store: Store, rows: "pd.DataFrame") -> "pd.DataFrame":
    """Return rows of ``cells`` or ``steps`` in which all firing rates have the same base."""
    import pandas as pd

    wanted = sorted(firing.older(rows))
    if not wanted:
        return rows
    pieces = [rows[~rows["key"].isin(set(wanted))]]
    for start in range(0, len(wanted), firing.MOST_CELLS):
        keys = set(wanted[start : start + firing.MOST_CELLS])
        layers = _validated(store, "layers", keys)
        pieces.append(firing.rebased(rows[rows["key"].isin(keys)], layers))
    together = pd.concat([piece for piece in pieces if len(piece)]).loc[rows.index]
    counted = [name for name in firing.SUMS if together[name].notna().all()]
    return together.astype(dict.fromkeys(counted, "int64"))


def _validated(store: Store, table: str, keys: Collection[str] | None) -> "pd.DataFrame":
    """Read rows and reject those with values that no run could have written."""
    rows = store.read_table(table, keys)
    for field in TABLES[table]:
        if reason := _reason_to_reject(field, rows[field.name]):
            where = f"{str(store.folder)!r}, table {table!r}"
            raise StoreError(f"{where}: column {field.name!r} {reason}")
    frame: pd.DataFrame = rows.to_pandas()
    return frame


def _reason_to_reject(field: pa.Field, values: pa.ChunkedArray) -> str | None:
    """Describe a value that no run writes into the column, or return None if there is none."""
    import pyarrow.compute as pc

    if values.null_count and field.name in REQUIRED:
        return "has a row without a value"
    if pa.types.is_string(field.type) and field.name not in _MULTILINE:
        texts = values.unique()
        odd = texts.filter(pc.fill_null(pc.match_substring_regex(texts, _CONTROL), False))
        return f"has control characters: {odd[0].as_py()[:40]!r}" if len(odd) else None
    is_number = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)
    if not is_number or field.name in _UNBOUNDED:
        return None
    if field.name in COUNTS and pc.any(pc.is_nan(values)).as_py():
        return "has NaN, expected a count"
    low, high = pc.min_max(values).as_py().values()
    least = LEAST.get(field.name, -MOST)
    # low is None without rows, and NaN if all values are
    if low is not None and low == low and not least <= low <= high <= MOST:
        return f"has {low} to {high}, expected from {least} to {MOST}"
    return None
