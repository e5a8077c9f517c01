"""All settings of the multi-step neuron against snntorch's, eager and compiled."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import snntorch
import torch
from snntorch import surrogate
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from codingbench.errors import SpecError
from codingbench.neurons import MultiStepLeaky, triangle, use_backend
from codingbench.neurons.backends import is_compiled
from codingbench.neurons.surrogates import known_slope, rectangle

SURROGATES: dict[str, Callable[[Tensor], Tensor]] = {
    "triangle": triangle,
    "rectangle": rectangle,
    "atan": surrogate.atan(1.5),
    "fast_sigmoid": surrogate.fast_sigmoid(10),
    "sigmoid": surrogate.sigmoid(2),
    "SFS": surrogate.SFS(5, -0.5),
    "spike_rate_escape": surrogate.spike_rate_escape(2, 0.7),
    "heaviside": surrogate.heaviside(),
    "straight_through_estimator": surrogate.straight_through_estimator(),
    "custom": surrogate.custom_surrogate(lambda x, grad, spk: grad * torch.exp(-x * x) * (1 + spk)),
    "SSO": surrogate.SSO(0.1, 0.5),
}
RESETS = [("zero", False), ("zero", True), ("subtract", False), ("subtract", True), ("none", True)]
TRAINABLE: dict[str, dict[str, Any]] = {
    "fixed": {"beta": 0.9, "threshold": 0.7},
    "learnt": {"beta": 0.9, "threshold": 0.7, "learn_beta": True, "learn_threshold": True},
    "beta per feature": {
        "beta": torch.linspace(0.2, 1, 5)[:, None].clone(),
        "threshold": 0.6,
        "learn_beta": True,
    },
    "threshold per feature": {
        "beta": 0.8,
        "threshold": torch.linspace(0.3, 1.2, 4),
        "learn_threshold": True,
    },
}


def copied(settings: dict[str, Any]) -> dict[str, Any]:
    """Copy tensors, because snntorch uses the given tensor itself as its parameter."""
    return {k: v.clone() if isinstance(v, Tensor) else v for k, v in settings.items()}


def step_by_step(neuron: snntorch.Leaky, cur: Tensor) -> Tensor:
    mem, spikes = torch.zeros_like(cur[0]), []
    for step in cur:
        spk, mem = neuron(step, mem)
        spikes.append(spk)
    return torch.stack(spikes)


def run(
    neuron: snntorch.Leaky, forward: Callable[[Tensor], Tensor], cur: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Return spikes, and the gradients of their weighted sum by the currents and all parameters."""
    cur = cur.detach().clone().requires_grad_()
    torch.manual_seed(7)  # a surrogate may draw
    spk = forward(cur)
    weights = torch.linspace(-1, 1, spk.numel(), dtype=spk.dtype).reshape(spk.shape)
    wanted = [cur, *neuron.parameters()]
    return spk, list(torch.autograd.grad((spk * weights).sum(), wanted))


