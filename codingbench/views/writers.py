"""The formats of ``--format``, the same for every command: table, JSON, CSV, Markdown, SVG."""

import io
import json
from collections.abc import Callable, Iterable
from typing import Any, Final

import pandas as pd
from rich.console import Console, Group, RenderableType

from codingbench.errors import SpecError, unknown
from codingbench.runtime.formatting import records
from codingbench.views.latex import to_latex
from codingbench.views.markdown import to_markdown
from codingbench.views.table import View, render

DOCUMENT_FORMATS: Final = ("table", "json")
"""The formats of what is not a list of rows."""


def check_format(form: str, formats: Iterable[str]) -> None:
    """Refuse an unknown format before anything is computed.

    Raises:
        SpecError: ``form`` is not among ``formats``; the message names the nearest one.
    """
    known = tuple(formats)
    if form not in known:
        raise SpecError(unknown("format", form, known))


def written(view: View, form: str) -> str | Group:
    """Return a view as text of the format ``form``, or for ``table`` as a Rich renderable."""
    return FORMATS[form](view)


def written_document(
    value: Any, body: Callable[[], RenderableType], form: str
) -> str | RenderableType:
    """Return ``value`` as JSON text, or for ``table`` what ``body`` renders of it."""
    check_format(form, DOCUMENT_FORMATS)
    return to_json(value) if form == "json" else body()


def to_json(value: Any) -> str:
    """Return a value as indented JSON at full precision.

    A data frame becomes a list with one object per row, whose keys are its columns.
    """
    plain = records(value) if isinstance(value, pd.DataFrame) else value
    return json.dumps(plain, indent=2, allow_nan=False) + "\n"


def to_csv(table: pd.DataFrame) -> str:
    """Return a data frame as CSV at full precision; the items of a list are joined by spaces."""

    def text(value: Any) -> Any:
        return " ".join(map(str, value)) if isinstance(value, list) else value

    # map turns whole numbers that may be null into real ones
    lists = [name for name in table if table[name].dtype == object]
    return table.assign(**{str(name): table[name].map(text) for name in lists}).to_csv(
        index=False, lineterminator="\n"
    )


def to_svg(view: View) -> str:
    """Return what a terminal of 100 columns shows as an SVG picture."""
    # The picture must not depend on the terminal that it is made in.
    console = Console(
        record=True,
        file=io.StringIO(),
        width=100,
        force_terminal=True,
        color_system="truecolor",
        no_color=False,
    )
    console.print(render(view))
    return console.export_svg(title="codingbench leaderboard")


def _data(view: View) -> pd.DataFrame:
    """Return the rows of JSON and CSV."""
    data = view.frame if view.data is None else view.data
    if view.top is None:
        return data
    kept = {row for _, _, group in view.groups(view.frame) for row in view.cut(group).index}
    return data[data.index.isin(kept)]


FORMATS: Final[dict[str, Callable[[View], str | Group]]] = {
    "table": render,
    "json": lambda view: to_json(_data(view)),
    "csv": lambda view: to_csv(_data(view)),
    "markdown": to_markdown,
    "latex": to_latex,
    "svg": to_svg,
}
"""The formats of a view."""

TEXT_FORMATS: Final = tuple(form for form in FORMATS if form != "svg")
"""The formats of views that are wider than a picture."""
