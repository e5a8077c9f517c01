"""Summarise when, where and with which versions the cells of a comparison were run."""

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
    "devices per cell": "devices",
    "CPU threads": "threads",
    "neurons": "neuron_backend",
    "only deterministic kernels": "deterministic",
    "recipe (hash)": "recipe_hash",
    "evaluated weights": "evaluated_weights",
    "backbone (hash of its code)": "backbone_code",
    "neuron (hash of its code)": "neuron_code",
    "data (hash)": "dataset_fingerprint",
}
"""Name in the page -> column of ``cells``."""

MOST_VALUES: Final = 6


def facts(cells: pd.DataFrame) -> Iterator[tuple[str, str]]:
    """Yield the name and value of each fact; where cells differ, how many have which value.

    Args:
        cells: the rows of the table ``cells`` of one comparison.
    """
    yield "cells", f"{len(cells):,}"
    finished = cells["finished_at"].dropna()
    if len(finished):
        yield "finished", f"{finished.min():%Y-%m-%d %H:%M} to {finished.max():%Y-%m-%d %H:%M} UTC"
    yield "training and measuring", f"{cells['wall_s'].sum() / 3600:.2f} hours in total"
    if changed := int(cells["git_dirty"].eq(True).sum()):
        yield "run from a checkout with uncommitted changes", counted(changed, "cell")
    for name, column in SHOWN.items():
        if values := _values(cells[column]):
            yield name, values


def _values(column: "pd.Series[Any]") -> str:
    """Return the values, most frequent first, or an empty string if all are unknown."""
    # pandas stores whole numbers as floats where some are missing
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
        + ([f"and {more:,} more values"] if more else [])
        + ([f"unknown ({counted(unknown, 'cell')})"] if unknown else [])
    )
