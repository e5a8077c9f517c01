"""The Triton kernels against the layers they stand for, run on a CPU by Triton's interpreter.

The eager definition is ``neuron(norm(y) + residual)`` of torch's batch normalisation and the eager
neuron. The full product of settings is among the thorough tests.
"""

import copy
import importlib.util
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from snntorch import surrogate
from torch import Tensor, nn

from codingbench.backbone import SpikingConv, build_network
from codingbench.counting.counter import OperationCounter
from codingbench.encoder import Task
from codingbench.neurons import MultiStepLeaky, fused, over_time, rectangle, triangle, use_backend
from codingbench.neurons.layout import to_channels_last
from codingbench.registry import BACKBONES, ENCODERS

pytest.importorskip("triton")

RESETS = [("zero", False), ("zero", True), ("subtract", False), ("subtract", True), ("none", True)]
SURROGATES = {
    "triangle": triangle,
    "rectangle": rectangle,
    "atan": surrogate.atan(1.5),
    "fast_sigmoid": surrogate.fast_sigmoid(10),
    "SFS": surrogate.SFS(5, -0.5),
    "spike_rate_escape": surrogate.spike_rate_escape(2, 0.7),
    "heaviside": surrogate.heaviside(),
    "straight_through_estimator": surrogate.straight_through_estimator(),
}
SHAPES = [  # T, B, C, H, W: blocks are up to 128 channels wide and hold 1,024 numbers
    (1, 2, 3, 5, 7),
    (2, 1, 17, 4, 3),
    (4, 2, 24, 6, 6),
    (5, 3, 1, 3, 3),
    (8, 1, 130, 2, 5),
]
LONG = (3, 6, 4, 16, 17)  # reductions in several chunks of rows


@pytest.fixture(scope="module")
def interpreted() -> Iterator[ModuleType]:
    """The kernels as Triton's interpreter runs them, whether or not Triton is imported already."""
    import triton.language as tl

    spec = importlib.util.find_spec("codingbench.neurons.kernels")
    assert spec is not None and spec.loader is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        # tl.sum is itself a kernel, made for a GPU where Triton was imported before this test
        combine = tl.standard._sum_combine
        patch.setattr(tl, "sum", lambda x, axis: tl.reduce(x, axis, combine))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(autouse=True)
