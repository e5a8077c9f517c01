"""Select cells by their coordinates and by conditions on their columns.

What a command says about its rows, such as ranks, letters and corrected p-values, is about the rows
that are selected: they are the family of comparisons.
"""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import pandas as pd

from codingbench.analysis.conditions import columns_of, matching
from codingbench.cells.settings import GRID_FIELDS, make_grid
from codingbench.errors import SpecError, unknown
from codingbench.plugins.specs import alternatives, format_spec, parse_spec
from codingbench.registry import BACKBONES, ENCODERS, NEURONS, Registry
from codingbench.runtime.formatting import first_few


class Axis(NamedTuple):
    """A coordinate that cells are selected by."""

    option: str
    """Its option on the command line, without dashes."""
    column: str
    noun: str
    registry: Registry | None = None
    """The plug-ins whose labels the column holds."""


AXES: Final[dict[str, Axis]] = {
    "datasets": Axis("dataset", "dataset", "data set"),
    "encoders": Axis("encoders", "encoder", "coding", ENCODERS),
    "backbones": Axis("backbones", "backbone", "backbone", BACKBONES),
    "neurons": Axis("neurons", "neuron", "neuron", NEURONS),
    "num_steps": Axis("T", "num_steps", "T"),
    "recipes": Axis("recipe", "recipe", "recipe"),
    "seeds": Axis("seeds", "seed", "seed"),
}
"""Field of :class:`Selection` -> the coordinate."""


@dataclass(frozen=True)
class Selection:
    """The cells to read; every condition has to hold, and an empty one always does.

    Args:
        datasets: names of data sets.
        encoders: codings as ``codingbench run --encoders`` names them.
        backbones: likewise.
        neurons: likewise; ``default`` stands for those of the backbone.
        num_steps: values of T.
        recipes: names of recipes.
        seeds: seeds.
        where: conditions of :mod:`codingbench.analysis.conditions`.
    """

    datasets: tuple[str, ...] = ()
    encoders: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    neurons: tuple[str, ...] = ()
    num_steps: tuple[int, ...] = ()
    recipes: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    where: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Return whether any cell can be left out."""
        return self != EVERYTHING

    def of(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Return the selected cells.

        Args:
            cells: the table ``cells``; without cells nothing is checked.

        Raises:
            SpecError: a condition names what no cell has, or no cell fulfils all of them.
        """
        if cells.empty or not self:
            return cells
        masks = dict(self._masks(cells))
        holds = pd.DataFrame(masks).all(axis=1)
        if not holds.any():
            found = ", ".join(self._found(cells, masks))
            raise SpecError(f"no cell of {len(cells):,} is selected: {found}")
        return cells[holds]

    def of_failures(self, failures: pd.DataFrame) -> pd.DataFrame:
        """Return the selected rows of the table ``failures``.

        None is selected by a condition on a column that only finished cells have.
        """
        for name, axis in AXES.items():
            if values := getattr(self, name):
                failures = failures[failures[axis.column].isin(values)]
        for condition in self.where:
            is_known = columns_of(condition) <= set(failures.columns)
            failures = failures[matching(failures, condition)] if is_known else failures.head(0)
        return failures

    def present(self, field: str, cells: pd.DataFrame) -> list[Any]:
        """Return the selected values of a field, as the tables hold them; empty for all.

        Raises:
            SpecError: no cell has one of them.
        """
        return _present(AXES[field], getattr(self, field), cells)

    def options(self) -> str:
        """Return the options that make this selection, with a space before; empty for all cells."""
        return "".join(f" {option}" for option, _ in self._conditions())

    def sentence(self) -> list[str]:
        """Return the line that says what a table is about, or no line if it shows all cells."""
        about = "ranks, letters and corrected p-values are about the rows shown"
        return [f"selected by{self.options()}: {about}"] if self else []

    def _conditions(self) -> Iterator[tuple[str, str]]:
        """Yield each condition as an option, with the field that it comes from."""
        for name, axis in AXES.items():
            if values := getattr(self, name):
                comma = "," if name == "seeds" and len(values) == 1 else ""  # --seeds 3 is 0,1,2
                listed = f"{','.join(map(str, values))}{comma}"
                yield f"--{axis.option} {shlex.quote(listed)}", name
        for condition in self.where:
            yield f"--where {_quoted(condition)}", condition

    def _found(self, cells: pd.DataFrame, masks: "Mapping[str, pd.Series[bool]]") -> Iterator[str]:
        """Yield what each condition selects, and what there is where it selects nothing."""
        for option, name in self._conditions():
            columns = sorted(columns_of(name)) if name not in AXES else []
            values = (first_few(map(str, sorted(cells[c].dropna().unique()))) for c in columns)
            there = " and ".join(f"{c}={v}" for c, v in zip(columns, values, strict=True))
            hint = f" (there are {there})" if there and not masks[option].any() else ""
            yield f"{option} alone selects {masks[option].sum():,}{hint}"

    def _masks(self, cells: pd.DataFrame) -> "Iterator[tuple[str, pd.Series[bool]]]":
        for option, name in self._conditions():
            if axis := AXES.get(name):
                wanted = _present(axis, getattr(self, name), cells)
                yield option, cells[axis.column].isin(wanted)
            else:
                yield option, matching(cells, name)


