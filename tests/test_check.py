"""``codingbench check``: each fault is found by the check for it, and by no other."""

import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from codingbench.api.examining import PluginCheck
from codingbench.cli.main import main
from codingbench.conformance.check import Check
from codingbench.conformance.engine import compiled, neurons
from codingbench.conformance.examination import (
    CHECKS,
    CheckReport,
    check_plugin,
    examine,
    plugin_under_test,
    with_class,
)
from codingbench.conformance.independence import distance
from codingbench.errors import SpecError
from codingbench.neurons import backends as lif_backends
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.scaffold import new
from codingbench.views.conformance import collapsed, render, summary
from tests.broken_plugins import FAULTS, FIRST

BROKEN = Path(__file__).with_name("broken_plugins.py")
TEMPLATES = Path(new.__file__).parent / "templates"
UNCOMPILED = [check for check in CHECKS if check is not compiled]  # compiling takes seconds
EVERYDAY = list({FAULTS[fault]: fault for fault in FIRST}.values())  # one for each check
THOROUGH = [fault for fault in FIRST if fault not in EVERYDAY]
FURTHER = [fault for fault in FAULTS if fault not in FIRST]


def report_on(plugin: str, checks: list[Check] = UNCOMPILED) -> CheckReport:
    return examine(plugin_under_test(plugin), checks)


def names(report: CheckReport, outcome: Any) -> list[str]:
    return [finding.check.name for finding in report.of(outcome)]


# --- what is found --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        *EVERYDAY,
        *(pytest.param(fault, marks=pytest.mark.thorough) for fault in THOROUGH),
        *(pytest.param(fault, marks=pytest.mark.slow) for fault in FURTHER),
    ],
)
def test_a_fault_is_found_by_the_check_for_it_and_by_no_other(fault: str) -> None:
    report = report_on(f"{BROKEN}:{fault}")
    assert names(report, "failed") + names(report, "undecided") == [FAULTS[fault]]
    (finding,) = report.of("failed") + report.of("undecided")
    assert finding.found and "\n" not in finding.found


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        ("SpikesOutsideAModule", "its forward"),
        ("ComputesTheMembraneOutsideTheNeuron", "fire (Fire)"),
        ("PassesSpikesThroughAModule", "head.neuron.1 (Thin)"),
    ],
)
def test_what_may_be_a_neuron_is_undecided_and_named(fault: str, where: str) -> None:
    report = report_on(f"{BROKEN}:{fault}", [CHECKS[0], neurons])
    (finding,) = report.of("undecided")
    assert finding.found == (
        f"cannot tell whether {where} is a neuron: put each neuron with its membrane into one "
        "module and decorate its class with @codingbench.neurons.spiking, or with @spiking(False) "
        "if it is none"
    )
    assert PluginCheck(report)  # it is no failure
    assert ", 0 failed, 1 undecided (neurons), 0 skipped" in summary(report)


def test_every_check_finds_some_fault() -> None:
    assert {FAULTS[fault] for fault in EVERYDAY} == {check.name for check in UNCOMPILED}


@pytest.mark.parametrize("plugin", ["Pixels", "Features", "Small"])
def test_the_bases_of_the_broken_plug_ins_are_correct(plugin: str) -> None:
    report = report_on(f"{BROKEN}:{plugin}")
    assert names(report, "passed") == [finding.check.name for finding in report.findings]


@pytest.mark.parametrize(
    "template",
    ["pixel_encoder.py:MyCoding", "feature_encoder.py:MyCoding", "backbone.py:MyBackbone"],
)
def test_a_new_plug_in_passes_as_it_is_written(
    template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for registry in (ENCODERS, BACKBONES):
        monkeypatch.setattr(registry, "_classes", dict(registry._classes))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))  # the templates register one name
    assert not names(report_on(f"{TEMPLATES / template}"), "failed")


def test_a_plug_in_that_cannot_run_fails_one_check_and_skips_the_others() -> None:
    report = report_on(f"{BROKEN}:Raises")
    (finding,) = report.of("failed")
    assert finding.found == r"raises KeyError: 'no such\ntable'"
    assert isinstance(finding.cause, KeyError)
    assert len(report.of("skipped")) == len(report.findings) - 1
    assert {f.found for f in report.of("skipped")} >= {"not run, because 'runs' has not passed"}


def test_an_exception_fails_one_check_and_the_others_still_run() -> None:
    report = report_on(f"{BROKEN}:MixesPrecisions")
    assert report.of("failed")[0].found.startswith("raises RuntimeError: index_copy_()")
    assert "device" in names(report, "passed")  # a later check


def test_a_refused_t_is_reported_and_not_a_failure() -> None:
    report = report_on(f"{BROKEN}:NeedsTwoSteps", [CHECKS[0], CHECKS[1]])
    assert names(report, "passed") == ["runs", "steps"]
    assert (
        report.findings[1].found == "T=1 refused: ValueError: num_steps must be at least 2, got 1"
    )


