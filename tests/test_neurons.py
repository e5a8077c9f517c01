"""The multi-step neuron against snntorch's own, against the recurrence by hand, and its edges."""

import copy
from typing import Any

import pytest
import snntorch
import torch
from snntorch import surrogate
from snntorch._neurons.neurons import SpikingNeuron
from torch import Tensor

from codingbench.neurons import MultiStepLeaky, over_time, triangle
from codingbench.neurons.surrogates import rectangle

SURROGATES = {
    "triangle": triangle,
    "atan": surrogate.atan(),
    "fast_sigmoid": surrogate.fast_sigmoid(),
}


def step_by_step(neuron: snntorch.Leaky, cur: Tensor) -> Tensor:
    """Run snntorch as its users do: in a loop that carries the membrane."""
    mem, spikes = torch.zeros_like(cur[0]), []
    for step in cur:
        spk, mem = neuron(step, mem)
        spikes.append(spk)
    return torch.stack(spikes)


def gradient(spk: Tensor, cur: Tensor) -> Tensor:
    weights = torch.linspace(-1, 1, spk.numel()).reshape(spk.shape)
    (grad,) = torch.autograd.grad((spk * weights).sum(), cur)
    return grad


def random_currents(num_steps: int) -> Tensor:
    draws = torch.Generator().manual_seed(num_steps)
    return torch.randn(num_steps, 3, 5, 4, generator=draws).mul(1.5).add(0.3).requires_grad_()


@pytest.mark.parametrize("num_steps", [1, 2, 6])
@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("beta, threshold", [(0.5, 1.0), (0.25, 0.5), (1.0, 0.7), (0.0, 1.0)])
def test_same_spikes_and_gradients_as_snntorch(
    num_steps: int, name: str, beta: float, threshold: float
) -> None:
    settings = {
        "beta": beta,
        "threshold": threshold,
        "spike_grad": SURROGATES[name],
        "reset_mechanism": "zero",
        "reset_delay": False,
    }
    cur = random_currents(num_steps)
    ours, theirs = MultiStepLeaky(**settings)(cur), step_by_step(snntorch.Leaky(**settings), cur)
    assert ours.sum() > 0
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    torch.testing.assert_close(gradient(ours, cur), gradient(theirs, cur), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"reset_mechanism": "subtract", "reset_delay": True},
        {"reset_mechanism": "subtract", "reset_delay": False},
        {"reset_mechanism": "zero", "reset_delay": True},
        {"reset_mechanism": "none"},
        {"learn_beta": True, "learn_threshold": True},
    ],
    ids=str,
)
def test_other_settings_equal_snntorchs_loop_and_keep_no_state(settings: dict[str, Any]) -> None:
    common: dict[str, Any] = {"beta": 0.8, "reset_mechanism": "zero", "reset_delay": False}
    cur = random_currents(4)
    ours = MultiStepLeaky(**(common | settings))
    theirs = snntorch.Leaky(spike_grad=triangle, **(common | settings))
    spk = ours(cur)
    torch.testing.assert_close(spk, step_by_step(theirs, cur), rtol=0, atol=0)
    torch.testing.assert_close(gradient(spk, cur), gradient(step_by_step(theirs, cur), cur))
    torch.testing.assert_close(ours(cur), spk, rtol=0, atol=0)
    copy.deepcopy(ours)  # fails on a neuron that holds a graph


def test_spikes_by_hand() -> None:
    # v = .6; .3 + .6 = .9; .45 + .6 = 1.05 > 1, reset; .6   |   v = 1 is not above 1; 1.5 is
    cur = torch.tensor([[[0.6, 1.0]]] * 4)
    assert MultiStepLeaky(0.5, 1.0)(cur)[:, 0].T.tolist() == [[0, 0, 1, 0], [0, 1, 0, 1]]


@pytest.mark.parametrize("num_steps, patterns", [(2, 3), (4, 5), (6, 7), (8, 9)])
def test_constant_currents_give_t_plus_1_patterns(num_steps: int, patterns: int) -> None:
    for beta, threshold in ((0.5, 1.0), (0.25, 0.5)):
        # late first spikes need currents only just above what the leak takes
        least = threshold * (1 - beta)
        coarse, fine = torch.linspace(-1, 3, 10_001), torch.linspace(least, 1.001 * least, 10_001)
        cur = torch.cat([coarse, fine]).expand(num_steps, 1, -1)
        trains = MultiStepLeaky(beta, threshold)(cur)[:, 0].T
        assert len(torch.unique(trains, dim=0)) == patterns


def test_triangle_gradient_by_hand() -> None:
    shifted = torch.tensor([-2.0, -1.0, -0.25, 0.0, 0.5, 1.0, 3.0], requires_grad=True)
    spk = triangle(shifted)
    spk.sum().backward()
    assert spk.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert shifted.grad is not None
    assert shifted.grad.tolist() == [0, 0, 0.75, 1, 0.5, 0, 0]


def test_rectangle_gradient_by_hand() -> None:
    shifted = torch.tensor([-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0], requires_grad=True)
    spk = rectangle(shifted)
    spk.sum().backward()
    assert spk.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert shifted.grad is not None
    assert shifted.grad.tolist() == [0, 0, 1, 1, 1, 0, 0]


def test_constant_input_given_as_a_view_gets_the_summed_gradient() -> None:
    y = random_currents(1)[0].detach().requires_grad_()
    neuron = MultiStepLeaky()
    (viewed,) = torch.autograd.grad(neuron(y.expand(4, *y.shape)).sum(), y)
    (copied,) = torch.autograd.grad(neuron(torch.stack([y] * 4)).sum(), y)
    torch.testing.assert_close(viewed, copied)


def test_bfloat16_stays_bfloat16() -> None:
    cur = random_currents(3).detach().bfloat16().requires_grad_()
    spk = MultiStepLeaky()(cur)
    assert spk.dtype == gradient(spk, cur).dtype == torch.bfloat16


def test_neurons_are_leaky_and_are_not_kept_alive() -> None:
    before = len(SpikingNeuron.instances)
    assert isinstance(MultiStepLeaky(), snntorch.Leaky)
    assert len(SpikingNeuron.instances) == before


@pytest.mark.parametrize("settings", [{"beta": 1.5}, {"beta": -0.1}, {"threshold": 0.0}])
def test_impossible_neurons_are_refused(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name} must be"):
        MultiStepLeaky(**settings)


def test_over_time_is_the_layer_at_every_step() -> None:
    layer, x = torch.nn.Conv2d(2, 3, 3), torch.randn(4, 5, 2, 6, 6)
    expected = torch.stack([layer(step) for step in x])
    torch.testing.assert_close(over_time(layer, x), expected)
