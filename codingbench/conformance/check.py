"""A check of a plug-in: what it expects, why that matters in a benchmark, and what it found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from codingbench.conformance.subject import Subject

KINDS: Final = ("encoder", "backbone")

Outcome = Literal["passed", "failed", "skipped"]


class Failed(Exception):
    """The plug-in does not do what the check expects; the message says what was found."""


class Skipped(Exception):
    """The check does not apply, or cannot be made here; the message says why."""


@dataclass(frozen=True)
class Check:
    """One property of a plug-in.

    ``run`` returns what was found, or raises :class:`Failed` or :class:`Skipped`; whatever else it
    raises is a fault of the plug-in. ``needs``: checks without which this one can tell nothing.
    """

    name: str
    expected: str
    matters: str  # what would go wrong in a benchmark
    run: Callable[[Subject], str]
    kinds: Sequence[str]
    needs: Sequence[str]


@dataclass(frozen=True)
class CheckResult:
    """What became of a check; ``cause`` is what the plug-in raised, if it did."""

    check: Check
    outcome: Outcome
    found: str
    cause: BaseException | None = None


def check(
    name: str,
    expected: str,
    matters: str,
    *,
    kinds: Sequence[str] = KINDS,
    needs: Sequence[str] = ("runs",),
) -> Callable[[Callable[[Subject], str]], Check]:
    """Decorator that makes a check of a function."""
    return lambda run: Check(name, expected, matters, run, kinds, needs)