def test_random_codes_are_compared_by_their_distribution() -> None:
    report = report_on("rate")
    found = {finding.check.name: finding.found for finding in report.findings}
    assert found["own image"] == "the means of 48 draws agree within 6 standard errors"
    assert found["generator"] == "random and repeatable"
    assert names(report, "skipped") == ["same in training"]


def test_checks_leave_the_global_generators_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    report_on("rate")
    assert torch.equal(torch.rand(3), expected)


# --- compiled neurons -----------------------------------------------------------------------------


def silent(loop: Callable[..., Any], *constants: Any) -> Callable[..., Any]:
    """Return a wrong compilation: no neuron spikes, and no gradient passes."""

    def run(cur: Tensor, *others: Tensor) -> Any:
        zeros = torch.zeros_like(cur)
        return zeros if loop is lif_backends._spikes else (zeros, None, None)

    return run


def refused(loop: Callable[..., Any], *constants: Any) -> Callable[..., Any]:
    raise RuntimeError("no such instruction")


def test_compiled_neurons_that_give_other_results_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lif_backends, "_compile", silent)
    (finding,) = report_on("direct", [compiled]).findings
    assert (finding.outcome, finding.found) == ("failed", "compiled results differ by 1e+02 %")


def test_neurons_that_cannot_be_compiled_may_run_uncompiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lif_backends, "_compile", refused)
    monkeypatch.setattr(lif_backends, "_has_failed", False)
    (finding,) = report_on("direct", [compiled]).findings
    reason = "neurons run uncompiled: RuntimeError: no such instruction"
    assert (finding.outcome, finding.found) == ("passed", f"falls back: {reason}")


@pytest.mark.slow  # seconds of compiling
@pytest.mark.parametrize("plugin", ["gac", "csnn[width=4]"])
def test_compiled_neurons_of_shipped_plug_ins_agree(plugin: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of torch about its own code
        (finding,) = report_on(plugin, [compiled]).findings
    assert finding.outcome == "passed" and finding.found.startswith("compiled, equal up to ")


MLP = """
from torch import nn
from codingbench.backbone import Backbone, conv_bn
from codingbench.neurons import over_time

class Mlp(Backbone):
    stem_channels = 4

    def __init__(self, task):
        super().__init__(task)
        pixels = self.stem_channels * task.height * task.width
        self.first, self.second = self.make_neuron(), self.make_neuron()
        self.hidden = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 32), nn.BatchNorm1d(32))
        self.last = nn.Linear(32, task.num_classes)

    def make_stem(self, channels):
        return conv_bn(channels, self.stem_channels, kernel_size=3)

    def forward(self, cur):
        return over_time(self.last, self.second(over_time(self.hidden, self.first(cur))))
"""


def test_a_gradient_of_rounding_errors_is_not_compared_relatively() -> None:
    rounding = torch.tensor([5.9e-7, 0.0]), torch.tensor([5.9e-7 + 1.1e-8, 0.0])
    assert distance(*rounding) < 0.001  # 1.9 % of the gradient
    assert distance(torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.02])) == pytest.approx(
        0.02 / 1.02
    )
    assert distance(torch.full((5,), 1e-6), torch.full((5,), -1e-6)) == pytest.approx(0.2)


@pytest.mark.slow  # seconds of compiling
def test_a_correct_mlp_passes_all_checks(tmp_path: Path) -> None:
    (tmp_path / "mlp.py").write_text(MLP)
    report = check_plugin(str(tmp_path / "mlp.py"))  # the only class of the file
    assert report.plugin == "Mlp" and not report.of("failed")


def test_the_only_class_of_a_file_is_found(tmp_path: Path) -> None:
    file = tmp_path / "mlp.py"
    file.write_text(MLP)
    assert with_class(f"{file}[width=3]") == f"{file}:Mlp[width=3]"
    file.write_text(MLP + "class Other(Mlp):\n    pass\n")
    assert with_class(str(file)) == str(file)  # refused later, with both names
    assert with_class("direct") == "direct"


# --- the command ----------------------------------------------------------------------------------


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Run ``codingbench`` with these words and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["codingbench", *words])
    monkeypatch.setenv("COLUMNS", "100")
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_a_correct_plug_in_exits_with_status_0_and_a_summary(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "check", "rate[gain=0.5]") == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[-1] == (
        "encoder rate[gain=0.5]: 22 checks passed, 0 failed, 2 skipped (same in training, compiled)"
    )
    assert "why it matters:" not in shown.out and shown.err == ""


def test_a_broken_plug_in_exits_with_status_1_and_says_why_it_matters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "check", f"{BROKEN}:Raises") == 1
    shown = capsys.readouterr()
    assert "every cell" in shown.out
    assert "Traceback" not in shown.out + shown.err


def test_debug_shows_the_tracebacks_of_exceptions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "--debug", "check", f"{BROKEN}:Raises") == 1
    err = capsys.readouterr().err
    assert "Traceback" in err and 'raise KeyError("no such\\ntable")' in err


