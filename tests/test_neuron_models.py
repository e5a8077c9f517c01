"""The neuron models of ``--neurons`` against literals and other libraries' neurons."""

from typing import Any

import pytest
import snntorch
import torch
from snntorch import surrogate as snntorch_surrogate
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn

from codingbench.neurons import MultiStepLeaky, triangle, use_backend
from codingbench.registry import NEURONS

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS, BATCH, FEATURES = 6, 3, 40


def model(text: str) -> nn.Module:
    built: nn.Module = NEURONS.resolve(text).build()
    return built


def currents(scale: float = 2.0, seed: int = 0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(STEPS, BATCH, FEATURES, generator=draws) + 0.5).requires_grad_()


def train(text: str, *currents: float) -> list[float]:
    """Return the spikes of one neuron for the currents of all steps."""
    spk: Tensor = model(text)(torch.tensor(currents).reshape(-1, 1, 1))
    return spk.flatten().tolist()


def gradient(spk: Tensor, cur: Tensor) -> Tensor:
    """Return the gradient of a sum with different weights of all spikes."""
    weights = torch.randn(spk.shape, generator=torch.Generator().manual_seed(7))
    (found,) = torch.autograd.grad((spk * weights).sum(), cur, retain_graph=True)
    return found


def assert_same(ours: nn.Module, theirs: Any, scale: float = 2.0) -> None:
    """Check that two neurons have the same spikes and gradients by their currents."""
    cur = currents(scale)
    mine, other = ours(cur), theirs(cur)
    assert mine.mean() > 0.05 and torch.equal(mine, other)
    torch.testing.assert_close(gradient(mine, cur), gradient(other, cur), rtol=1e-5, atol=1e-6)


# --- lif ------------------------------------------------------------------------------------------


def test_lif_is_by_default_the_neuron_of_gac_to_the_last_bit() -> None:
    cur, lif, leaky = currents(), model("lif"), MultiStepLeaky(0.5, 1.0)
    assert torch.equal(lif(cur), leaky(cur))
    assert torch.equal(gradient(lif(cur), cur), gradient(leaky(cur), cur))


@pytest.mark.parametrize(
    ("reset", "spikes"),
    [("zero", [0, 1, 0, 1]), ("subtract", [0, 1, 1, 1]), ("none", [0, 1, 1, 1])],
)
def test_lif_resets_as_it_is_told(reset: str, spikes: list[int]) -> None:
    """Membranes: zero 0.8, 1.6 -> 0, 0.8, 1.6; subtract 0.8, 1.6 -> 0.6, 1.4 -> 0.4, 1.2."""
    assert train(f"lif[beta=1,reset={reset}]", 0.8, 0.8, 0.8, 0.8) == spikes


@pytest.mark.parametrize("is_delayed", [False, True])
@pytest.mark.parametrize("reset", ["zero", "subtract", "none"])
def test_lif_is_the_neuron_of_snntorch(reset: str, is_delayed: bool) -> None:
    text = f"lif[beta=0.9,threshold=0.7,reset={reset},reset_delay={is_delayed}]"
    leaky = snntorch.Leaky(
        beta=0.9,
        threshold=0.7,
        spike_grad=triangle,
        reset_mechanism=reset,
        reset_delay=is_delayed,
    )

    def step_by_step(cur: Tensor) -> Tensor:
        mem, train = torch.zeros_like(cur[0]), []
        for step in cur:
            spk, mem = leaky(step, mem)
            train.append(spk)
        return torch.stack(train)

    assert_same(model(text), step_by_step)


@pytest.mark.parametrize(
    ("text", "theirs"),
    [
        ("surrogate=atan", snntorch_surrogate.atan()),
        ("surrogate=atan,slope=3", snntorch_surrogate.atan(alpha=3.0)),
        ("surrogate=sigmoid", snntorch_surrogate.sigmoid()),
        ("surrogate=fast_sigmoid,slope=10", snntorch_surrogate.fast_sigmoid(slope=10)),
    ],
)
def test_lif_has_the_surrogates_of_snntorch(text: str, theirs: Any) -> None:
    assert_same(model(f"lif[{text}]"), MultiStepLeaky(spike_grad=theirs))


def test_lif_learns_beta_and_threshold_of_a_layer() -> None:
    lif = model("lif[learn_beta=true,learn_threshold=true,surrogate=atan]")
    spk = lif(currents())
    spk.sum().backward()
    found = {name: float(p.grad) for name, p in lif.named_parameters() if p.grad is not None}
    assert found.keys() == {"beta", "threshold"} and all(found.values())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("lif[beta=1.5]", r"beta must be in \[0, 1\], got 1.5"),
        ("lif[threshold=0]", "threshold must be positive, got 0.0"),
        ("lif[slope=2]", "the surrogate triangle has no slope, got slope=2"),
        ("lif[surrogate=atan,slope=-1]", "slope must not be negative, got -1.0"),
        ("spikingjelly_lif[tau=0.5]", "tau must be at least 1, got 0.5"),
        ("plif[tau=1]", "tau must be above 1, got 1.0"),
        ("plif[slope=0]", "threshold and slope must be positive, got 1.0 and 0.0"),
        ("clif[tau=0.5]", "tau must be at least 1, got 0.5"),
        ("clif[threshold=0]", "threshold must be positive, got 0.0"),
        ("ilif[levels=0]", "levels must be at least 1, got 0"),
    ],
)
def test_a_parameter_outside_its_range_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        model(text)


