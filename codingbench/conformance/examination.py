"""All checks, in order, and what becomes of them on one plug-in."""

import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from codingbench.backbone import Backbone
from codingbench.conformance import engine, independence, learning, randomness, shapes, values
from codingbench.conformance.check import Check, CheckResult, Failed, Outcome, Skipped
from codingbench.conformance.subject import BackboneSubject, EncoderSubject, Subject
from codingbench.encoder import Encoder
from codingbench.errors import SpecError, one_line, unknown
from codingbench.plugins.code import class_at
from codingbench.plugins.specs import parse_spec
from codingbench.registry import BACKBONES, ENCODERS

CHECKS: Final[Sequence[Check]] = (
    shapes.runs,
    shapes.steps,
    shapes.sizes,
    shapes.dtype,
    shapes.single_image,
    shapes.shown_code,
    shapes.stem,
    values.emits,
    values.finite,
    values.tells_apart,
    independence.no_memory,
    randomness.generator,
    randomness.no_global_chance,
    randomness.initial_weights,
    randomness.same_in_training,
    independence.own_image,
    independence.input_kept,
    independence.no_future,
    learning.gradients,
    learning.saved_whole,
    engine.bf16,
    engine.counted,
    engine.cost_per_image,
    engine.compiled,
    engine.device,  # last: a plug-in may keep what it was given there
)


@dataclass(frozen=True)
class CheckReport:
    """What was found on one plug-in."""

    kind: str
    plugin: str
    findings: list[CheckResult]

    def of(self, outcome: Outcome) -> list[CheckResult]:
        """The findings with that outcome."""
        return [finding for finding in self.findings if finding.outcome == outcome]

    def tracebacks(self) -> list[str]:
        """Of what the plug-in raised."""
        causes = [finding.cause for finding in self.findings if finding.cause]
        return [line for cause in causes for line in traceback.format_exception(cause)]


def examine(
    subject: Subject,
    checks: Sequence[Check] = CHECKS,
    begins: Callable[[Check], None] = lambda check: None,
) -> CheckReport:
    """Make all checks that there are for its kind; one that raises fails, the others go on.

    ``begins`` hears which comes next.
    """
    done: dict[str, CheckResult] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for check in checks:
            if subject.kind in check.kinds:
                begins(check)
                done[check.name] = _outcome(check, subject, done)
    return CheckReport(subject.kind, subject.plugin.label, [*done.values()])


def _outcome(check: Check, subject: Subject, done: dict[str, CheckResult]) -> CheckResult:
    for needed in check.needs:
        if needed in done and done[needed].outcome != "passed":
            return CheckResult(check, "skipped", f"tells nothing while {needed!r} has not passed")
    try:
        return CheckResult(check, "passed", check.run(subject))
    except Failed as failure:
        return CheckResult(check, "failed", str(failure), failure.__cause__)
    except Skipped as reason:
        return CheckResult(check, "skipped", str(reason))
    except (Exception, SystemExit) as error:
        return CheckResult(check, "failed", f"raises {one_line(error)}", error)


def subject_of(text: str) -> Subject:
    """The plug-in of ``name[param=value]``, ``file.py:Class`` or ``package.module:Class``.

    Raises:
        SpecError: it is neither an encoder nor a backbone, cannot be loaded, or refuses its
            parameters.
    """
    if _is_encoder(parse_spec(text).name):
        return EncoderSubject(ENCODERS.resolve(text))
    return BackboneSubject(BACKBONES.resolve(text))


def _is_encoder(name: str) -> bool:
    """Whether the plug-in is one; else it is a backbone."""
    place, colon, class_name = name.rpartition(":")
    if not colon:
        encoders, backbones = ENCODERS.names(), BACKBONES.names()
        if name not in (*encoders, *backbones):
            raise SpecError(unknown("plug-in", name, [*encoders, *backbones]))
        return name in encoders
    cls = class_at(place, class_name, "plug-in")
    if not issubclass(cls, Encoder | Backbone):
        raise SpecError(f"{class_name} is no plug-in: expected an Encoder or a Backbone")
    return issubclass(cls, Encoder)