EVERYTHING: Final = Selection()
"""The selection of all cells."""

WHERE: Final = "where"


def select(given: Mapping[str, Any]) -> Selection:
    """Return the selection that options describe; those that are None or missing do not count.

    Args:
        given: values by name of the option (``dataset``, ``encoders``, ``backbones``, ``neurons``,
            ``T``, ``recipe``, ``seeds``, ``where``), each as text ("2,4"), as a number or as a
            list.

    Raises:
        SpecError: a value cannot be read.

    >>> select({"T": "2,4", "seeds": 3}).options()
    ' --T 2,4 --seeds 0,1,2'
    """
    known = {name: value for name, value in given.items() if value is not None}
    where = known.pop(WHERE, ())
    conditions = (where,) if isinstance(where, str) else tuple(where)
    for condition in conditions:
        columns_of(condition)
    grid = make_grid(known)
    fields = {GRID_FIELDS[name]: getattr(grid, GRID_FIELDS[name]) for name in known}
    return Selection(**fields, where=conditions)


def label_of(registry: Registry, name: str, known: Sequence[str], noun: str) -> str:
    """Return the label that a plug-in has in the tables.

    The label of a finished cell is returned as it is. Other names import their plug-in.

    Args:
        registry: the plug-ins.
        name: as ``codingbench run`` takes it.
        known: the labels of the finished cells.
        noun: the kind of plug-in in the error message.

    Raises:
        SpecError: no finished cell has this label.
    """
    spec = parse_spec(name)
    plain = format_spec(spec.name, dict(spec.params))
    if plain in known:
        return plain
    is_plugin = ":" in spec.name or spec.name in registry.names()
    label = registry.resolve(name).label if is_plugin else plain
    if label not in known:
        raise SpecError(unknown(f"{noun} in these results", label, known))
    return label


def _quoted(condition: str) -> str:
    """Return a condition as a word of the shell, in the quotes that are easiest to read."""
    return shlex.quote(condition) if set(condition) & set('"$`\\!') else f'"{condition}"'


def _present(axis: Axis, values: Sequence[Any], cells: pd.DataFrame) -> list[Any]:
    """Return the values as the tables hold them, all of which some cell must have."""
    present = sorted(cells[axis.column].unique().tolist())
    if axis.registry:
        names = [name for text in values for name in alternatives(str(text))]
        return [label_of(axis.registry, name, present, axis.noun) for name in names]
    for value in values:
        if value in present:
            continue
        if isinstance(value, str):
            raise SpecError(unknown(f"{axis.noun} in these results", value, present))
        listed = first_few(map(str, present), most=12)
        raise SpecError(f"no cell of {axis.noun}={value} (there are {axis.noun}={listed})")
    return list(values)