# --- spikingjelly_lif -----------------------------------------------------------------------------


def test_spikingjelly_lif_halves_its_input() -> None:
    """Currents of 1.5 give the membranes 0.75, 1.125 -> 0, 0.75; it exceeds 1 at the second."""
    assert train("spikingjelly_lif", 1.5, 1.5, 1.5) == [0, 1, 0]


@pytest.mark.parametrize("is_detached", [True, False])
@pytest.mark.parametrize(
    ("name", "theirs"), [("sigmoid", surrogate.Sigmoid()), ("atan", surrogate.ATan())]
)
@pytest.mark.parametrize("tau", [1.25, 2.0, 4.0])
def test_spikingjelly_lif_is_its_neuron(
    tau: float, name: str, theirs: Any, is_detached: bool
) -> None:
    text = f"spikingjelly_lif[tau={tau},surrogate={name},detach_reset={is_detached}]"
    node = neuron.LIFNode(
        tau=tau, surrogate_function=theirs, detach_reset=is_detached, step_mode="m"
    )
    assert_same(model(text), node, scale=4.0)


# --- plif -----------------------------------------------------------------------------------------


def test_plif_begins_as_a_neuron_that_halves_its_input() -> None:
    assert train("plif", 1.5, 1.5, 1.5) == [0, 1, 0]


@pytest.mark.parametrize("is_detached", [True, False])
@pytest.mark.parametrize("tau", [1.5, 2.0, 3.0])
def test_plif_is_the_neuron_of_spikingjelly_also_in_the_gradient_of_w(
    tau: float, is_detached: bool
) -> None:
    ours = model(f"plif[tau={tau},detach_reset={is_detached}]")
    theirs = neuron.ParametricLIFNode(
        init_tau=tau,
        surrogate_function=surrogate.ATan(),
        detach_reset=is_detached,
        step_mode="m",
    )
    assert_same(ours, theirs, scale=4.0)
    theirs.reset()
    for node in (ours, theirs):
        node(currents(4.0)).square().sum().backward()
    by_w = ours.get_parameter("w").grad, theirs.get_parameter("w").grad
    torch.testing.assert_close(*by_w, rtol=1e-4, atol=1e-5)


# --- clif -----------------------------------------------------------------------------------------


def test_a_spike_of_clif_lowers_the_membrane_by_more_than_the_threshold() -> None:
    """Currents of 2: u = 2 spikes, m = 1, h = 2 - 1 - 0.731 = 0.269; u = 0.5 h + 0.95 = 1.084
    spikes, although a reset to zero would leave 0.95; m = 0.632 + 1, h = 1.084 - 1 - 0.836 < 0;
    u = 0.5 h + 1.3 = 0.924 does not, although a reset by the threshold alone would leave 1.342."""
    assert train("clif", 2.0, 0.95, 1.3) == [1, 1, 0]


@pytest.mark.parametrize("tau", [1.5, 2.0, 4.0])
def test_clif_is_the_neuron_of_spikingjelly(tau: float) -> None:
    node = neuron.ComplementaryLIFNode(tau=tau, surrogate_function=surrogate.Rect(), step_mode="m")
    assert_same(model(f"clif[tau={tau}]"), node)


# --- ilif -----------------------------------------------------------------------------------------


def test_ilif_sends_as_many_spikes_as_thresholds_fit() -> None:
    """Membranes 2.6 -> 3 spikes and -0.4; -0.1 + 9 -> 4 and 4.9; 1.225 -> 1 and 0.225; -1 -> 0."""
    assert train("ilif", 2.6, 9.0, 0.0, -1.0) == [3, 4, 1, 0]


def test_ilif_with_one_level_and_full_leak_is_rounding() -> None:
    assert train("ilif[levels=1,beta=0]", 0.4, 0.6, 5.0, -1.0) == [0, 1, 1, 0]


def test_ilif_is_the_recurrence_of_its_paper() -> None:
    """The straight-through gradient of the reference comes from torch's own clamp."""

    def reference(cur: Tensor) -> Tensor:
        v, out = torch.zeros_like(cur[0]), []
        for now in cur:
            v = 0.25 * v + now
            soft = v.clamp(0, 4)
            spk = soft + (torch.round(soft) - soft).detach()
            v = v - torch.round(soft).detach()
            out.append(spk)
        return torch.stack(out)

    assert_same(model("ilif"), reference)


def test_ilif_declares_its_sub_steps() -> None:
    assert model("ilif[levels=3]").sub_steps == 3 and model("lif").sub_steps == 1


# --- all ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NEURONS.names())
def test_no_state_is_kept_between_calls(name: str) -> None:
    one, cur = model(name), currents(4.0)
    first = one(cur)
    assert torch.equal(one(cur), first) and torch.equal(one(cur[:3]), first[:3])


@pytest.mark.parametrize("name", NEURONS.names())
def test_it_keeps_bf16_and_runs_if_the_fused_backend_is_asked_for(name: str) -> None:
    cur = currents(4.0).detach().bfloat16()
    assert model(name)(cur).dtype == torch.bfloat16
    with use_backend("fused"):
        assert torch.equal(model(name)(cur), model(name)(cur))
