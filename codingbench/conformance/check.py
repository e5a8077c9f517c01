"""The record of a check: what it expects, why that matters in a benchmark, and what it found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from codingbench.conformance.plugin import PluginUnderTest

KINDS: Final = ("encoder", "backbone")

Outcome = Literal["passed", "failed", "undecided", "skipped"]


class Failed(Exception):
    """The plug-in does not meet the expectation; the message says what was found."""


class Undecided(Exception):
    """The check cannot tell, and the author of the plug-in can; the message says what to do."""


class Skipped(Exception):
    """The check does not apply or cannot be carried out; the message says why."""


@dataclass(frozen=True)
class Check:
    """One property that a plug-in must have.

    Args:
        name: name of the check.
        expected: the property.
        matters: what would go wrong in a benchmark without it.
        run: returns what was found, or raises :class:`Failed`, :class:`Undecided` or
            :class:`Skipped`. Any other exception is a fault of the plug-in.
        kinds: kinds of plug-ins that it applies to.
        needs: names of checks that must have passed, because its result means nothing otherwise.
    """

    name: str
    expected: str
    matters: str
    run: Callable[[PluginUnderTest], str]
    kinds: Sequence[str]
    needs: Sequence[str]


@dataclass(frozen=True)
class CheckResult:
    """The result of a check.

    Args:
        check: the check.
        outcome: whether it passed.
        found: what was found, or why it was skipped.
        cause: the exception that the plug-in raised, if any.
        blocked_by: name of the check that did not pass and without which this one was not run.
    """

    check: Check
    outcome: Outcome
    found: str
    cause: BaseException | None = None
    blocked_by: str = ""


def check(
    name: str,
    expected: str,
    matters: str,
    *,
    kinds: Sequence[str] = KINDS,
    needs: Sequence[str] = ("runs",),
) -> Callable[[Callable[[PluginUnderTest], str]], Check]:
    """Turn the decorated function into a :class:`Check`."""
    return lambda run: Check(name, expected, matters, run, kinds, needs)