def random_currents(num_steps: int = 6, batch: int = 3, seed: int = 0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(num_steps, batch, 5, 4, generator=draws).mul(1.5).add(0.3)


def assert_equal_to_snntorch(settings: dict[str, Any], cur: Tensor) -> None:
    ours = MultiStepLeaky(**copied(settings))
    theirs = snntorch.Leaky(**copied(settings))
    assert ours.is_fused
    spk, gradients = run(ours, ours, cur)
    expected, expected_gradients = run(theirs, lambda x: step_by_step(theirs, x), cur)
    assert 0 < spk.sum() < spk.numel()
    torch.testing.assert_close(spk, expected, rtol=0, atol=0)
    for ours_grad, theirs_grad in zip(gradients, expected_gradients, strict=True):
        assert theirs_grad.abs().sum() > 0
        torch.testing.assert_close(ours_grad, theirs_grad, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("trainable", TRAINABLE)
@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("reset, is_delayed", RESETS)
def test_every_setting_has_snntorchs_spikes_and_gradients(
    reset: str, is_delayed: bool, name: str, trainable: str
) -> None:
    settings = TRAINABLE[trainable] | {
        "spike_grad": SURROGATES[name],
        "reset_mechanism": reset,
        "reset_delay": is_delayed,
    }
    assert_equal_to_snntorch(settings, random_currents())


def reference_gradient(cur: Tensor, grad_spk: Tensor, beta: float, threshold: float) -> Tensor:
    """Compute the gradient of the reference results in the same order: undelayed reset to zero."""
    mem, kept = torch.empty_like(cur), torch.zeros_like(cur[0])
    for t in range(len(cur)):
        torch.add(cur[t], kept, alpha=beta, out=mem[t])
        spk = (mem[t] > threshold).float()
        torch.addcmul(mem[t], mem[t], spk, value=-1, out=kept)
    grad_cur, carry = torch.empty_like(cur), torch.zeros_like(cur[0])
    for t in reversed(range(len(cur))):
        slope = (mem[t] - threshold).abs_().neg_().add_(1).clamp_(min=0)
        torch.addcmul(grad_spk[t], carry, mem[t], value=-1, out=grad_cur[t]).mul_(slope)
        grad_cur[t].addcmul_(carry, (mem[t] <= threshold).float())
        torch.mul(grad_cur[t], beta, out=carry)
    return grad_cur


@pytest.mark.parametrize("shape", [(4, 3, 5, 7, 7), (2, 33, 16, 16, 16), (6, 5, 40_001)])
def test_the_eager_gradient_of_the_default_neuron_is_that_of_the_reference_results_bit_for_bit(
    shape: tuple[int, ...],
) -> None:
    draws = torch.Generator().manual_seed(3)
    cur, grad_spk = torch.randn(2, *shape, generator=draws).mul(1.5).add(0.3)
    cur.requires_grad_()
    with use_backend("eager"):
        (grad,) = torch.autograd.grad(MultiStepLeaky()(cur), cur, grad_spk)
    assert torch.equal(grad, reference_gradient(cur.detach(), grad_spk, 0.5, 1.0))


@pytest.mark.parametrize(
    "name", ["atan", "fast_sigmoid", "sigmoid", "SFS", "spike_rate_escape", "custom"]
)
def test_formulas_of_surrogates_are_written_for_snntorchs_known_ones_only(name: str) -> None:
    assert (known_slope(SURROGATES[name]) is None) == (name == "custom")
    assert known_slope(surrogate.SSO()) is None  # random: to be asked once per step, as it is
    alpha = torch.nn.Parameter(torch.tensor(2.0))
    assert known_slope(surrogate.atan(alpha)) is None


def test_the_gradient_of_the_sigmoid_vanishes_far_from_the_threshold() -> None:
    """exp(-2 x) overflows below -44, where snntorch's own formula gives NaN."""
    cur = torch.tensor([[-1e4], [-50.0], [2.0], [1e4]]).T[None].requires_grad_()
    spk = MultiStepLeaky(threshold=2.0, spike_grad=surrogate.sigmoid(2), reset_delay=True)(cur)
    spk.sum().backward()
    assert cur.grad is not None and cur.grad.flatten().tolist() == [0, 0, 0.5, 0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("reset, is_delayed", RESETS)
def test_half_precision_stays_and_is_the_rounded_gradient_of_single(
    reset: str, is_delayed: bool, dtype: torch.dtype
) -> None:
    neuron = MultiStepLeaky(
        0.9, 0.7, reset_mechanism=reset, reset_delay=is_delayed, learn_beta=True
    )
    cur = random_currents().to(dtype)
    spk, gradients = run(neuron, neuron, cur)
    assert spk.dtype == gradients[0].dtype == dtype and gradients[1].dtype == torch.float32
    expected, wide = run(neuron, lambda x: neuron(x.float()).to(dtype), cur)
    assert torch.equal(spk, expected)
    torch.testing.assert_close(gradients, wide, rtol=1e-6, atol=2e-6)


def test_the_general_form_saves_the_currents_alone_and_a_constant_one_once() -> None:
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    image = torch.randn(3, 5, 4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        MultiStepLeaky(reset_mechanism="subtract")(image.expand(6, 3, 5, 4))
    sizes = sorted(tensor.untyped_storage().nbytes() for tensor in saved)
    assert sizes == [4, 4, 4 * image.numel()]  # beta, threshold, one step


@pytest.mark.parametrize(
    "settings",
    [{"inhibition": False}, {"graded_spikes_factor": 2.0}, {"surrogate_disable": True}],
    ids=str,
)
def test_other_settings_run_snntorchs_own_step(settings: dict[str, Any]) -> None:
    ours = MultiStepLeaky(**settings)
    theirs = snntorch.Leaky(
        0.5, reset_mechanism="zero", reset_delay=False, spike_grad=triangle, **settings
    )
    assert not ours.is_fused
    assert torch.equal(ours(random_currents()), step_by_step(theirs, random_currents()))


# -- compiled -----------------------------------------------------------------------------------


@pytest.mark.parametrize("trainable, name", [("fixed", "triangle"), ("learnt", "atan")])
@pytest.mark.parametrize("reset, is_delayed", [("zero", False), ("subtract", False)])
def test_compiled_neurons_have_the_eager_spikes_and_gradients(
    reset: str, is_delayed: bool, name: str, trainable: str
) -> None:
    settings = TRAINABLE[trainable] | {
        "spike_grad": SURROGATES[name],
        "reset_mechanism": reset,
        "reset_delay": is_delayed,
    }
    neuron = MultiStepLeaky(**copied(settings))
    cur = random_currents()
    spk, gradients = run(neuron, neuron, cur)
    with use_backend("compiled"):
        compiled, compiled_gradients = run(neuron, neuron, cur)
    assert torch.equal(compiled, spk)
    for compiled_grad, grad in zip(compiled_gradients, gradients, strict=True):
        torch.testing.assert_close(compiled_grad, grad, rtol=1e-6, atol=2e-6)


def test_one_compilation_serves_all_sizes_and_all_neurons_of_a_kind() -> None:
    from torch._dynamo.utils import counters

    with use_backend("compiled"):
        MultiStepLeaky()(random_currents(batch=2))
        compiled = counters["stats"]["unique_graphs"]
        for batch in (3, 64):
            MultiStepLeaky()(random_currents(batch=batch))
        MultiStepLeaky(0.25, 2.0)(torch.randn(6, 9, 7))
    assert counters["stats"]["unique_graphs"] == compiled > 0


def test_random_surrogates_and_dispatch_modes_run_eagerly() -> None:
    neurons = MultiStepLeaky(), MultiStepLeaky(spike_grad=SURROGATES["SSO"])
    with use_backend("compiled"):
        assert [is_compiled(random_currents(), neuron.rule()) for neuron in neurons] == [
            True,
            False,
        ]
        with FlopCounterMode(display=False):
            assert not is_compiled(random_currents(), neurons[0].rule())


def test_neurons_compile_only_on_request() -> None:
    rule = MultiStepLeaky().rule()
    assert not is_compiled(random_currents(), rule)
    with use_backend("compiled"):
        assert is_compiled(random_currents(), rule)
        with use_backend("eager"):
            assert not is_compiled(random_currents(), rule)
    assert not is_compiled(random_currents(), rule)


def test_an_unknown_backend_is_refused_in_one_line() -> None:
    with pytest.raises(
        SpecError,
        match=r"unknown backend .compile.; did you mean .compiled.*known: compiled, eager",
    ):
        use_backend("compile").__enter__()


@pytest.mark.parametrize(
    "broken",
    [
        {"CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": "new"},
        {"TORCHINDUCTOR_CACHE_DIR": "file"},
        pytest.param({"TORCHINDUCTOR_CACHE_DIR": "file/below"}, marks=pytest.mark.thorough),
    ],
    ids=["compiler", "file", "below a file"],
)
def test_where_nothing_can_be_compiled_eager_takes_over_after_one_line(
    tmp_path: Path, broken: dict[str, str]
) -> None:
    code = (
        "import torch\n"
        "from codingbench.neurons import MultiStepLeaky, use_backend\n"
        "neuron, cur = MultiStepLeaky(), torch.linspace(-1, 3, 4 * 50).reshape(4, 50)\n"
        "cur.requires_grad_()\n"
        "def run():\n"
        "    spk = neuron(cur)\n"
        "    return spk, torch.autograd.grad(spk.sum(), cur)[0]\n"
        "eager = run()\n"
        "with use_backend('compiled'):\n"
        "    found = run()\n"
        "assert all(map(torch.equal, eager, found))\n"
    )
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ
        | broken
        | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / broken["TORCHINDUCTOR_CACHE_DIR"])},
    )
    assert done.returncode == 0, done.stderr
    warned = [line for line in done.stderr.splitlines() if "neurons run uncompiled" in line]
    assert len(warned) == 1
