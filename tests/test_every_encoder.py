"""The contract of encoders, for every registered one, on real images."""

import pytest
import torch

from codingbench.backbone import build_network
from codingbench.cells.network import task_of
from codingbench.conformance.examination import CHECKS, examine, plugin_under_test
from codingbench.datasets import get_info
from codingbench.registry import BACKBONES, ENCODERS

VARIANTS = [
    "direct[spiking=false]",
    "latency[scale=log]",
    "rate[gain=0.5]",
    "gac[kernel_size=3]",
    "bitplane[then=latency]",
    "learned_phase[spiking=false]",
    "ternary[learned_amplitude=true]",
    "published_step[code=ttfs]",
    "published_step[code=phase]",
]
CODINGS = [*ENCODERS.names(), *VARIANTS]
thorough_variants = [pytest.param(coding, marks=pytest.mark.thorough) for coding in VARIANTS]


@pytest.mark.parametrize("coding", [*ENCODERS.names(), *thorough_variants])
def test_every_coding_keeps_the_contract(coding: str) -> None:
    uncompiled = [check for check in CHECKS if check.name != "compiled"]  # compiling takes seconds
    report = examine(plugin_under_test(coding), uncompiled)
    assert {f.check.name: f.found for f in report.of("failed")} == {}
    assert not report.of("undecided")
    assert {f.check.name for f in report.of("skipped")} <= {"same in training"}  # for random codes


@pytest.mark.parametrize("coding", CODINGS)
def test_a_wrong_shape_is_refused_with_both_shapes(coding: str) -> None:
    plugins = ENCODERS.resolve(coding), BACKBONES.resolve("csnn")
    encoder = build_network(*plugins, task_of(get_info("fashion_mini"), 4), seed=0).encoder
    with pytest.raises(ValueError, match=r"must emit shape \(4, 2, 1, 5, 5\), got \(3, 2, 1, 5, 5"):
        encoder._checked(torch.zeros(3, 2, 1, 5, 5), (2, 1, 5, 5))
