"""Results as data frames: what :func:`codingbench.run` and :func:`codingbench.load` return."""

from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import pandas as pd

from codingbench.analysis.bill import with_bill
from codingbench.analysis.break_even import with_ann
from codingbench.analysis.comparison import compare as compare_codings
from codingbench.analysis.comparison import labels
from codingbench.analysis.energy_ranks import with_every_convention
from codingbench.analysis.leaderboard import rows
from codingbench.analysis.published import with_published
from codingbench.api.arguments import checked
from codingbench.api.entries import Entry, grid_texts, temporary_folder
from codingbench.energy import DEFAULT_TECHNOLOGY, Pricing
from codingbench.errors import CodingbenchError, SpecError, StoreError, unknown
from codingbench.registry import ENCODERS
from codingbench.runtime.formatting import counted
from codingbench.runtime.paths import user_path
from codingbench.schema import COORDINATES
from codingbench.store.absence import check_has_results
from codingbench.store.correctness import read_predictions
from codingbench.store.folder import DEFAULT_FOLDER, Store
from codingbench.store.learning import read_cells
from codingbench.store.lookup import find
from codingbench.store.plausible import read

_FIRST_OF_LEADERBOARD: Final = (
    "rank",
    "encoder",
    "num_steps",
    "seeds",
    "accuracy",
    "accuracy_std",
    "accuracy_low",
    "accuracy_high",
    "firing_rate",
    "energy_uj",
)
_FIRST_OF_COMPARISON: Final = (
    "encoder_a",
    "encoder_b",
    "num_steps",
    "accuracy_delta",
    "delta_low",
    "delta_high",
    "p_holm",
    "verdict",
)

ALL: Final = "all"
"""The value of ``energy`` that stands for every shipped convention."""