def _on_a_cpu(interpreted: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr(fused, "_kernels", lambda: interpreted)
    yield
    assert not fused.has_failed()


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Case:
    """Features, their normalisation and neuron, and what follows them."""

    neuron: MultiStepLeaky
    norm: nn.BatchNorm2d
    y: Tensor
    residual: Tensor | None

    @classmethod
    def of(cls, shape: tuple[int, ...], reset: str, is_delayed: bool, name: str, has_residual: bool,
           dtype: torch.dtype = torch.float32, beta: float = 0.5) -> "Case":  # fmt: skip
        neuron = MultiStepLeaky(
            beta, 0.7, SURROGATES[name], reset_mechanism=reset, reset_delay=is_delayed
        )
        norm = nn.BatchNorm2d(shape[2], momentum=0.3)
        with torch.no_grad():
            norm.weight.uniform_(0.5, 2, generator=draws(1))
            norm.bias.uniform_(-0.2, 0.6, generator=draws(2))
        y = torch.randn(shape, generator=draws(3)) * 3 + 4
        residual = torch.randn(shape, generator=draws(4)) if has_residual else None
        as_given = lambda x: to_channels_last(x.to(dtype)).requires_grad_()  # noqa: E731
        return cls(neuron, norm, as_given(y), None if residual is None else as_given(residual))

    def eager(self) -> tuple[Tensor, ...]:
        """Spikes and currents."""
        cur = over_time(self.norm, self.y)
        cur = cur if self.residual is None else cur + self.residual
        with use_backend("eager"):
            wide: Tensor = self.neuron(cur.float())
        return wide.to(cur.dtype), cur

    def fused(self) -> tuple[Tensor, ...]:
        """The same from the kernels; without a residual nobody else reads the currents."""
        lif = self.neuron.lif()
        assert lif is not None
        found = fused.norm_fire(self.y, self.norm, lif, self.residual)
        assert found is not None
        return found if found[1] is not None else found[:1]

    def both(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Results, gradients and buffers by name: of the kernels, and expected."""
        twin = copy.deepcopy(self)
        outputs = self.fused()
        return self._known(outputs), twin._known(twin.eager()[: len(outputs)])

    def _known(self, outputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        loss = sum(
            (out.float() * torch.randn(out.shape, generator=draws(5 + i))).sum()
            for i, out in enumerate(outputs)
        )
        assert isinstance(loss, Tensor)
        loss.backward()
        found = dict(zip(("spk", "cur"), outputs, strict=False))
        parameters = self.norm.named_parameters()
        found |= {f"by {name}": p.grad for name, p in parameters if p.grad is not None}
        found |= dict(self.norm.named_buffers())
        found |= {"by y": self.y.grad} if self.y.grad is not None else {}
        if self.residual is not None and self.residual.grad is not None:
            found["by residual"] = self.residual.grad
        return {name: value.detach() for name, value in found.items()}


def assert_same(case: Case, tolerance: float) -> None:
    found, expected = case.both()
    assert found.keys() == expected.keys()
    assert 0 < expected["spk"].float().mean() < 1
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape
        scale = value.float().abs().max().item()
        torch.testing.assert_close(
            found[name].float(),
            value.float(),
            rtol=tolerance,
            atol=tolerance * scale,
            msg=lambda text, name=name: f"{name}: {text}",
        )


FEW = [
    (*RESETS[i % 5], list(SURROGATES)[i % 8], shape, i % 2 == 0)
    for i, shape in enumerate([*SHAPES, LONG, *SHAPES])
]


@pytest.mark.parametrize("reset, is_delayed, name, shape, has_residual", FEW)
def test_fused_is_normalisation_sum_and_neuron(
    reset: str, is_delayed: bool, name: str, shape: tuple[int, ...], has_residual: bool
) -> None:
    assert_same(Case.of(shape, reset, is_delayed, name, has_residual), 1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("shape", [*SHAPES, LONG], ids=str)
@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("reset, is_delayed", RESETS)
def test_fused_for_every_surrogate(
    reset: str, is_delayed: bool, has_residual: bool, shape: tuple[int, ...]
) -> None:
    for name in SURROGATES:
        assert_same(Case.of(shape, reset, is_delayed, name, has_residual), 1e-5)


@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("reset, is_delayed", RESETS)
def test_in_bfloat16_all_is_rounded_where_the_layers_round(
    reset: str, is_delayed: bool, has_residual: bool
) -> None:
    case = Case.of((4, 2, 24, 6, 6), reset, is_delayed, "triangle", has_residual, torch.bfloat16)
    found, expected = case.both()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        apart = (found[name].float() - value.float()).abs()
        scale = value.float().abs().max()
        # a current that rounds the other way may spike the other way, and is then another neuron
        assert (apart > 2**-7 * scale).float().mean() <= 0.002, name
        if "by" not in name and "spk" not in name:
            assert apart.max() <= 2**-7 * scale, name


def test_statistics_of_features_whose_mean_is_large_lose_no_digits() -> None:
    case = Case.of((2, 4, 6, 9, 9), "zero", False, "triangle", False)
    with torch.no_grad():
        case.y.add_(1000)
    wide = case.y.detach().double()
    case.fused()
    var, mean = torch.var_mean(wide, (0, 1, 3, 4))
    assert case.norm.running_mean is not None and case.norm.running_var is not None
    torch.testing.assert_close(case.norm.running_mean.double(), 0.3 * mean, rtol=1e-6, atol=0)
    torch.testing.assert_close(case.norm.running_var.double(), 0.7 + 0.3 * var, rtol=1e-5, atol=0)


def test_one_value_per_channel_is_refused_as_torch_does() -> None:
    case = Case.of((1, 1, 3, 1, 1), "zero", False, "triangle", False)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        case.fused()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["contiguous", "channels-last", "constant", "features"])
@pytest.mark.parametrize("reset, is_delayed", RESETS[:3])
def test_a_neuron_alone_is_the_eager_one(
    reset: str, is_delayed: bool, layout: str, dtype: torch.dtype
) -> None:
    neuron = MultiStepLeaky(0.5, 0.7, reset_mechanism=reset, reset_delay=is_delayed)
    cur = torch.randn(3, 2, 5, 4, 6, generator=draws(0), dtype=dtype).add(0.4)
    if layout == "channels-last":
        cur = to_channels_last(cur)
    elif layout == "constant":
        cur = to_channels_last(cur)[0].expand(cur.shape)
    elif layout == "features":
        cur = cur[:, :, :, 0, 0].contiguous()
    weights = torch.randn(cur.shape, generator=draws(1), dtype=dtype)

    def results(wide: torch.dtype) -> tuple[Tensor, Tensor]:
        given = cur.to(wide).requires_grad_()
        spk = neuron(given)
        return spk, torch.autograd.grad((spk * weights).sum(), given)[0]

    spk, grad = results(dtype)
    with use_backend("eager"):
        expected, expected_grad = results(torch.float32)
    assert torch.equal(spk.float(), expected)
    torch.testing.assert_close(grad, expected_grad.to(dtype), rtol=1e-6, atol=1e-6)
    assert spk.dtype == grad.dtype == dtype
    if layout in ("channels-last", "constant"):
        assert spk.stride(2) == 1


# --- whole networks -------------------------------------------------------------------------------

TASK = Task(2, 10, 3, 12, 12, (0.5,) * 3, (0.25,) * 3)


def trained(encoder: str, backbone: str, backend: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of a training step, the gradients, and all buffers after it."""
    network = build_network(ENCODERS.resolve(encoder), BACKBONES.resolve(backbone), TASK, seed=0)
    images = torch.rand(3, 3, 12, 12, generator=draws(1))
    with use_backend(backend):
        logits: Tensor = network(to_channels_last(images), draws(2))
        (logits * torch.randn(logits.shape, generator=draws(3))).sum().backward()
    named = network.named_parameters()
    found = {name: p.grad for name, p in named if p.grad is not None}
    return logits.detach(), found | dict(network.named_buffers())


@pytest.mark.parametrize(
    "encoder, backbone",
    [
        ("direct", "csnn[width=4]"),
        ("rate", "csnn[width=4]"),
        pytest.param("gac", "ms_resnet18", marks=pytest.mark.thorough),
        pytest.param("direct", "sew_resnet18", marks=pytest.mark.thorough),
        pytest.param("latency", "vgg9", marks=pytest.mark.thorough),
    ],
)
def test_a_network_trains_the_same_fused_and_eager(
    encoder: str, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[str] = []
    norm_fire = fused.norm_fire

    def counted(*args: Any) -> Any:
        launched.append("norm_fire")
        return norm_fire(*args)

    monkeypatch.setattr(fused, "norm_fire", counted)
    logits, found = trained(encoder, backbone, "fused")
    assert launched
    expected_logits, expected = trained(encoder, backbone, "eager")
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-4)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(value.abs().max()) if value.is_floating_point() else 0.0
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4 * scale, msg=name)
