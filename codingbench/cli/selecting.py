"""The options that select cells, the same for every command that reads results."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from codingbench.cli.options import option
from codingbench.runtime.paths import user_path

if TYPE_CHECKING:
    from codingbench.analysis.selection import Selection
    from codingbench.store.folder import Store

CELLS: Final = "Which cells"


def _text(*flags: str, metavar: str = "NAMES", help: str) -> Any:
    return Annotated[str | None, option(*flags, panel=CELLS, metavar=metavar, help=help)]


_OPTIONS: Final[dict[str, Any]] = {
    "dataset": _text("--dataset", help="Only these data sets."),
    "encoders": _text("--encoders", help="Only these codings, named as for codingbench run."),
    "backbones": _text("--backbones", help="Only these networks."),
    "neurons": _text("--neurons", help="Only these neurons; default: the network's own."),
    "T": _text("--T", metavar="INTS", help="Only these numbers of time steps, such as 2,4."),
    "recipe": _text("--recipe", help="Only these training recipes."),
    "seeds": _text("--seeds", metavar="INTS", help="Only these seeds; 3 means 0,1,2."),
    "where": Annotated[
        list[str] | None,
        option(
            "--where",
            panel=CELLS,
            metavar="CONDITION",
            help="Only cells that fulfil this, such as \"epochs >= 4 and device != 'cpu'\".",
        ),
    ],
}

ResultsFolders = Annotated[
    list[Path],
    typer.Option(
        "--results",
        help="Results folder; several are read as one, if they hold no different result of one "
        "cell.",
        parser=user_path,
        metavar="PATH",
    ),
]


CELL_HELP: Final = (
    "Key of a cell, or its first 4 or more characters; or a coding, whose cell the options select."
)

SeedOption = Annotated[
    int | None, option("--seed", panel=CELLS, help="Only the cell of this seed.")
]


def selecting(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that gives a command the options that select cells.

    The command gets its ``selection`` by name; see :mod:`codingbench.analysis.selection`.

    Args:
        without: names of options that the command has not, or has itself.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        names = [name for name in _OPTIONS if name not in without]

        @wraps(command)
        def selected(**values: Any) -> None:
            from codingbench.analysis.selection import select

            given = {name: values.pop(name) for name in names}
            command(**values, selection=select(given))

        _declare(selected, command, names)
        return selected

    return decorate


def _declare(
    selected: Callable[..., None], command: Callable[..., None], names: Collection[str]
) -> None:
    """Give a function the parameters of a command and the options, as typer reads them."""
    own = inspect.signature(command).parameters.values()
    kept = [parameter for parameter in own if parameter.name != "selection"]
    options = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_OPTIONS[name]
        )
        for name in names
    ]
    keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in kept]
    vars(selected)["__signature__"] = inspect.Signature([*keyword, *options])
    selected.__annotations__ = {p.name: p.annotation for p in [*keyword, *options]}
    del selected.__wrapped__  # type: ignore[attr-defined]  # typer would read its parameters


def with_seed(selection: "Selection", seed: int | None) -> "Selection":
    """Return the selection, narrowed to one seed if ``--seed`` was given."""
    return selection if seed is None else replace(selection, seeds=(seed,))


def opened(folders: list[Path]) -> "Store":
    """Return a store that reads these results folders as one.

    Raises:
        StoreError: two folders have different results of one cell.
    """
    from codingbench.store.folder import Store
    from codingbench.store.joined import joined

    return Store(folders[0]) if len(folders) == 1 else joined(folders)
