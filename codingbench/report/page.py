"""Build the page: one HTML file that contains its data, styles, scripts and Plotly.

All text from results is either escaped here or embedded as JSON, which the scripts turn into text
nodes. A content security policy allows only the scripts written here and blocks all loading, so no
name in a result can run code or fetch anything, whatever it contains.
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
"""Execution order. Functions may use definitions of later scripts; constants may not."""

MOST_FAILURES: Final = 50

Json = dict[str, Any]


def page(report: ReportData, title: str, plotly: str) -> str:
    """Return the page as HTML; ``plotly`` is the result of :func:`plotly_script`."""
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
    """Return the source of plotly.js that ships with the Python package.

    Raises:
        SpecError: Plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise SpecError("the report needs plotly: pip install plotly") from error
    script: str = get_plotlyjs()
    return script


def _part(name: str) -> str:
    return resources.files(__package__).joinpath("web", name).read_text(encoding="utf-8")


def _filled(parts: Mapping[str, str]) -> str:
    """Return the page with its parts filled in, in one pass: a part may contain a placeholder."""
    return re.sub(r"@([A-Z]+)@", lambda mark: parts[mark[1]], _part("page.html"))


def _hash(script: str) -> str:
    """Return the hash by which the content security policy allows a script."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _as_json(value: Json) -> str:
    """Return JSON for a script element, without any character that could end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _in_common(report: ReportData) -> Json:
    """Return the data that the scripts share between comparisons."""
    return {
        "headings": _headings(report.comparisons),
        "styles": {encoder: asdict(style) for encoder, style in report.codings.items()},
        "conventions": {name: str(pricing) for name, pricing in report.pricings.items()},
        "drawings": [_drawing(spec) for spec in FIGURES],
    }


def _headings(comparisons: Sequence[Comparison]) -> list[str]:
    """Return a unique heading for each comparison, with its conditions where headings repeat."""
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
            {"commands": commands([cells[key] for key in keys], report.folders), "keys": keys}
            for keys in comparison.rows["keys"]
        ],
        "remarks": remarks(comparison.cells, report.folders),
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
    """Yield the figure for each convention, or once if it does not depend on the convention."""
    if spec.rows(comparison) == 0:
        return
    for name in report.pricings if spec.by_convention else [""]:
        figure = spec.draw(comparison, report.codings, name)
        yield name, {"figure": figure, "notes": list(spec.notes(comparison, name))}


def _missing(spec: FigureSpec, comparison: Comparison) -> str:
    """Return the reason why there is no figure."""
    if not comparison.detailed:
        return _thinned(comparison)
    return f"These results lack the table {spec.table} of the rows shown."


def _thinned(comparison: Comparison) -> str:
    shown = len(comparison.detailed)
    if shown == 0:
        return (
            "Curves, firing rates and bills are left out here: a report of this many comparisons "
            "has them only for the first ones."
        )
    return (
        f"Curves, firing rates and bills show {shown} of the {len(comparison.rows):,} rows: "
        "direct coding and the most accurate codings."
    )


def _summary(cells: pd.DataFrame, report: ReportData) -> str:
    failures = len(report.failures)
    failed = f", {failures:,} failed" if failures else ""
    datasets = ", ".join(sorted(cells["dataset"].unique()))
    compared = counted(len(report.comparisons), "comparison")
    selected = "".join(f"; {line}" for line in report.selection.sentence())
    return f"{counted(len(cells), 'finished cell')}{failed}; {compared}; {datasets}{selected}"


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
        f"<code>{html.escape(show_command(row['key'], *report.folders))}</code></li>"
        for row in failures.head(MOST_FAILURES).fillna({"reason": ""}).to_dict("records")
    )
    more = len(failures) - MOST_FAILURES
    rest = f"<p>and {more:,} more</p>" if more > 0 else ""
    return (
        '<section aria-labelledby="failures-heading"><h2 id="failures-heading">Failed cells</h2>'
        f"<ul>{lines}</ul>{rest}</section>"
    )


def _citation(cells: pd.DataFrame, report: ReportData) -> str:
    encoders, backbones, recipes, neurons = (
        sorted(cells[name].unique()) for name in ("encoder", "backbone", "recipe", "neuron")
    )
    found = sources(encoders, backbones, recipes, report.pricings.values(), neurons)
    lines = "".join(
        f"<dt>{html.escape(what)}</dt><dd>{html.escape(text)}</dd>" for what, text in found.items()
    )
    return f'<pre tabindex="0">{html.escape(bibtex(cells))}</pre><dl>{lines}</dl>'
