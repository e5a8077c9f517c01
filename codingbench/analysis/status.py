"""The state of every cell that a store knows: done, running, stopped, failed or waiting."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import pandas as pd

from codingbench.store.absence import check_has_results
from codingbench.store.folder import Store
from codingbench.store.plausible import read
from codingbench.store.progress import CellName, CellProgress, read_grids, read_progress

STATES: Final = ("running", "stopped", "failed", "waiting", "done")
"""``stopped``: partly trained, and no process is working on it."""

_NAME: Final = tuple(CellName.model_fields)
COLUMNS: Final = (
    "key",
    "state",
    *_NAME,
    "phase",
    "epoch",
    "done",
    "loss",
    "train_accuracy",
    "images_per_s",
    "left_s",
    "accuracy",
    "wall_s",
    "reason",
    "updated_at",
)
"""Columns of :func:`status`; ``wall_s`` is the time of a finished training, all sessions of it."""


def status(
    store: Store, cells: Mapping[str, CellName] | None = None, now: datetime | None = None
) -> pd.DataFrame:
    """Return one row per cell, by state in the order of ``STATES``; nothing is locked or written.

    ``left_s`` of a running cell follows from its speed; of one that is stopped or waiting, from
    finished cells of the same coding, network and T, or else from all finished ones.

    Args:
        store: the results folder.
        cells: names of the cells to show, by key; None: all that are in the store, and those of
            the grids that runs have begun there and not completed.
        now: the time against which the age of a progress is measured; None: the present.

    Raises:
        StoreError: the folder holds no results and no run has begun there, or a part is damaged.
    """
    known = {key: name for grid in read_grids(store.folder) for key, name in grid.items()}
    progress = read_progress(store.folder)
    if not (known or progress):
        check_has_results(store.folder)
    finished, failed = read(store, "cells"), read(store, "failures")
    rows = {
        **{key: _row(key, "waiting", name) for key, name in known.items()},
        **{row["key"]: row for row in _of_table(failed, "failed")},
        **_begun(progress, known, set(failed["key"]), now or datetime.now(UTC)),
        **{row["key"]: row for row in _of_table(finished, "done")},
    }
    if cells is not None:
        rows = {key: rows.get(key, _row(key, "waiting", name)) for key, name in cells.items()}
    frame = pd.DataFrame(list(rows.values()), columns=list(COLUMNS))
    frame["updated_at"] = pd.to_datetime(frame["updated_at"], utc=True)
    frame["left_s"] = frame["left_s"].fillna(_expected_s(frame))
    order = frame["state"].map(STATES.index)
    return frame.iloc[order.argsort(kind="stable")].reset_index(drop=True)


def _row(key: str, state: str, name: CellName | None, **values: Any) -> dict[str, Any]:
    return {"key": key, "state": state, **(dict(name) if name else {}), **values}


def _of_table(table: pd.DataFrame, state: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of finished or failed cells."""
    renamed = {"train_wall_s": "wall_s", "finished_at": "updated_at", "failed_at": "updated_at"}
    table = table.drop(columns="wall_s", errors="ignore").rename(columns=renamed)
    shown = [name for name in COLUMNS if name in table]
    for row in table[shown].to_dict("records"):
        yield {**{str(name): value for name, value in row.items()}, "state": state}


def _begun(
    progress: Mapping[str, CellProgress | None],
    known: Mapping[str, CellName],
    failed: set[str],
    now: datetime,
) -> dict[str, dict[str, Any]]:
    """Return the rows of running and stopped cells; one that failed is shown if it runs again."""
    rows = {}
    for key, found in progress.items():
        is_running = found is not None and found.is_running(now)
        if key in failed and not is_running:
            continue
        state = "running" if is_running else "stopped"
        values = found.model_dump(include=set(COLUMNS) - {"key", "state"}) if found else {}
        rows[key] = _row(key, state, found.name if found else known.get(key), **values)
        if not is_running:
            rows[key]["left_s"] = None
    return rows


def _expected_s(frame: pd.DataFrame) -> pd.Series:
    """Return the expected seconds of cells that are stopped or waiting, NaN for the others."""
    kind = ["dataset", "encoder", "backbone", "neuron", "num_steps", "recipe", "epochs"]
    walls = frame.assign(wall_s=frame["wall_s"].astype(float))
    same = walls.groupby(kind)["wall_s"].transform("mean")
    whole = same.fillna(walls["wall_s"].mean())
    rest = 1 - frame["done"].astype(float).fillna(0.0)
    return (whole * rest).where(frame["state"].isin(["stopped", "waiting"]))
