"""The Triton kernels against the layers that they replace.

The eager definition is ``neuron(norm(y) + residual)`` of torch's batch normalisation and the eager
neuron. Triton's interpreter runs the kernels on a CPU; tests marked cuda compile them. All
combinations of the settings are thorough tests.
"""

import copy
import importlib.util
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from snntorch import surrogate
from torch import Tensor, nn

from codingbench.backbone import SpikingConv, build_network, move_network
from codingbench.counting.counter import OperationCounter
from codingbench.encoder import Task
from codingbench.neurons import (
    MultiStepLeaky,
    ahead,
    fused,
    launch,
    layout,
    over_time,
    packed,
    rectangle,
    triangle,
    use_backend,
)
from codingbench.neurons.layout import to_channels_last
from codingbench.registry import BACKBONES, ENCODERS

pytest.importorskip("triton")

RESETS = [("zero", False), ("zero", True), ("subtract", False), ("subtract", True), ("none", True)]
SURROGATES = {
    "triangle": triangle,
    "rectangle": rectangle,
    "atan": surrogate.atan(1.5),
    "fast_sigmoid": surrogate.fast_sigmoid(10),
    "sigmoid": surrogate.sigmoid(2),
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


def rounded_as_a_gpu_does(x: Any, given: Any, wanted: Any, rounding_mode: Any) -> Any:
    """Convert between single precision and bfloat16; the interpreter itself truncates."""
    as_torch = {"fp32": torch.float32, "bf16": torch.bfloat16}
    bits = {"fp32": torch.int32, "bf16": torch.int16}
    source = torch.from_numpy(x.copy().view(f"int{given.primitive_bitwidth}"))
    converted = source.view(as_torch[given.name]).to(as_torch[wanted.name])
    return converted.view(bits[wanted.name]).numpy().view(f"uint{wanted.primitive_bitwidth}")


def rounded_once(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """Multiply and add with one rounding; the interpreter itself rounds the product, too."""
    product = x.data.astype("float64") * y.data  # exact for numbers in single precision
    return type(x)((product + z.data).astype(x.data.dtype), z.dtype.scalar)


@pytest.fixture(scope="module")
def interpreted() -> Iterator[ModuleType]:
    """The kernels for Triton's interpreter, even if Triton has already been imported for a GPU."""
    import triton.language as tl

    spec = importlib.util.find_spec("codingbench.neurons.kernels")
    assert spec is not None and spec.loader is not None
    with pytest.MonkeyPatch.context() as patch:  # type: ignore[no-untyped-call, unused-ignore]
        patch.setenv("TRITON_INTERPRET", "1")
        # tl.sum is itself a kernel, made for a GPU where Triton was imported before this test
        combine = tl.standard._sum_combine
        patch.setattr(tl, "sum", lambda x, axis: tl.reduce(x, axis, combine))
        patch.setattr("triton.runtime.interpreter._convert_float", rounded_as_a_gpu_does)
        patch.setattr("triton.runtime.interpreter.InterpreterBuilder.create_fma", rounded_once)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(autouse=True)
def _on_a_cpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Interpret the kernels, except in tests that need a device."""
    if request.node.get_closest_marker("cuda") is None:
        interpreted = request.getfixturevalue("interpreted")
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        monkeypatch.setattr(launch, "kernels", lambda: interpreted)
        monkeypatch.setattr(layout, "keeps_channels_last", lambda *where: True)
    yield
    assert not fused.has_failed()


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Case:
    """Features, their normalisation and neuron, and a residual."""

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

        def as_given(x: Tensor) -> Tensor:
            return to_channels_last(x.to(dtype)).requires_grad_()

        return cls(neuron, norm, as_given(y), None if residual is None else as_given(residual))

    def eager(self) -> tuple[Tensor, ...]:
        """Return the spikes and currents of the separate layers."""
        cur = over_time(self.norm, self.y)
        cur = cur if self.residual is None else cur + self.residual
        with use_backend("eager"):
            wide: Tensor = self.neuron(cur.to(torch.promote_types(cur.dtype, torch.float32)))
        return wide.to(cur.dtype), cur

    def fused(self) -> tuple[Tensor, ...]:
        """Return those of the kernels, which write no currents without a residual."""
        lif = self.neuron.lif()
        assert lif is not None
        found = fused.norm_fire(self.y, self.norm, lif, self.residual)
        assert found is not None
        return tuple(out for out in found if out is not None)

    def both(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return results, gradients and buffers by name, of the kernels and of the eager layers."""
        twin = copy.deepcopy(self)
        outputs = self.fused()
        return self._known(outputs), twin._known(twin.eager()[: len(outputs)])

    def on(self, device: torch.device) -> "Case":
        """Return the same case on another device."""
        self.neuron.to(device)
        self.norm.to(device)
        self.y = self.y.detach().to(device).requires_grad_()
        if self.residual is not None:
            self.residual = self.residual.detach().to(device).requires_grad_()
        return self

    def in_double(self) -> "Case":
        """Return the same case in double precision."""
        twin = copy.deepcopy(self)
        twin.norm.double()
        twin.y = self.y.detach().double().requires_grad_()
        if self.residual is not None:
            twin.residual = self.residual.detach().double().requires_grad_()
        return twin

    def _known(self, outputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
        loss = sum(
            (out * torch.randn(out.shape, generator=draws(5 + i)).to(out.device)).sum(
                dtype=torch.float64
            )
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


def assert_same(case: Case) -> None:
    """Check that the kernels are as close to double precision as the eager layers, or to 1e-5."""
    wide = case.in_double()
    outputs = 1 if case.residual is None else 2
    exact = wide._known(wide.eager()[:outputs])
    found, eager = case.both()
    assert found.keys() == eager.keys() == exact.keys()
    assert 0 < eager["spk"].mean() < 1
    for name, value in exact.items():
        assert found[name].dtype == eager[name].dtype and found[name].shape == value.shape
        rounding = (eager[name] - value).abs().max().item()
        limit = 4 * rounding + 1e-5 * value.abs().max().item()
        apart = (found[name] - value).abs().max().item()
        assert apart <= limit, f"{name}: {apart:.2e}, expected at most {limit:.2e}"


FEW = [
    (*RESETS[i % 5], list(SURROGATES)[i % 8], shape, i % 2 == 0)
    for i, shape in enumerate([*SHAPES, LONG, *SHAPES])
]


@pytest.mark.parametrize("reset, is_delayed, name, shape, has_residual", FEW)
def test_fused_is_normalisation_sum_and_neuron(
    reset: str, is_delayed: bool, name: str, shape: tuple[int, ...], has_residual: bool
) -> None:
    assert_same(Case.of(shape, reset, is_delayed, name, has_residual))


@pytest.mark.thorough
@pytest.mark.parametrize("shape", [*SHAPES, LONG], ids=str)
@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("reset, is_delayed", RESETS)
def test_fused_for_every_surrogate(
    reset: str, is_delayed: bool, has_residual: bool, shape: tuple[int, ...]
) -> None:
    for name in SURROGATES:
        assert_same(Case.of(shape, reset, is_delayed, name, has_residual))


def assert_same_in_bfloat16(case: Case) -> None:
    """Check that results are rounded where the layers round them."""
    found, expected = case.both()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        apart = (found[name].float() - value.float()).abs()
        scale = value.float().abs().max()
        # a current that rounds the other way may spike the other way, which changes its gradients
        assert (apart > 2**-7 * scale).float().mean() <= 0.002, name
        if name in ("cur", "running_mean", "running_var"):
            assert apart.max() <= 2**-8 * scale, name


@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("reset, is_delayed", RESETS)
def test_in_bfloat16_results_are_rounded_where_the_layers_round(
    reset: str, is_delayed: bool, has_residual: bool
) -> None:
    shape = (4, 2, 24, 6, 6)
    assert_same_in_bfloat16(
        Case.of(shape, reset, is_delayed, "triangle", has_residual, torch.bfloat16)
    )


def assert_same_spikes(reset: str, is_delayed: bool, device: torch.device) -> None:
    """Check spikes that depend on whether the product of decay and membrane is rounded."""
    neuron = MultiStepLeaky(0.9, 0.7, reset_mechanism=reset, reset_delay=is_delayed).to(device)
    decay, threshold = torch.tensor(0.9), torch.tensor(0.7)
    first = torch.rand(20_000, generator=draws(0)) * 0.7
    second = torch.nextafter(threshold - decay * first, threshold)  # the membrane is at 0.7
    once, twice = decay * first.double() + second, decay * first + second
    assert ((once.float() > threshold) != (twice > threshold)).sum() > 1000
    cur = torch.stack([first, second, first, second]).to(device)
    lif = neuron.lif()
    assert lif is not None
    spk = fused.fire(cur, lif)
    with use_backend("eager"):
        expected = neuron(cur)
    assert spk is not None and torch.equal(spk, expected) and 0.1 < spk.mean() < 0.9


@pytest.mark.parametrize("reset, is_delayed", RESETS)
def test_spikes_of_given_currents_are_the_same_for_a_decay_whose_products_are_rounded(
    reset: str, is_delayed: bool
) -> None:
    assert_same_spikes(reset, is_delayed, torch.device("cpu"))


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
    """Return the logits of a training step, the gradients, and all buffers after it."""
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
        ("direct", "ms_resnet9[width=4]"),
        pytest.param("direct[spiking=false]", "max_resnet18", marks=pytest.mark.thorough),
        pytest.param("gac", "ms_resnet18", marks=pytest.mark.thorough),
        pytest.param("direct", "sew_resnet18", marks=pytest.mark.thorough),
        pytest.param("latency", "vgg9", marks=pytest.mark.thorough),
    ],
)
def test_a_network_trains_the_same_fused_and_eager(
    encoder: str, backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = launches(monkeypatch, "norm_fire")
    logits, found = trained(encoder, backbone, "fused")
    assert launched
    expected_logits, expected = trained(encoder, backbone, "eager")
    torch.testing.assert_close(logits, expected_logits, rtol=1e-4, atol=1e-4)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = float(value.abs().max()) if value.numel() and value.is_floating_point() else 0.0
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4 * scale, msg=name)


def launches(monkeypatch: pytest.MonkeyPatch, *names: str) -> list[str]:
    """Return a list that records the calls of functions of ``fused``, by name."""
    called: list[str] = []
    for name in names:
        original = getattr(fused, name)

        def counted(*args: Any, original: Any = original, name: str = name) -> Any:
            called.append(name)
            return original(*args)

        monkeypatch.setattr(fused, name, counted)
    return called


def layer() -> tuple[SpikingConv, Tensor]:
    backbone = BACKBONES.resolve("csnn").build(TASK)
    return SpikingConv(backbone, 3, 4), torch.rand(2, 2, 3, 5, 5, generator=draws(0))


def test_counting_sees_every_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    called = launches(monkeypatch, "norm_fire", "fire")
    network = build_network(
        ENCODERS.resolve("direct"), BACKBONES.resolve("csnn[width=4]"), TASK, seed=0
    )
    rows = []
    for backend in ("fused", "eager"):
        with use_backend(backend), torch.no_grad(), OperationCounter(network.eval(), 2) as counter:
            network(torch.rand(3, 3, 12, 12, generator=draws(1)), draws(2))
        rows.append(counter.layer_rows())
    assert not called and rows[0] == rows[1]


def test_layers_with_hooks_run_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    called = launches(monkeypatch, "norm_fire")
    block, spk = layer()
    expected = block(spk)
    assert called == ["norm_fire"]
    seen: list[str] = []
    for part in (block.conv.get_submodule("1"), block.neuron):
        handle = part.register_forward_hook(lambda m, args, out: seen.append(type(m).__name__))
        torch.testing.assert_close(block(spk), expected, rtol=1e-5, atol=1e-5)
        handle.remove()
    assert seen == ["BatchNorm2d", "MultiStepLeaky"] and called == ["norm_fire"]


def test_evaluation_is_fused_and_its_gradient_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    called = launches(monkeypatch, "norm_fire")
    block, spk = layer()
    nn.init.ones_(block.conv.get_parameter("1.bias"))
    block(spk)
    block.eval()
    buffers = {name: value.clone() for name, value in block.named_buffers()}
    with torch.no_grad():
        found = block(spk)
    assert called == ["norm_fire"] * 2
    expected = block(spk)
    assert called == ["norm_fire"] * 2 and expected.requires_grad
    assert torch.equal(found, expected) and 0 < found.mean() < 1
    for name, value in block.named_buffers():
        assert torch.equal(value, buffers[name]), name


@pytest.mark.parametrize("reason", ["learnt", "per feature", "unknown surrogate", "double"])
def test_neurons_that_the_kernels_do_not_know_run_unfused(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = launches(monkeypatch, "norm_fire", "fire")
    known: dict[str, dict[str, Any]] = {
        "learnt": {"learn_beta": True},
        "per feature": {"beta": torch.linspace(0.2, 0.8, 4).reshape(4, 1, 1)},
        "unknown surrogate": {"spike_grad": surrogate.SSO()},
        "double": {},
    }
    block, spk = layer()
    block.neuron = MultiStepLeaky(**known[reason])
    if reason == "double":
        block, spk = block.double(), spk.double()
    block(spk).sum().backward()
    assert not called


def test_a_block_finds_the_spikes_of_the_next_neuron_and_an_edited_current_does_not_keep_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called = launches(monkeypatch, "norm_fire", "fire")
    backbone = BACKBONES.resolve("csnn[width=4]").build(TASK)
    block = backbone.get_submodule("blocks")[0]
    cur = block(torch.rand(2, 2, 4, 6, 6, generator=draws(0)))
    assert called == ["fire", "norm_fire"]
    spk = backbone.make_neuron()(cur)
    assert called == ["fire", "norm_fire"]
    assert torch.equal(spk, backbone.make_neuron()(cur.clone())) and called[2:] == ["fire"]
    MultiStepLeaky(0.5, 0.3)(cur)
    assert called[3:] == ["fire"]
    with torch.no_grad():
        cur.mul_(2)
    backbone.make_neuron()(cur)
    assert called[4:] == ["fire"]


# --- compiling ahead ------------------------------------------------------------------------------


class KernelStub:
    """Compiles nothing; records its name once for each specialisation."""

    def __init__(self, name: str, arguments: list[str], compiled: list[str]) -> None:
        self.name, self.compiled = name, compiled
        self.params = [
            SimpleNamespace(do_not_specialize=argument in ("rows", "parts", "chunk"))
            for argument in arguments
        ]

    def warmup(self, *args: Any, grid: Any, **constants: Any) -> None:
        self.compiled.append(self.name)
        raise RuntimeError("nothing was compiled")


@pytest.fixture
def compiled(interpreted: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that are compiled ahead, in stubs that fail."""
    names: list[str] = []
    arguments = {name: getattr(interpreted, name).arg_names for name in KERNELS}
    stubs = {name: KernelStub(name, arguments[name], names) for name in KERNELS}
    monkeypatch.setattr(launch, "kernels", lambda: SimpleNamespace(**stubs))
    monkeypatch.setattr(ahead, "_known", set())
    return names


KERNELS = (
    *("statistics", "finish_statistics", "fire", "unpack"),
    *("adjoint", "finish_sums", "gradient_of_input"),
)


def network_of(backbone: str) -> nn.Module:
    return build_network(ENCODERS.resolve("rate"), BACKBONES.resolve(backbone), TASK, seed=0)


def test_kernels_are_compiled_once_ahead_and_leave_the_network_as_it_was(
    compiled: list[str],
) -> None:
    network, images = network_of("csnn[width=16]"), torch.rand(5, 3, 12, 12, generator=draws(1))
    state = {name: value.clone() for name, value in network.state_dict().items()}
    random = torch.get_rng_state()
    for _ in range(2):
        ahead.compile_kernels(network, images, "T = 3", nullcontext)
        assert set(compiled) == set(KERNELS) and len(compiled) < 40
        count = len(compiled)
    assert len(compiled) == count and not launch.only_compiles()
    assert torch.equal(torch.get_rng_state(), random)
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_a_training_step_and_a_validation_need_no_other_kernels(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network, images = network_of("csnn[width=16]"), torch.rand(7, 3, 12, 12, generator=draws(1))
    keys: list[set[Any]] = []
    original = ahead._Compiler._begin

    def noted(self: Any, key: Any, compile_kernel: Any) -> None:
        keys[-1].add(key)
        original(self, key, compile_kernel)

    monkeypatch.setattr(ahead._Compiler, "_begin", noted)
    keys.append(set())
    ahead.compile_kernels(network, images, "T = 3", nullcontext)
    keys.append(set())
    with ahead.compiling():
        network(images, draws(2)).sum().backward()
        with torch.no_grad():
            network.eval()(images[:3], draws(2))
    assert len(keys[1]) > 10 and {key[0] for key in keys[1]} == set(KERNELS)
    assert keys[1] <= keys[0]


# --- spikes kept as bits --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_steps", [1, 4, 8, 9, 16, 17, 32])
def test_packed_spikes_are_restored_in_dtype_and_layout(num_steps: int, dtype: torch.dtype) -> None:
    cur = to_channels_last(torch.randn(num_steps, 2, 3, 5, 4, generator=draws(0), dtype=dtype))
    spk = MultiStepLeaky(0.5, 0.4)(cur.requires_grad_())
    bits = packed.bits_of(spk)
    assert bits is not None
    assert bits.element_size() == (1 if num_steps <= 8 else 2 if num_steps <= 16 else 4)
    folded = spk.detach().flatten(0, 1)
    found = packed.Packed(bits, num_steps, folded.shape, folded.stride(), dtype).restore()
    assert torch.equal(found, folded) and 0 < found.mean() < 1
    assert found.stride() == folded.stride() and found.dtype == dtype


@pytest.mark.parametrize(
    "backbone, convolutions",
    [
        ("csnn[width=4]", 3),
        pytest.param("ms_resnet18", 16, marks=pytest.mark.thorough),
        pytest.param("sew_resnet18", 8, marks=pytest.mark.thorough),
    ],
)
def test_gradients_from_packed_spikes_have_the_same_bits(
    backbone: str, convolutions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    restored: list[packed.Packed] = []
    original = packed.Packed.restore

    def counted(self: packed.Packed) -> Tensor:
        restored.append(self)
        return original(self)

    monkeypatch.setattr(packed.Packed, "restore", counted)
    found = trained("direct", backbone, "fused")
    assert len(restored) == convolutions
    monkeypatch.setattr(packed, "bits_of", lambda spk: None)
    expected = trained("direct", backbone, "fused")
    assert len(restored) == convolutions
    assert torch.equal(found[0], expected[0]) and found[1].keys() == expected[1].keys()
    for name, value in expected[1].items():
        assert torch.equal(found[1][name], value), name


def test_spikes_are_freed_before_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[weakref.ref[Tensor]] = []
    original = packed.attach

    def noted(spk: Tensor, bits: Tensor | None) -> Tensor:
        seen.append(weakref.ref(spk))
        return original(spk, bits)

    monkeypatch.setattr(packed, "attach", noted)
    network = build_network(  # spikes of an encoder would be currents of the first block
        ENCODERS.resolve("direct[spiking=false]"), BACKBONES.resolve("csnn[width=4]"), TASK, seed=0
    )
    logits = network(torch.rand(3, 3, 12, 12, generator=draws(1)), draws(2))
    assert logits.requires_grad and len(seen) >= 4
    assert [spk() for spk in seen] == [None] * len(seen)


def test_modified_spikes_and_evaluation_keep_no_bits() -> None:
    conv, neuron = nn.Conv2d(3, 4, 3), MultiStepLeaky()
    cur = to_channels_last(torch.randn(2, 2, 3, 6, 6, generator=draws(0)).mul(2))
    with torch.no_grad():
        assert packed.bits_of(neuron(cur)) is None
    spk = neuron(cur.requires_grad_())
    assert packed.bits_of(spk) is not None
    with torch.no_grad():
        spk.mul_(3)
    assert packed.bits_of(spk) is None
    (grad,) = torch.autograd.grad(packed.convolve(conv, spk).sum(), conv.weight)
    (expected,) = torch.autograd.grad(over_time(conv, spk).sum(), conv.weight)
    assert torch.equal(grad, expected)


def test_kernels_that_only_fail_backwards_are_replaced_in_the_forward_pass(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("out of registers")

    monkeypatch.setattr(fused, "_has_failed", False)
    for rehearsal in (fused._rehearse_fire, fused._rehearse_norm_fire):
        rehearsal.cache_clear()
    block, spk = layer()
    monkeypatch.delenv("CODINGBENCH_DEBUG", raising=False)
    with monkeypatch.context() as broken:
        broken.setattr(launch, "adjoint", fails)
        with pytest.warns(UserWarning, match="neurons run without Triton: .*out of registers"):
            found = block(spk)
    found.sum().backward()
    assert fused.has_failed()
    monkeypatch.setattr(fused, "_has_failed", False)


# --- on a GPU -------------------------------------------------------------------------------------

CUDA = torch.device("cuda")


def on_cuda(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that needs a GPU."""
    skip = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    marked: Callable[..., None] = pytest.mark.cuda(skip(test))
    return marked


@on_cuda
@pytest.mark.parametrize("reset, is_delayed, name, shape, has_residual", FEW)
def test_compiled_kernels_are_normalisation_sum_and_neuron(
    reset: str, is_delayed: bool, name: str, shape: tuple[int, ...], has_residual: bool
) -> None:
    assert_same(Case.of(shape, reset, is_delayed, name, has_residual).on(CUDA))


@on_cuda
@pytest.mark.parametrize("reset, is_delayed", RESETS)
def test_compiled_spikes_of_given_currents_are_the_eager_ones(reset: str, is_delayed: bool) -> None:
    assert_same_spikes(reset, is_delayed, CUDA)


@on_cuda
@pytest.mark.parametrize("shape", [(4, 2, 24, 6, 6), (4, 32, 128, 32, 32)])
@pytest.mark.parametrize("has_residual", [False, True])
def test_compiled_kernels_in_bfloat16_repeat_themselves_and_round_as_the_layers(
    has_residual: bool, shape: tuple[int, ...]
) -> None:
    case = Case.of(shape, "zero", False, "triangle", has_residual, torch.bfloat16).on(CUDA)
    first, second = (copy.deepcopy(case) for _ in range(2))
    found, again = (each._known(each.fused()) for each in (first, second))
    for name, value in found.items():
        assert torch.equal(value, again[name]), name
    assert_same_in_bfloat16(case)


@on_cuda
@pytest.mark.parametrize("num_steps", [1, 4, 9, 32])
def test_compiled_kernels_restore_packed_spikes(num_steps: int) -> None:
    cur = torch.randn(num_steps, 3, 5, 7, 6, generator=draws(0)).to(CUDA, torch.bfloat16)
    spk = MultiStepLeaky(0.5, 0.4)(to_channels_last(cur).requires_grad_())
    bits, folded = packed.bits_of(spk), spk.detach().flatten(0, 1)
    assert bits is not None
    found = packed.Packed(bits, num_steps, folded.shape, folded.stride(), spk.dtype).restore()
    assert torch.equal(found, folded) and found.stride() == folded.stride()


@on_cuda
@pytest.mark.parametrize("backbone", ["csnn", "ms_resnet9", "ms_resnet18", "sew_resnet18", "vgg9"])
def test_packed_spikes_change_no_gradient_and_take_less_memory(
    backbone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    results, peaks = [], []
    for is_packed in (True, False, True):
        with monkeypatch.context() as patch:
            if not is_packed:
                patch.setattr(packed, "bits_of", lambda spk: None)
            torch.cuda.reset_peak_memory_stats()
            results.append(step_on_cuda(backbone))
            peaks.append(torch.cuda.max_memory_allocated())
    if backbone == "ms_resnet18":
        assert peaks[2] < 0.9 * peaks[1]
    for name, value in results[1].items():
        assert torch.equal(results[0][name], value), name


def step_on_cuda(backbone: str) -> dict[str, Tensor]:
    """Return logits and gradients of a training step in bfloat16."""
    task = replace(TASK, num_steps=4, height=32, width=32)
    network = build_network(ENCODERS.resolve("direct"), BACKBONES.resolve(backbone), task, seed=0)
    move_network(network, CUDA, "bf16")
    images = torch.rand(64, 3, 32, 32, generator=draws(1)).to(CUDA)
    with torch.autocast("cuda", torch.bfloat16):
        logits = network(images, torch.Generator(CUDA))
    logits.float().square().sum().backward()
    named = network.named_parameters()
    return {"logits": logits.detach()} | {name: p.grad for name, p in named if p.grad is not None}
