"""Run all checks on one plug-in."""

import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from codingbench.backbone import Backbone
from codingbench.conformance import engine, independence, learning, randomness, shapes, values
from codingbench.conformance.check import (
    Check,
    CheckResult,
    Failed,
    Outcome,
    Skipped,
    Undecided,
)
from codingbench.conformance.plugin import BackboneUnderTest, EncoderUnderTest, PluginUnderTest
from codingbench.encoder import Encoder
from codingbench.errors import SpecError, one_line
from codingbench.plugins.code import class_at
from codingbench.plugins.hints import not_found, only_class_in
from codingbench.plugins.specs import format_spec, parse_spec
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
    values.distinct_results,
    independence.no_memory,
    randomness.generator,
    randomness.no_global_randomness,
    randomness.initial_weights,
    randomness.same_in_training,
    independence.own_image,
    independence.input_kept,
    independence.no_future,
    learning.gradients,
    learning.saved_whole,
    engine.bf16,
    engine.counted,
    engine.neurons,
    engine.cost_per_image,
    engine.compiled,
    engine.device,  # last, because a plug-in may keep the device's tensors
)


@dataclass(frozen=True)
class CheckReport:
    """The results of all checks on one plug-in."""

    kind: str
    plugin: str
    findings: list[CheckResult]

    def of(self, outcome: Outcome) -> list[CheckResult]:
        """Return the results with that outcome."""
        return [finding for finding in self.findings if finding.outcome == outcome]

    def tracebacks(self) -> list[str]:
        """Return the lines of the tracebacks of all exceptions that the plug-in raised."""
        causes = [finding.cause for finding in self.findings if finding.cause]
        return [line for cause in causes for line in traceback.format_exception(cause)]


def check_plugin(text: str, begins: Callable[[Check], None] = lambda check: None) -> CheckReport:
    """Run all checks on a plug-in.

    Args:
        text: ``name[param=value]``, ``file.py:Class`` or ``package.module:Class``.
        begins: called before each check.

    Raises:
        SpecError: the plug-in is neither an encoder nor a backbone, cannot be imported, or refuses
            its parameters.
    """
    return examine(plugin_under_test(text), begins=begins)


def examine(
    tested: PluginUnderTest,
    checks: Sequence[Check] = CHECKS,
    begins: Callable[[Check], None] = lambda check: None,
) -> CheckReport:
    """Run the checks that apply to the kind of the plug-in.

    A check during which the plug-in raises an exception fails, and the others still run.

    Args:
        tested: the plug-in.
        checks: checks in the order of execution.
        begins: called before each check.
    """
    done: dict[str, CheckResult] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for check in checks:
            if tested.kind in check.kinds:
                begins(check)
                done[check.name] = _outcome(check, tested, done)
    return CheckReport(tested.kind, tested.plugin.label, [*done.values()])


def _outcome(check: Check, tested: PluginUnderTest, done: dict[str, CheckResult]) -> CheckResult:
    for needed in check.needs:
        if needed in done and done[needed].outcome != "passed":
            reason = f"not run, because {needed!r} has not passed"
            return CheckResult(check, "skipped", reason, blocked_by=needed)
    try:
        return CheckResult(check, "passed", check.run(tested))
    except Failed as failure:
        return CheckResult(check, "failed", str(failure), failure.__cause__)
    except Undecided as doubt:
        return CheckResult(check, "undecided", str(doubt))
    except Skipped as reason:
        return CheckResult(check, "skipped", str(reason))
    except (Exception, SystemExit) as error:
        return CheckResult(check, "failed", f"raises {one_line(error)}", error)


def plugin_under_test(text: str) -> PluginUnderTest:
    """Load the plug-in ``name[param=value]``, ``file.py:Class`` or ``package.module:Class``.

    Raises:
        SpecError: it is neither an encoder nor a backbone, cannot be imported, or refuses its
            parameters.
    """
    text = with_class(text)
    if _is_encoder(parse_spec(text).name):
        return EncoderUnderTest(ENCODERS.resolve(text))
    return BackboneUnderTest(BACKBONES.resolve(text))


def with_class(text: str) -> str:
    """Return the text with the class after the name of a file that has a single one.

    Raises:
        SpecError: the text cannot be read.
    """
    spec = parse_spec(text)
    found = only_class_in(spec.name) if spec.name.endswith(".py") else None
    return format_spec(f"{spec.name}:{found}", dict(spec.params)) if found else text


def _is_encoder(name: str) -> bool:
    """Return whether the plug-in is an encoder; otherwise it is a backbone."""
    place, colon, class_name = name.rpartition(":")
    if not colon:
        encoders, backbones = ENCODERS.names(), BACKBONES.names()
        if name not in (*encoders, *backbones):
            raise SpecError(not_found("plug-in", name, [*encoders, *backbones]))
        return name in encoders
    if ENCODERS.adapts(name):
        return True
    cls = class_at(place, class_name, "plug-in")
    if not issubclass(cls, Encoder | Backbone):
        raise SpecError(f"a plug-in must be an Encoder or a Backbone, but {class_name} is neither")
    return issubclass(cls, Encoder)
