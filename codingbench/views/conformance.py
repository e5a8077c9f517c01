"""A report as a table with a line of summary, or as JSON."""

import json
from typing import Final

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from codingbench.conformance.check import CheckResult, Outcome
from codingbench.conformance.examination import CheckReport
from codingbench.errors import SpecError, unknown

FORMATS: Final = ("table", "json")
_NAMED: Final = 6
_COLOURS: Final[dict[Outcome, str]] = {"passed": "green", "failed": "red", "skipped": "yellow"}


def check_format(format: str) -> None:
    """Before anything is run.

    Raises:
        SpecError: no such format.
    """
    if format not in FORMATS:
        raise SpecError(unknown("format", format, FORMATS))


def render(report: CheckReport, format: str) -> str | RenderableType:
    """The report as one of ``FORMATS``."""
    return as_json(report) if format == "json" else as_table(report)


def as_table(report: CheckReport) -> RenderableType:
    """A row per check; what failed also says what would go wrong."""
    table = Table(
        "", "check", "expected", "found", box=SIMPLE_HEAD, show_edge=False, pad_edge=False
    )
    for column in table.columns[:2]:
        column.no_wrap = True
    table.columns[3].overflow = "fold"
    for finding in report.findings:
        table.add_row(*_cells(finding))
    return Group(table, Text(), Text(summary(report)))


def _cells(finding: CheckResult) -> tuple[str, ...]:
    colour, check = _COLOURS[finding.outcome], finding.check
    found = escape(finding.found)
    if finding.outcome == "failed":
        found += f"\n[bold]so:[/bold] {escape(check.matters)}"
    return f"[{colour}]{finding.outcome}", check.name, escape(check.expected), found


def summary(report: CheckReport) -> str:
    """How many passed, and which did not, if that is not most of them."""
    counts = f"{report.kind} {report.plugin}: {len(report.of('passed'))} checks passed"
    for outcome in ("failed", "skipped"):
        names = [finding.check.name for finding in report.of(outcome)]
        counts += f", {len(names)} {outcome}" + (
            f" ({', '.join(names)})" if 0 < len(names) <= _NAMED else ""
        )
    return counts


def as_json(report: CheckReport) -> str:
    """An object with the plug-in, how many checks came out how, and every check."""
    shown: dict[str, object] = {
        "kind": report.kind,
        "plugin": report.plugin,
        **{outcome: len(report.of(outcome)) for outcome in _COLOURS},
        "checks": [
            {
                "check": finding.check.name,
                "outcome": finding.outcome,
                "expected": finding.check.expected,
                "found": finding.found,
                "matters": finding.check.matters,
            }
            for finding in report.findings
        ],
    }
    return json.dumps(shown, indent=2) + "\n"
