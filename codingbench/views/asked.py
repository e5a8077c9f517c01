"""The request of ``codingbench leaderboard``: its table, energies, columns and rows."""

from dataclasses import dataclass
from functools import cached_property

from codingbench.energy import (
    COMPUTE_AND_MEMORY,
    CONVENTIONS,
    DEFAULT_TECHNOLOGY,
    Pricing,
    pricings,
)
from codingbench.errors import SpecError
from codingbench.plugins.specs import split_list
from codingbench.views.columns import DEFAULT, check_names, conventions_in, expanded


@dataclass(frozen=True)
class Asked:
    """A request: the table that a leaderboard shows, and its columns and rows."""

    energy: str | None = None
    """Conventions, comma-separated; ``all``: the table of every convention. None: the default."""
    technology: str = DEFAULT_TECHNOLOGY
    bill: bool = False
    """Show what each encoder costs and what that buys."""
    vs_ann: bool = False
    """Show each row beside the ANNs of the same shape."""
    published: bool = False
    """Show published results on the same data sets."""
    columns: str | None = None
    """Names of columns, as :mod:`codingbench.views.columns` has them, comma-separated."""
    top: int | None = None
    """The number of rows of each group; None: all."""
    keys: bool = False
    """Show the keys of the cells of each row."""

    @property
    def every_energy(self) -> bool:
        """Whether the table of every convention is shown."""
        return self.energy == "all"

    @cached_property
    def names(self) -> list[str]:
        """The columns of the plain table, with a name for each energy.

        Raises:
            SpecError: a column is not known.
        """
        named = split_list(self.columns) if self.columns is not None else [*DEFAULT]
        check_names(named)
        named += ["keys"] if self.keys and "keys" not in named else []
        return expanded(named, self._conventions)

    @cached_property
    def pricings(self) -> tuple[Pricing, ...]:
        """The pricings of the energies shown; rows are sorted by the first one.

        Raises:
            SpecError: no such convention or technology exists, or a table of one convention was
                requested with several.
        """
        if self.every_energy:
            return (Pricing.of("exact", self.technology),)
        if (option := self.option) is None:
            first = self._conventions if self.energy or self.columns is None else []
            of_columns = conventions_in(self.names)
            return pricings(first + of_columns or ["exact"], self.technology)
        named = split_list(self.energy or "exact")
        if len(named) != 1:
            raise SpecError(f"{option} shows one energy convention, got {self.energy!r}")
        return pricings(named, self.technology)

    @property
    def option(self) -> str | None:
        """The option that asks for another table than the plain one, if any.

        Raises:
            SpecError: there are several, or one that excludes ``--columns`` or ``--keys``.
        """
        asked = {
            "--bill": self.bill,
            "--vs-ann": self.vs_ann,
            "--published": self.published,
            "--energy all": self.every_energy,
        }
        plain = {"--columns": self.columns is not None, "--keys": self.keys}
        found = [option for option, is_given in asked.items() if is_given]
        found += [option for option, is_given in plain.items() if is_given][: bool(found)]
        if len(found) > 1:
            raise SpecError(f"{found[0]} and {found[1]} are different tables: expected one of them")
        return found[0] if found else None

    @property
    def _conventions(self) -> list[str]:
        named = split_list(self.energy) if self.energy else [*COMPUTE_AND_MEMORY]
        return [each for name in named for each in (CONVENTIONS if name == "all" else [name])]
