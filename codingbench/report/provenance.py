"""Where, when and with what the cells of a comparison were run, as a few lines to read."""

from collections.abc import Iterator
from typing import Any, Final

import pandas as pd

from codingbench.runtime.formatting import counted

SHOWN: Final = {
    "codingbench": "codingbench_version",
    "commit": "git_commit",
    "Python": "python_version",
    "torch": "torch_version",
    "snntorch": "snntorch_version",
    "CUDA": "cuda_version",
    "cuDNN": "cudnn_version",
    "device": "device",
    "device name": "device_name",
    "devices of a cell": "devices",
    "CPU threads": "threads",
    "neurons": "neuron_backend",
    "only deterministic kernels": "deterministic",
    "recipe (hash)": "recipe_hash",
    "backbone (hash of its code)": "backbone_code",
    "data (hash)": "dataset_fingerprint",
}
"""What the page calls it -> column of ``cells``."""

MOST_VALUES: Final = 6


def facts(cells: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Name and value of each fact; where cells differ, how many have which.

    Args:
        cells: the table ``cells``, of one comparison.
    """
    yield "cells", f"{len(cells):,}"
    finished = cells["finished_at"].dropna()
    if len(finished):
        yield "finished", f"{finished.min():%Y-%m-%d %H:%M} to {finished.max():%Y-%m-%d %H:%M} UTC"
    yield "training and measuring", f"{cells['wall_s'].sum() / 3600:.2f} hours in all"
    if changed := int(cells["git_dirty"].eq(True).sum()):
        yield "run from a checkout with changes", counted(changed, "cell")
    for name, column in SHOWN.items():
        if values := _values(cells[column]):
            yield name, values


def _values(column: "pd.Series[Any]") -> str:
    """The values, most frequent first; nothing if none is known."""
    # whole numbers among which some are not known are floats in pandas
    counts = column.dropna().convert_dtypes().astype(str).value_counts()
    if len(counts) == 1 and column.notna().all():
        return str(counts.index[0])
    shown = [
        f"{value} ({counted(count, 'cell')})" for value, count in counts.head(MOST_VALUES).items()
    ]
    more = len(counts) - len(shown)
    unknown = int(column.isna().sum()) if len(counts) else 0
    return "; ".join(
        shown
        + ([f"{more:,} more"] if more else [])
        + ([f"not known ({counted(unknown, 'cell')})"] if unknown else [])
    )
