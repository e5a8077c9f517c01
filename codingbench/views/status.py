"""The state of the cells of a store, once or renewed in place."""

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from codingbench.analysis.status import STATES
from codingbench.registry import DEFAULT_NEURON
from codingbench.runtime.formatting import counted, duration
from codingbench.views.table import NONE, Column, or_none, rich_table
from codingbench.views.writers import written_document

_MOST: Final = 8  # cells of a state that are listed; the others are counted
_PAUSE_S: Final = 1.0
_STYLES: Final = {"running": "bold green", "stopped": "yellow", "failed": "red"}

_ENCODER: Final = Column("encoder", lambda row: _text(row.encoder), is_number=False, is_key=True)
_NAMES: Final = {
    "dataset": Column("data set", lambda row: _text(row.dataset), is_number=False),
    "recipe": Column("recipe", lambda row: _text(row.recipe), is_number=False),
    "backbone": Column("backbone", lambda row: _text(row.backbone), is_number=False),
    "neuron": Column("neuron", lambda row: _text(row.neuron), is_number=False),
    "num_steps": Column("T", lambda row: or_none(row.num_steps, "{:.0f}".format), is_key=True),
}
_SEED: Final = Column("seed", lambda row: or_none(row.seed, "{:.0f}".format), is_key=True)
_LEFT: Final = Column("left", lambda row: or_none(row.left_s, duration))
_COLUMNS: Final = {
    "running": (
        Column("epoch", lambda row: _epoch(row)),
        Column("loss", lambda row: or_none(row.loss, "{:.3f}".format)),
        Column("images/s", lambda row: or_none(row.images_per_s, "{:,.0f}".format)),
        _LEFT,
    ),
    "stopped": (Column("epoch", lambda row: _epoch(row)), _LEFT),
    "failed": (Column("reason", lambda row: _text(row.reason), is_number=False, is_prose=True),),
}
"""The columns behind the names of the cells, by state; the other states are only counted."""


def present(frame: pd.DataFrame, form: str = "table") -> str | RenderableType:
    """Return the states of ``analysis.status`` for the terminal, or as ``json``."""
    return written_document(frame, lambda: render(frame), form)


def render(frame: pd.DataFrame) -> Group:
    """Return the numbers of cells, and tables of those that are running, stopped or failed."""
    parts: list[RenderableType] = [_summary(frame)]
    if frame["neuron"].fillna(DEFAULT_NEURON).eq(DEFAULT_NEURON).all():
        frame = frame.assign(neuron=None)  # nothing to tell
    hidden = [name for name in _NAMES if frame[name].isna().all()]
    shared = [name for name in _NAMES if frame[name].nunique() == 1]
    if conditions := ", ".join(_condition(name, frame[name].dropna().iloc[0]) for name in shared):
        parts.append(Text(conditions, style="dim"))
    names = [
        _ENCODER,
        *(column for name, column in _NAMES.items() if name not in [*shared, *hidden]),
        _SEED,
    ]
    for state, columns in _COLUMNS.items():
        parts += _table(frame[frame["state"] == state], state, [*names, *columns])
    return Group(*parts)


def watch(frames: Callable[[], pd.DataFrame], console: Console) -> None:
    """Show the states until no cell is left or Ctrl-C is pressed, renewed every second."""
    frame = frames()
    with Live(render(frame), console=console, auto_refresh=False) as live:
        try:
            while frame["state"].isin(["running", "stopped", "waiting"]).any():
                time.sleep(_PAUSE_S)
                frame = frames()
                live.update(render(frame), refresh=True)
        except KeyboardInterrupt:
            return


def _summary(frame: pd.DataFrame) -> Text:
    counts = frame["state"].value_counts()
    ended = int(counts.get("done", 0))
    parts = [f"{ended:,} of {counted(len(frame), 'cell')} done"]
    parts += [f"{counts[state]:,} {state}" for state in STATES[:-1] if counts.get(state, 0)]
    left = frame.loc[frame["state"].isin(["running", "stopped", "waiting"]), "left_s"].astype(float)
    if counts.get("running", 0) and left.notna().all():
        parts.append(f"about {duration(left.sum() / counts['running'])} left")
    return Text(", ".join(parts), style="bold")


def _table(rows: pd.DataFrame, state: str, columns: list[Column]) -> Iterator[RenderableType]:
    if rows.empty:
        return
    yield Text()
    yield Text(state, style=_STYLES[state])
    yield rich_table(rows.head(_MOST).itertuples(), columns, gap=1)
    if (more := len(rows) - _MOST) > 0:
        yield Text(f"{more:,} more; --format json has all", style="dim")


def _condition(name: str, value: Any) -> str:
    if name == "num_steps":
        return f"T={value:.0f}"
    return str(value) if name == "dataset" else f"{name} {value}"


def _text(value: Any) -> str:
    return or_none(value, str)


def _epoch(row: Any) -> str:
    if row.phase == "measuring":
        return "test"
    if pd.isna(row.epoch) or not row.epoch:
        return NONE
    return f"{row.epoch:.0f}/{row.epochs:.0f}"
