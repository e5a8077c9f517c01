"""Measure the robustness of many cells, one after another."""

from collections.abc import Sequence
from pathlib import Path

from codingbench.errors import CodingbenchError, SpecError
from codingbench.robustness.conditions import Condition, Plan
from codingbench.robustness.measure import Measurement
from codingbench.store.absence import nothing_in, run_command
from codingbench.store.folder import Store
from codingbench.store.lookup import find

ALL = "all"


class RobustnessListener:
    """Receives the events of :func:`measure_cells`; methods that are not overridden do nothing."""

    def cell_started(self, number: int, key: str) -> None:
        """Called before a cell is measured; ``number`` counts from 0."""

    def measured(self, condition: Condition, accuracy: float) -> None:
        """Called after each condition with the accuracy, in [0, 1]."""

    def cell_left_out(self, key: str, reason: CodingbenchError) -> None:
        """Called at the end for each cell that could not be measured."""


def find_cells(store: Store, cells: Sequence[str]) -> list[str]:
    """Return the keys that begin with the entries of ``cells``, without repetition.

    Args:
        store: results folder.
        cells: keys or their first 4 or more characters; ``["all"]`` for all finished cells.

    Raises:
        SpecError: an entry fits no cell or several, or the store has no finished cell.
    """
    if list(cells) != [ALL]:
        return list(dict.fromkeys(find(store, cell) for cell in cells))
    if keys := sorted(store.finished()):
        return keys
    raise SpecError(f"{nothing_in(store.folder)}; {run_command(store.folder)}")


def measure_cells(
    store: Store,
    keys: Sequence[str],
    plan: Plan,
    device: str | None = None,
    data_dir: Path | None = None,
    listener: RobustnessListener | None = None,
) -> list[str]:
    """Measure the cells and return the keys of those that could be measured.

    A cell that cannot be measured is reported to the listener, and the others are still measured.

    Args:
        store: results folder with the cells and their weights; the rows are written into it.
        keys: keys of finished cells.
        plan: what is measured.
        device: device to measure on; None for the device that each cell was trained on.
        data_dir: folder of the data sets; None for the default.
        listener: receives the progress.

    Raises:
        CodingbenchError: none of the cells can be measured; the reason is that of the first.
    """
    listener = listener or RobustnessListener()
    measurement = Measurement(store, plan, device, data_dir, listener.measured)
    refused: dict[str, CodingbenchError] = {}
    for number, key in enumerate(keys):
        listener.cell_started(number, key)
        try:
            measurement.measure(key)
        except CodingbenchError as error:
            refused[key] = error
    if len(refused) == len(keys):
        raise next(iter(refused.values()))
    for key, reason in refused.items():
        listener.cell_left_out(key, reason)
    return [key for key in keys if key not in refused]