def test_json_has_every_check_with_expectation_and_finding() -> None:
    report = report_on(f"{BROKEN}:LooksAhead")
    shown = json.loads(str(render(report, "json")))
    assert [*shown] == ["kind", "plugin", "passed", "failed", "undecided", "skipped", "checks"]
    assert (shown["kind"], shown["plugin"]) == ("backbone", "LooksAhead")
    assert (shown["passed"], shown["failed"], shown["skipped"]) == (20, 1, 0)
    assert {
        "check": "no future",
        "outcome": "failed",
        "expected": "the result of step t does not depend on later steps",
        "found": "currents from step 2 on change the logits of earlier steps",
        "matters": "the accuracy after t < T steps would use steps that have not happened yet",
    } in shown["checks"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["direkt"], "error: unknown plug-in 'direkt'; did you mean 'direct'?"),
        (
            ["gac[kernel_size=0]"],
            "error: gac[kernel_size=0]: ValueError: kernel_size and reduction",
        ),
        (["csnn[widht=4]"], "error: unknown parameter of backbone csnn 'widht'; did you mean"),
        (["nowhere.py:Mine"], "error: no file 'nowhere.py' for plug-in nowhere.py:Mine"),
        ([f"{BROKEN}:Mine"], "error: unknown class in"),
        (
            [f"{BROKEN}:Any"],
            "error: a plug-in must be an Encoder or a Backbone, but Any is neither",
        ),
        (["rate", "--format", "yaml"], "error: unknown format 'yaml' (known: json, table)"),
    ],
)
def test_a_plug_in_that_cannot_be_loaded_exits_with_status_2_and_one_line(
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, "check", *words) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    assert shown.err.startswith(message)


SLIPS = """
import torch
from codingbench.encoder import PixelEncoder

class Undeclared(PixelEncoder):
    def spikes(self, images, generator):
        return images.expand(self.num_steps, *images.shape).round()

class Empty(PixelEncoder):
    emits = "binary"

class Boolean(PixelEncoder):
    emits = "binary"
    def spikes(self, images, generator):
        return images.expand(self.num_steps, *images.shape) > 0.5
"""


def test_checks_that_a_failed_one_prevents_are_one_line_for_people_and_all_in_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = report_on(f"{BROKEN}:Raises")
    reason = "not run, because 'runs' has not passed"
    blocked = [finding for finding in report.findings if finding.found == reason]
    shown = repr(PluginCheck(report))
    assert shown.count("not run") == 1
    assert f"skipped  {len(blocked)} checks: {reason}" in shown.splitlines()
    as_json = json.loads(str(render(report, "json")))["checks"]
    assert len([row for row in as_json if row["found"] == reason]) == len(blocked) > 10
    assert call(monkeypatch, "check", f"{BROKEN}:Raises") == 1
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped")]
    assert len(rows) == 1 and " checks " in rows[0]


def test_a_single_prevented_check_keeps_its_name() -> None:
    report = report_on(f"{BROKEN}:DividesByTheBrightest")
    assert [f.check.name for f in report.findings if f.blocked_by] == ["distinct results"]
    assert collapsed(report) == report.findings


def test_a_coding_without_emits_is_refused_with_the_allowed_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slips.py").write_text(SLIPS)
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "check", "slips.py:Undeclared") == 2
    assert capsys.readouterr().err == (
        "error: Undeclared: ValueError: "
        "Undeclared must declare emits: one of binary, signed, graded, real\n"
    )


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Empty", "raises NotImplementedError: Empty must define spikes(images, generator)"),
        (
            "Boolean",
            "raises TypeError: Boolean must emit a floating-point dtype such as torch.float32, "
            "got torch.bool",
        ),
    ],
)
def test_a_common_slip_is_explained_by_the_first_check(
    name: str, found: str, tmp_path: Path
) -> None:
    (tmp_path / "slips.py").write_text(SLIPS)
    first = report_on(f"{tmp_path / 'slips.py'}:{name}").findings[0]
    assert (first.check.name, first.outcome, first.found) == ("runs", "failed", found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slips", "error: unknown plug-in 'slips'; did you mean "),
        ("slips.py", "error: slips.py does not say which class: expected slips.py:Class; did you "),
    ],
)
def test_a_file_of_the_current_folder_is_suggested(
    text: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "slips.py").write_text(SLIPS)
    monkeypatch.chdir(tmp_path)
    assert call(monkeypatch, "check", text) == 2
    err = capsys.readouterr().err
    assert err.startswith(message) and err.count("\n") == 1
    assert "./slips.py:Undeclared or ./slips.py:Empty or ./slips.py:Boolean?" in err


def test_a_name_stands_for_an_encoder_or_a_backbone() -> None:
    assert plugin_under_test("direct[spiking=false]").kind == "encoder"
    assert plugin_under_test("csnn").kind == "backbone"
    assert plugin_under_test(f"{BROKEN}:Small").kind == "backbone"
    with pytest.raises(SpecError, match="expected name"):
        plugin_under_test("direct[")
