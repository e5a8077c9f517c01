"""The page: one HTML file with its data, styles, scripts and Plotly inside, that loads nothing.

All text that comes from results is either escaped here or put into the page as JSON, from which
the scripts make text nodes. A content security policy lets no script run but those written here,
and nothing be loaded; whatever a name may contain, the browser does not obey it.
"""

import base64
import hashlib
import html
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any, Final

import pandas as pd

import codingbench
from codingbench.analysis.citation import bibtex, sources
from codingbench.analysis.commands import commands, remarks
from codingbench.errors import SpecError
from codingbench.report.comparison import Comparison, ReportData
from codingbench.report.figures.catalogue import FIGURES, FigureSpec
from codingbench.report.provenance import facts
from codingbench.report.table import table
from codingbench.runtime.formatting import counted
from codingbench.views.finished import show_command
from codingbench.views.leaderboard import ranking

SCRIPTS: Final = ("dom.js", "leaderboard.js", "choice.js", "figures.js", "numbers.js", "start.js")
"""In the order in which the page reads them; functions may call later ones, constants may not."""

MOST_FAILURES: Final = 50

Json = dict[str, Any]


def page(report: ReportData, title: str, plotly: str) -> str:
    """The page as text; ``plotly`` is that of :func:`plotly_script`."""
    own = "\n".join(map(_part, SCRIPTS))
    legend = ranking(report.comparisons[0].rows).legend[0]
    cells = pd.concat([comparison.cells for comparison in report.comparisons])
    return _filled(
        {
            "TITLE": html.escape(title),
            "VERSION": codingbench.__version__,
            "HASHES": " ".join(map(_hash, (plotly, own))),
            "STYLE": _part("page.css"),
            "SUMMARY": html.escape(_summary(cells, report)),
            "CONVENTIONS": "".join(
                _option(name, name == report.convention) for name in report.pricings
            ),
            "LEGEND": html.escape(legend),
            "FAILURES": _failures(report),
            "CITATION": _citation(cells, report),
            "REPORT": _as_json(_in_common(report)),
            "COMPARISONS": "\n".join(
                '<script type="application/json" '
                f'id="comparison-{place}">{_as_json(_comparison(comparison, report))}</script>'
                for place, comparison in enumerate(report.comparisons)
            ),
            "PLOTLY": plotly,
            "SCRIPT": own,
        }
    )


def plotly_script() -> str:
    """Plotly's own script, as its package has it.

    Raises:
        SpecError: Plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise SpecError("the report needs plotly: pip install 'codingbench[report]'") from error
    script: str = get_plotlyjs()
    return script


def _part(name: str) -> str:
    return resources.files(__package__).joinpath("web", name).read_text(encoding="utf-8")


def _filled(parts: Mapping[str, str]) -> str:
    """The page with its parts in place, in one pass: a part may contain another's mark."""
    return re.sub(r"@([A-Z]+)@", lambda mark: parts[mark[1]], _part("page.html"))


def _hash(script: str) -> str:
    """What the content security policy knows a script by."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _as_json(value: Json) -> str:
    """JSON that can stand inside a script element: no character of it can end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _in_common(report: ReportData) -> Json:
    """What the scripts need for all comparisons."""
    return {
        "headings": _headings(report.comparisons),
        "styles": {encoder: asdict(look) for encoder, look in report.codings.items()},
        "conventions": {name: str(pricing) for name, pricing in report.pricings.items()},
        "drawings": [_drawing(spec) for spec in FIGURES],
    }


def _headings(comparisons: Sequence[Comparison]) -> list[str]:
    """What tells the comparisons apart, with the further conditions where that takes them."""
    met = Counter(comparison.heading for comparison in comparisons)
    return [
        each.heading if met[each.heading] == 1 else f"{each.heading}; {each.conditions}"
        for each in comparisons
    ]


