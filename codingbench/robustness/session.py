"""Many cells, one after another: which were asked for, how it goes on, which are refused."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from codingbench.errors import CodingbenchError, SpecError, printable
from codingbench.robustness.conditions import Condition, Plan
from codingbench.robustness.measure import Measurement
from codingbench.store.folder import Store
from codingbench.store.lookup import find

EVERY = "all"


def asked(store: Store, cells: Sequence[str]) -> list[str]:
    """The keys that ``cells`` begin, each once; of all finished cells for ``all``.

    Raises:
        SpecError: no such cell, or several; or ``all`` of none.
    """
    if list(cells) != [EVERY]:
        return list(dict.fromkeys(find(store, cell) for cell in cells))
    if keys := sorted(store.finished()):
        return keys
    raise SpecError(f"no finished cell in {str(store.folder)!r}; codingbench run adds some")


def measure_cells(
    store: Store,
    keys: Sequence[str],
    plan: Plan,
    device: str | None = None,
    data_dir: Path | None = None,
) -> list[str]:
    """Measure the cells, telling on stderr how it goes; the keys of those that were measured.

    A cell that cannot be measured is named with the reason, and the others go on.

    Raises:
        CodingbenchError: none of the cells can be measured; the reason of the first.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    per_cell = len(plan.conditions())
    task = bar.add_task("", total=len(keys) * per_cell)

    def listen(condition: Condition, accuracy: float) -> None:
        done = f"{condition.attack} {condition.strength:.3g}: {accuracy:.1%}"
        bar.update(task, advance=1, description=done)

    measurement = Measurement(store, plan, device, data_dir, listen)
    refused: dict[str, CodingbenchError] = {}
    with bar:
        for number, key in enumerate(keys):
            bar.update(task, completed=number * per_cell)
            try:
                measurement.measure(key)
            except CodingbenchError as error:
                refused[key] = error
    if len(refused) == len(keys):
        raise next(iter(refused.values()))
    for reason in refused.values():
        console.print(f"left out: {printable(str(reason))}", markup=False)
    return [key for key in keys if key not in refused]
