"""Results as data frames: what :func:`codingbench.run` and :func:`codingbench.load` return."""

import sys
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from codingbench.analysis.bill import with_bill
from codingbench.analysis.break_even import with_ann
from codingbench.analysis.comparison import compare as compare_sides
from codingbench.analysis.comparison import labels
from codingbench.analysis.energies import with_energies
from codingbench.analysis.energy_ranks import with_every_convention
from codingbench.analysis.leaderboard import rows
from codingbench.analysis.published import with_published
from codingbench.analysis.selection import Selection, select
from codingbench.analysis.sides import chosen_sides, comparison_of
from codingbench.api.arguments import checked
from codingbench.api.entries import Entries, Entry, grid_texts, temporary_folder
from codingbench.energy import COMPUTE_AND_MEMORY, DEFAULT_TECHNOLOGY, Pricing, pricings
from codingbench.errors import CodingbenchError, SpecError, StoreError
from codingbench.plugins.specs import split_list
from codingbench.registry import BACKBONES, ENCODERS, NEURONS, Registry
from codingbench.runtime.formatting import counted
from codingbench.runtime.openmp import prepare_torch
from codingbench.runtime.paths import user_path
from codingbench.schema import COORDINATES
from codingbench.store.absence import check_has_results
from codingbench.store.correctness import read_predictions
from codingbench.store.folder import DEFAULT_FOLDER, Store
from codingbench.store.learning import read_cells
from codingbench.store.lookup import find
from codingbench.store.plausible import read