def _drawing(spec: FigureSpec) -> Json:
    names = ("name", "section", "title", "caption", "has_own_legend")
    alone = sum(other.section == spec.section for other in FIGURES) == 1
    return {name: getattr(spec, name) for name in names} | {"is_alone": alone}


def _comparison(comparison: Comparison, report: ReportData) -> Json:
    cells = {cell["key"]: cell for cell in comparison.cells.to_dict("records")}
    left_out = len(comparison.rows) > len(comparison.detailed)
    return {
        "heading": comparison.heading,
        "conditions": comparison.conditions,
        "notes": comparison.notes,
        "thinned": _thinned(comparison) if left_out else "",
        "table": table(comparison),
        "reproducing": [
            {"commands": commands([cells[key] for key in keys]), "keys": keys}
            for keys in comparison.rows["keys"]
        ],
        "remarks": remarks(comparison.cells),
        "provenance": list(facts(comparison.cells)),
        "figures": {
            spec.name: {
                "missing": _missing(spec, comparison),
                "variants": dict(_variants(spec, comparison, report)),
            }
            for spec in FIGURES
        },
    }


def _variants(
    spec: FigureSpec, comparison: Comparison, report: ReportData
) -> Iterator[tuple[str, Json]]:
    """The figure for each convention, or once if it is the same for all."""
    if spec.rows(comparison) == 0:
        return
    for name in report.pricings if spec.by_convention else [""]:
        figure = spec.draw(comparison, report.codings, name)
        yield name, {"figure": figure, "notes": list(spec.notes(comparison, name))}


def _missing(spec: FigureSpec, comparison: Comparison) -> str:
    """Why there is no figure."""
    if not comparison.detailed:
        return _thinned(comparison)
    return f"not in these results: the table {spec.table} of the rows shown"


def _thinned(comparison: Comparison) -> str:
    shown = len(comparison.detailed)
    if shown == 0:
        return "No curves, firing rates and bills: of so many comparisons only the first have them."
    return (
        f"Curves, firing rates and bills are of {shown} of the {len(comparison.rows):,} rows: "
        "direct coding and the highest accuracies."
    )


def _summary(cells: pd.DataFrame, report: ReportData) -> str:
    failures = len(report.failures)
    failed = f", {failures:,} failed" if failures else ""
    datasets = ", ".join(sorted(cells["dataset"].unique()))
    compared = counted(len(report.comparisons), "comparison")
    return f"{counted(len(cells), 'finished cell')}{failed}; {compared}; {datasets}"


def _option(name: str, is_chosen: bool) -> str:
    chosen = " selected" if is_chosen else ""
    return f'<option value="{html.escape(name)}"{chosen}>{html.escape(name)}</option>'


def _failures(report: ReportData) -> str:
    failures = report.failures
    if failures.empty:
        return ""
    lines = "".join(
        f"<li>{html.escape(row['encoder'])}, T={row['num_steps']}, seed {row['seed']}: "
        f"{html.escape(row['reason'])}<br>"
        f"<code>{html.escape(show_command(row['key'], report.folder))}</code></li>"
        for row in failures.head(MOST_FAILURES).fillna({"reason": ""}).to_dict("records")
    )
    more = len(failures) - MOST_FAILURES
    rest = f"<p>{more:,} more</p>" if more > 0 else ""
    return (
        '<section aria-labelledby="failures-heading"><h2 id="failures-heading">Failed cells</h2>'
        f"<ul>{lines}</ul>{rest}</section>"
    )


def _citation(cells: pd.DataFrame, report: ReportData) -> str:
    encoders, backbones, recipes = (
        sorted(cells[name].unique()) for name in ("encoder", "backbone", "recipe")
    )
    found = sources(encoders, backbones, recipes, report.pricings.values())
    lines = "".join(
        f"<dt>{html.escape(what)}</dt><dd>{html.escape(text)}</dd>" for what, text in found.items()
    )
    return f'<pre tabindex="0">{html.escape(bibtex(cells))}</pre><dl>{lines}</dl>'