class Results:
    """The cells of a results folder, or those of one grid.

    Frames are read from the folder, and their values checked, whenever they are accessed.
    ``codingbench.schema`` describes their columns. A notebook shows the leaderboard.

    Args:
        store: the results folder.
        keys: the cells that count; None: all of the folder.

    Example::

        import codingbench as cb
        cb.load("results").cells[["encoder", "num_steps", "accuracy"]]
    """

    def __init__(self, store: Store, keys: Collection[str] | None = None) -> None:
        self.store = store
        self._chosen = None if keys is None else frozenset(keys)

    @property
    def keys(self) -> frozenset[str]:
        """The keys of all cells, finished or failed; of a grid also those that never ran."""
        if self._chosen is not None:
            return self._chosen
        return frozenset(self.store.finished() | self.store.failed())

    @property
    def cells(self) -> pd.DataFrame:
        """The finished cells, one row each: coordinates, accuracies, counts and provenance."""
        return self._read("cells")

    @property
    def steps(self) -> pd.DataFrame:
        """One row per cell and time step: accuracy, firing rate and counts up to that step."""
        return self._read("steps")

    @property
    def layers(self) -> pd.DataFrame:
        """One row per cell, layer and time step: operations, rates and executions."""
        return self._read("layers")

    @property
    def epochs(self) -> pd.DataFrame:
        """One row per cell and epoch: losses, accuracies, learning rate and speed."""
        return self._read("epochs")

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per cell and test image: label, prediction and margin."""
        return self._read("predictions")

    @property
    def robustness(self) -> pd.DataFrame:
        """One row per cell and condition that ``codingbench robustness`` measured."""
        return self._read("robustness")

    @property
    def failures(self) -> pd.DataFrame:
        """The cells that failed and have not been finished since, with the reason."""
        return self._read("failures")

    @property
    def failed(self) -> int:
        """The number of cells that failed and have not been finished since."""
        return len(self._counted(self.store.failed()))

    def __len__(self) -> int:
        """Return the number of finished cells."""
        return len(self._counted(self.store.finished()))

    @checked
    def leaderboard(
        self,
        *,
        energy: str = "exact",
        sort: str = "accuracy",
        dataset: str | None = None,
        technology: str = DEFAULT_TECHNOLOGY,
        bill: bool = False,
        vs_ann: bool = False,
        published: bool = False,
    ) -> pd.DataFrame:
        """Rank the cells: one row per coding, T and group of equal conditions, seeds averaged.

        Columns and values are those of ``codingbench leaderboard --format json``, the most
        important columns first; accuracies are fractions, energies are in microjoules per image.

        Args:
            energy: a convention of :mod:`codingbench.energy`, ``file.py:variable``, or ``"all"``.
            sort: ``accuracy``, ``energy``, ``firing-rate``, ``parameters``, ``T`` or ``encoder``.
            dataset: only this data set.
            technology: costs of the operations, by name or as ``file.py:variable``.
            bill: add what stem, coding and backbone cost, and what the coding gains over direct.
            vs_ann: add the energies of the ANN and the quantised ANN of the same shape.
            published: add what papers report for the same data sets.

        Raises:
            SpecError: an argument is not valid.
            StoreError: no cell is finished, or a table is missing or damaged.

        Example::

            import codingbench as cb
            cb.load("results").leaderboard(energy="memory", sort="energy")
        """
        _check_one_view(
            {"bill": bill, "vs_ann": vs_ann, "published": published, "energy='all'": energy == ALL}
        )
        pricing = Pricing.of("exact" if energy == ALL else energy, technology)
        cells = self._finished()
        answers = partial(read_predictions, self.store)
        table = rows(cells, pricing, sort=sort, dataset=dataset, answers=answers)
        if published:
            return with_published(table)
        if energy == ALL:
            table = with_every_convention(table, cells, pricing.technology)
        if bill:
            table = with_bill(table, cells, self._layers_of(table), pricing)
        if vs_ann:
            table = with_ann(table, cells, self._layers_of(table), pricing)
        return _with_first(table, _FIRST_OF_LEADERBOARD)

    @checked
    def compare(
        self,
        *encoders: Entry,
        dataset: str | None = None,
        T: int | Sequence[int] | None = None,
        energy: str = "exact",
        technology: str = DEFAULT_TECHNOLOGY,
    ) -> pd.DataFrame:
        """Compare codings pair by pair over the same seeds and test images.

        Columns and values are those of ``codingbench compare --format json``: among them the
        difference of accuracy with its 95 % confidence interval, p-values with and without Holm's
        correction, and the verdict in one sentence.

        Args:
            encoders: two codings or more, by the name in the tables or as a class.
            dataset: only this data set.
            T: only these numbers of time steps.
            energy: a convention of :mod:`codingbench.energy` or ``file.py:variable``.
            technology: costs of the operations.

        Raises:
            SpecError: a coding has no finished cell, or no two have cells of equal conditions.
            StoreError: no cell is finished, or a table is missing or damaged.

        Example::

            import codingbench as cb
            cb.load("results").compare("direct", "gac", T=4)["verdict"]
        """
        from codingbench.views.comparison import view

        pricing = Pricing.of(energy, technology)
        cells = self._finished()
        names = labels(self._labels(encoders, cells), cells["encoder"].unique().tolist())
        cells = _only(cells, "num_steps", "T", [T] if isinstance(T, int) else T)
        cells = _only(cells, "dataset", "data set", None if dataset is None else [dataset])
        answers = partial(read_predictions, self.store)
        frame = view(compare_codings(cells, names, pricing, answers), pricing).frame
        return _with_first(frame, _FIRST_OF_COMPARISON)

    @checked
    def energy_uj(
        self, cell: str, convention: str = "exact", technology: str = DEFAULT_TECHNOLOGY
    ) -> float:
        """Return the energy of one cell in microjoules per image.

        Args:
            cell: its key, or the first four or more characters of it.
            convention: a convention of :mod:`codingbench.energy` or ``file.py:variable``.
            technology: costs of the operations, by name or as ``file.py:variable``.

        Raises:
            SpecError: no cell or several match, the cell failed, or there is no such convention or
                technology.
            StoreError: a table is damaged.

        Example::

            import codingbench as cb
            cb.load("results").energy_uj("50ef409e", "memory")
        """
        pricing, key = Pricing.of(convention, technology), find(self.store, cell)
        found = read(self.store, "cells", [key])
        if found.empty:
            raise SpecError(f"cell {key} failed: it has no energy")
        return float(pricing.energy_uj(found).iloc[0])

    @checked
    def energy(
        self, convention: str = "exact", technology: str = DEFAULT_TECHNOLOGY
    ) -> pd.DataFrame:
        """Price the counts of every finished cell.

        Args:
            convention: a convention of :mod:`codingbench.energy` or ``file.py:variable``.
            technology: costs of the operations, by name or as ``file.py:variable``.

        Returns:
            One row per cell: its coordinates, ``energy_uj`` (microjoules per image),
            ``energy_convention`` and ``technology``.

        Raises:
            SpecError: there is no such convention or technology.
            StoreError: a table is damaged.

        Example::

            import codingbench as cb
            cb.load("results").energy("memory")[["encoder", "energy_uj"]]
        """
        pricing, cells = Pricing.of(convention, technology), self.cells
        return cells[list(COORDINATES)].assign(
            energy_uj=pricing.energy_uj(cells),
            energy_convention=pricing.convention.name,
            technology=pricing.technology.name,
        )

    def __repr__(self) -> str:
        cells = counted(len(self), "finished cell")
        failed = f", {self.failed} failed" if self.failed else ""
        return f"Results({str(self.store.folder)!r}: {cells}{failed})"

    def _repr_html_(self) -> str:
        from codingbench.views.html import paragraph, to_html
        from codingbench.views.leaderboard import ranking

        try:
            table = to_html(ranking(self.leaderboard())) if len(self) else ""
            return paragraph(repr(self)) + table
        except CodingbenchError as error:  # a notebook must show a damaged store, too
            return paragraph(str(error))

    def _read(self, table: str) -> pd.DataFrame:
        return read(self.store, table, self._chosen)

    def _counted(self, keys: set[str]) -> set[str]:
        return keys if self._chosen is None else keys & self._chosen

    def _finished(self) -> pd.DataFrame:
        cells = read_cells(self.store, self._chosen)
        if cells.empty:
            failed = f"; {self.failed} failed" if self.failed else ""
            raise StoreError(f"no finished cell in {str(self.store.folder)!r}{failed}")
        return cells

    def _layers_of(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the table ``layers`` of the cells that a leaderboard averages."""
        keys = set(table["keys"].explode())
        layers = read(self.store, "layers", keys)
        if missing := keys - set(layers["key"]):
            raise StoreError(
                f"{str(self.store.folder)!r} lacks the table 'layers' for {len(missing)} of the "
                f"{len(keys)} cells shown"
            )
        return layers

    def _labels(self, encoders: Sequence[Entry], cells: pd.DataFrame) -> list[str]:
        """Return the encoders as the tables name them."""
        known = {*cells["encoder"]}
        with temporary_folder() as folder:
            return [
                entry
                if isinstance(entry, str) and entry in known
                else ENCODERS.resolve(grid_texts(ENCODERS, [entry], folder)[0]).label
                for entry in encoders
            ]


