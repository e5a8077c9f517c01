"""``codingbench check``: the checks of a plug-in as a table with a summary, or as JSON."""

from dataclasses import replace
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from codingbench.conformance.check import CheckResult, Outcome
from codingbench.conformance.examination import CheckReport
from codingbench.views import writers
from codingbench.views.table import Column, rich_table

_MOST_NAMES: Final = 6
_COLOURS: Final[dict[Outcome, str]] = {
    "passed": "green",
    "failed": "red",
    "undecided": "yellow",
    "skipped": "yellow",
}


def check_format(form: str) -> None:
    """Refuse an unknown format before anything is run.

    Raises:
        SpecError: the format is neither ``table`` nor ``json``.
    """
    writers.check_format(form, writers.DOCUMENT_FORMATS)


def render(report: CheckReport, form: str) -> str | RenderableType:
    """Return the report as JSON text, or for the format ``table`` to be printed."""
    return writers.written_document(described(report), lambda: as_table(report), form)


def as_table(report: CheckReport) -> RenderableType:
    """Render the rows of :func:`collapsed`; a failed check also says why it matters."""

    def style(row: CheckResult, column: Column) -> str:
        return _COLOURS[row.outcome] if column is _OUTCOME else ""

    table = rich_table(collapsed(report), _COLUMNS, style)
    return Group(table, Text(), Text(summary(report)))


def collapsed(report: CheckReport) -> list[CheckResult]:
    """Return the results for people: one for all checks that the same failed check prevented.

    It takes the place of the first of them, and its name is their number, as in ``22 checks``.
    """
    blockers = [finding.blocked_by for finding in report.findings]
    rows = []
    for at, finding in enumerate(report.findings):
        blocker = finding.blocked_by
        if blocker and blocker in blockers[:at]:
            continue
        rows.append(_together(finding, blockers.count(blocker)) if blocker else finding)
    return rows


def _together(finding: CheckResult, count: int) -> CheckResult:
    """Return a result that stands for ``count`` checks with the same reason."""
    if count == 1:
        return finding
    return replace(finding, check=replace(finding.check, name=f"{count} checks", expected=""))


def _found(finding: CheckResult) -> str:
    is_bad = finding.outcome in ("failed", "undecided")
    why = f"\nwhy it matters:\n{finding.check.matters}" if is_bad else ""
    return f"{finding.found}{why}"


_OUTCOME: Final = Column("", lambda row: row.outcome, is_number=False, is_prose=True)
_COLUMNS: Final = [
    _OUTCOME,
    Column("check", lambda row: row.check.name, is_number=False, is_key=True),
    Column("expected", lambda row: row.check.expected, is_number=False, is_prose=True),
    Column("found", _found, is_number=False, is_prose=True),
]


def summary(report: CheckReport) -> str:
    """Return how many checks passed, and which did not, unless those are many."""
    counts = f"{report.kind} {report.plugin}: {len(report.of('passed'))} checks passed"
    for outcome in ("failed", "undecided", "skipped"):
        names = [finding.check.name for finding in report.of(outcome)]
        if outcome == "undecided" and not names:
            continue
        counts += f", {len(names)} {outcome}" + (
            f" ({', '.join(names)})" if 0 < len(names) <= _MOST_NAMES else ""
        )
    return counts


def described(report: CheckReport) -> dict[str, Any]:
    """Return the plug-in, the number of checks of each outcome, and every check."""
    return {
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
