"""Runs use torch without its compiler, and with the same results."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from codingbench.runtime import devices, lean_torch

RUN = """
import sys
from codingbench.cli.main import main
main()
assert not {"torch._dynamo", "torch._inductor", "sympy", "triton"} & set(sys.modules)
"""
OPTIONS = ("--encoders=direct", "--T=1", "--epochs=1", "--train-samples=20", "--test-samples=10")


def test_a_run_imports_no_compiler(tmp_path: Path) -> None:
    options = ("run", *OPTIONS, "--device=cpu", "--results", str(tmp_path))
    command = [sys.executable, "-c", RUN, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "direct" in done.stdout


FUSED = """
import os
import sys
os.environ["TRITON_INTERPRET"] = "1"
import torch
from torch import nn
from codingbench.neurons import MultiStepLeaky, fused, launch, use_backend
from codingbench.neurons.backends import backend_run
with use_backend("fused"):
    MultiStepLeaky()(torch.ones(2, 3, requires_grad=True)).sum().backward()
lif = launch.LIF(0.5, 1.0, "zero delayed", "triangle", 0.0, 0.0)
fused.norm_fire(torch.ones(2, 3, 4, 1, 1, requires_grad=True), nn.BatchNorm2d(4), lif)
assert backend_run("fused") == "fused" and fused._rehearse_fire.cache_info().currsize == 1
assert fused._rehearse_norm_fire.cache_info().currsize == 1
assert not {"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)
"""


def test_the_rehearsal_of_the_fused_kernels_imports_no_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FUSED], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_step_changes_parameters_as_the_optimizer_does(kind: type[torch.optim.SGD]) -> None:
    steps: list[list[Tensor]] = []
    for take in (lean_torch.take_step, lambda optimizer: optimizer.step()):
        weights = [torch.linspace(-1, 1, 7).requires_grad_(), torch.ones(2, 3).requires_grad_()]
        optimizer = kind(weights, lr=0.1, weight_decay=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            sum((weight**3).sum() for weight in weights).backward()  # type: ignore[union-attr]
            take(optimizer)
        assert all(weight.is_leaf and weight.requires_grad for weight in weights)
        steps.append([weight.detach() for weight in weights])
    assert all(torch.equal(lean, usual) for lean, usual in zip(*steps, strict=True))


def test_methods_exclude_themselves_from_compilation_once_there_is_a_compiler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Excluding:
        called = 0

        def method(self) -> str:
            type(self).called += 1
            return "excluded by torch"

        def plain(self) -> str:
            return "plain"

    method, plain = Excluding.method, Excluding.plain
    method.__wrapped__ = plain  # type: ignore[attr-defined]
    monkeypatch.delitem(sys.modules, "torch._dynamo", raising=False)
    lean_torch.spare_compiler(Excluding)
    call = vars(plain)["__dynamo_disable"]
    assert call(Excluding()) == "plain" and Excluding.called == 0
    monkeypatch.setitem(sys.modules, "torch._dynamo", torch)
    assert call(Excluding()) == "excluded by torch" and Excluding.called == 1
    assert "__dynamo_disable" not in vars(plain)


@pytest.mark.parametrize("mode", [0, 1, 2])
def test_algorithms_are_as_deterministic_as_asked(mode: int) -> None:
    before = torch.get_deterministic_debug_mode()
    try:
        lean_torch.set_deterministic(mode)
        assert torch.are_deterministic_algorithms_enabled() == (mode > 0)
        assert torch.is_deterministic_algorithms_warn_only_enabled() == (mode == 1)
        lean_torch.tell_compiler()
        from torch._inductor import config

        assert getattr(config, "deterministic", mode > 0) == (mode > 0)
        lean_torch.set_deterministic(0)
        assert not getattr(config, "deterministic", False)
    finally:
        lean_torch.set_deterministic(before)


def test_only_a_gpu_is_warmed_up_and_its_errors_are_left_to_the_run() -> None:
    assert devices.warm_up(torch.device("cpu")) is None
    devices._convolve_once(torch.device("cuda", 99))  # there is no such device
    devices._convolve_once(torch.device("cpu"))