@checked
def load(results: str | Path = DEFAULT_FOLDER) -> Results:
    """Open a results folder for reading.

    Args:
        results: the folder, as ``codingbench run`` or :func:`codingbench.run` made it.

    Raises:
        StoreError: the folder does not exist, or holds no table of results.

    Example::

        import codingbench as cb
        cb.load("results").leaderboard()
    """
    folder = user_path(results)
    check_has_results(folder)
    return Results(Store(folder))


def leaderboard(results: str | Path = DEFAULT_FOLDER, **options: Any) -> pd.DataFrame:
    """Rank the finished cells of a results folder: ``load(results).leaderboard(**options)``."""
    return load(results).leaderboard(**options)


def compare(*encoders: Entry, results: str | Path = DEFAULT_FOLDER, **options: Any) -> pd.DataFrame:
    """Compare codings of a results folder: ``load(results).compare(*encoders, **options)``."""
    return load(results).compare(*encoders, **options)


def _with_first(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return the frame with those of these columns that it has at the left."""
    first = [name for name in names if name in frame]
    return frame[[*first, *frame.columns.difference(first, sort=False)]]


def _only(
    cells: pd.DataFrame, column: str, what: str, values: Sequence[object] | None
) -> pd.DataFrame:
    """Return the cells that have one of the values in a column."""
    for value in values or ():
        if value not in (present := cells[column].unique().tolist()):
            raise SpecError(unknown(f"{what} in these results", str(value), map(str, present)))
    return cells if values is None else cells[cells[column].isin(values)]


def _check_one_view(requested: dict[str, bool]) -> None:
    names = [name for name, is_requested in requested.items() if is_requested]
    if len(names) > 1:
        raise SpecError(f"{names[0]} and {names[1]} give different tables: expected one of them")