if TYPE_CHECKING:
    from codingbench.backbone import Network

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
    *(f"energy_{name}_uj" for name in COMPUTE_AND_MEMORY),
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
        energy: str | None = None,
        sort: str = "accuracy",
        dataset: str | Sequence[str] | None = None,
        encoders: Entries | None = None,
        backbones: Entries | None = None,
        neurons: Entries | None = None,
        T: int | str | Sequence[int] | None = None,
        recipe: str | Sequence[str] | None = None,
        seeds: int | str | Sequence[int] | None = None,
        where: str | Sequence[str] | None = None,
        technology: str = DEFAULT_TECHNOLOGY,
        bill: bool = False,
        vs_ann: bool = False,
        published: bool = False,
    ) -> pd.DataFrame:
        """Rank the cells: one row per coding, T and group of equal conditions, seeds averaged.

        Columns and values are those of ``codingbench leaderboard --format json``, the most
        important columns first; accuracies are fractions, energies are in microjoules per image.

        Args:
            energy: conventions of :mod:`codingbench.energy` or ``file.py:variable``, separated by
                commas; ``energy_uj`` is by the first one. ``"all"``: every convention with its
                ranks. None: ``"exact,memory"``, or ``"exact"`` with ``bill``, ``vs_ann`` or
                ``published``.
            sort: ``accuracy``, ``energy``, ``firing-rate``, ``parameters``, ``T`` or ``encoder``.
            dataset, encoders, backbones, neurons, T, recipe, seeds: only the cells with these
                values, given as to :func:`codingbench.run`. Ranks are about the rows that are left.
            where: only the cells that fulfil these conditions, such as ``"epochs >= 4"``; see
                :mod:`codingbench.analysis.conditions`.
            technology: costs of the operations, by name or as ``file.py:variable``.
            bill: add what stem, coding and backbone cost, and what the coding gains over direct.
            vs_ann: add the energies of the ANN and the quantised ANN of the same shape.
            published: add what papers report for the same data sets.

        Raises:
            SpecError: an argument is not valid, or no cell is selected.
            StoreError: no cell is finished, or a table is missing or damaged.

        Example::

            import codingbench as cb
            cb.load("results").leaderboard(energy="memory", sort="energy")
        """
        is_one = bill or vs_ann or published
        _check_one_view(
            {"bill": bill, "vs_ann": vs_ann, "published": published, "energy='all'": energy == ALL}
        )
        priced = _priced(energy, technology, is_one)
        pricing = priced[0]
        chosen = {"dataset": dataset, "T": T, "recipe": recipe, "seeds": seeds, "where": where}
        cells = _selection(chosen, encoders, backbones, neurons).of(self._finished())
        answers = partial(read_predictions, self.store)
        table = rows(cells, pricing, sort=sort, answers=answers)
        if published:
            return with_published(table)
        if energy == ALL:
            table = with_every_convention(table, cells, pricing.technology)
        if bill:
            table = with_bill(table, cells, self._layers_of(table), pricing)
        if vs_ann:
            table = with_ann(table, cells, self._layers_of(table), pricing)
        if energy != ALL and not is_one:
            table = with_energies(table, cells, priced)
        return _with_first(table, _FIRST_OF_LEADERBOARD)

    @checked
    def compare(
        self,
        *encoders: Entry,
        between: str = "encoders",
        against_T: int | str | Sequence[int] | None = None,
        dataset: str | Sequence[str] | None = None,
        backbones: Entries | None = None,
        neurons: Entries | None = None,
        T: int | str | Sequence[int] | None = None,
        recipe: str | Sequence[str] | None = None,
        seeds: int | str | Sequence[int] | None = None,
        where: str | Sequence[str] | None = None,
        energy: str = "exact",
        technology: str = DEFAULT_TECHNOLOGY,
    ) -> pd.DataFrame:
        """Compare codings, networks, recipes or T pair by pair over the same seeds and images.

        Columns and values are those of ``codingbench compare --format json``: among them the
        difference of accuracy with its 95 % confidence interval, p-values with and without Holm's
        correction, and the verdict in one sentence.

        Args:
            encoders: two codings or more, by the name in the tables or as a class; if something
                else is compared, any number, and none for all.
            between: ``encoders``, ``backbones``, ``neurons``, ``recipes`` or ``T``: what the two
                sides of a comparison differ in, and nothing else. They are those selected, or all.
            against_T: compare each coding at ``T`` with itself at these numbers of time steps.
            dataset, backbones, neurons, T, recipe, seeds, where: as in :meth:`leaderboard`.
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
        chosen = {"dataset": dataset, "T": T, "recipe": recipe, "seeds": seeds, "where": where}
        selection = _selection(chosen, None, backbones, neurons)
        between, against = comparison_of(between, selection, against_T)
        names = self._labels(encoders, cells)
        answers = partial(read_predictions, self.store)
        if between == "encoders":
            sides = labels(names, cells["encoder"].unique().tolist())
            table = compare_sides(selection.of(cells), sides, pricing, answers)
        else:
            cells, sides = chosen_sides(cells, between, selection, names, against)
            table = compare_sides(cells, sides, pricing, answers, between=between, against=against)
        return _with_first(view(table, pricing).frame, _FIRST_OF_COMPARISON)

    @checked
    def network(
        self,
        cell: str,
        *,
        selected: bool = False,
        plugins: Sequence[str] = (),
        trust_code: bool = False,
        data_dir: str | Path | None = None,
    ) -> "Network":
        """Return the trained network of a cell, in evaluation mode on the CPU.

        It maps images [B, C, H, W] in [0, 1] and a ``torch.Generator`` to logits [T, B, K].

        Args:
            cell: its key, or the first four or more characters of it.
            selected: the weights of the epoch with the best validation accuracy.
            plugins: your own codings or backbones for cells of their names, as ``file.py:Class``.
            trust_code: run plug-ins that came with results of another machine; read them first.
            data_dir: folder of the data sets.

        Raises:
            SpecError: no cell or several match, its plug-ins, recipe or data have changed, or the
                source of a plug-in is missing or not trusted.
            CodingbenchError: its weights were not kept.
            DatasetError: its data set is missing and cannot be downloaded.

        Example::

            import codingbench as cb
            cb.load("results").network("50ef409e")
        """
        prepare_torch()
        from codingbench.cells.weights import restore
        from codingbench.plugins.loading import OwnCode

        own = OwnCode(tuple(plugins), trust_code)
        folder = None if data_dir is None else user_path(data_dir)
        loaded = restore(self.store, find(self.store, cell), folder, own)
        for line in loaded.changed:
            print(line, file=sys.stderr)
        return loaded.network(selected).eval()

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
            technology=pricing.priced_by,
        )

    def __repr__(self) -> str:
        cells = counted(len(self), "finished cell")
        failed = f", {self.failed} failed" if self.failed else ""
        return f"Results({str(self.store.folder)!r}: {cells}{failed})"

    def _repr_html_(self) -> str:
        from codingbench.views.html import paragraph, to_html
        from codingbench.views.leaderboard import ranking

        try:
            table = to_html(ranking(self.leaderboard(), *_priced())) if len(self) else ""
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


def _selection(
    others: Mapping[str, Any],
    encoders: Entries | None,
    backbones: Entries | None,
    neurons: Entries | None,
) -> Selection:
    """Return the selection that the arguments describe; classes count as their labels."""
    given = {name: _plain(value) for name, value in others.items()}
    with temporary_folder() as folder:
        for name, registry, entries in (
            ("encoders", ENCODERS, encoders),
            ("backbones", BACKBONES, backbones),
            ("neurons", NEURONS, neurons),
        ):
            if entries is not None:
                given[name] = _listed(registry, entries, folder)
    return select(given)


def _listed(registry: Registry, entries: Entries, folder: Path) -> list[str]:
    """Return the entries as text; a class of a session is resolved while its file is there."""
    texts = grid_texts(registry, entries, folder)
    return [registry.resolve(text).label if str(folder) in text else text for text in texts]


def _plain(value: Any) -> Any:
    """Return a sequence as a list, and numbers of NumPy as those of Python."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _priced(
    energy: str | None = None, technology: str = DEFAULT_TECHNOLOGY, is_one: bool = False
) -> tuple[Pricing, ...]:
    """Return the pricings of a leaderboard; ``is_one``: its table shows one convention."""
    if energy == ALL:
        return (Pricing.of("exact", technology),)
    default = COMPUTE_AND_MEMORY[:1] if is_one else COMPUTE_AND_MEMORY
    named = split_list(energy) if energy else default
    if is_one and len(named) > 1:
        raise SpecError(f"this table shows one energy convention, got {energy!r}")
    return pricings(named, technology)


def _check_one_view(requested: dict[str, bool]) -> None:
    names = [name for name, is_requested in requested.items() if is_requested]
    if len(names) > 1:
        raise SpecError(f"{names[0]} and {names[1]} give different tables: expected one of them")
