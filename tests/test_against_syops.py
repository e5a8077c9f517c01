"""Our convention ``syops-like`` compared with the package syops 0.0.5 that it follows.

The package imports names that SpikingJelly 2.0.0 no longer has. They are lent to it here; its
counting runs as it is. It examines modules and decides once per call whether the input is spikes.
"""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import Tensor, nn

from codingbench.neurons import MultiStepLeaky

pytestmark = pytest.mark.usefixtures("one_thread")

Count = Callable[[nn.Module, Tensor], tuple[float, float]]


def spikes(*shape: int, rate: float = 0.3) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < rate).float()


@pytest.fixture(scope="module")
def tool() -> Iterator[Count]:
    """(network, images) -> its accumulates and multiply-accumulates of all images."""
    lent: dict[str, Any] = {"functional": functional, "surrogate": surrogate}
    names = ("MultiStepIFNode", "MultiStepLIFNode", "MultiStepParametricLIFNode")
    neurons = {name: type(name, (), {}) for name in names}
    for name in ("IFNode", "LIFNode", "ParametricLIFNode"):
        neurons[name] = getattr(neuron, name)
    modules = {"spikingjelly.clock_driven": lent, "spikingjelly.clock_driven.neuron": neurons}
    with pytest.MonkeyPatch.context() as patch:
        for name, content in modules.items():
            module = ModuleType(name)
            vars(module).update(content)
            patch.setitem(sys.modules, name, module)
        sys.modules["spikingjelly.clock_driven"].neuron = sys.modules[  # type: ignore[attr-defined]
            "spikingjelly.clock_driven.neuron"
        ]
        from syops.engine import add_syops_counting_methods

        def count(network: nn.Module, images: Tensor) -> tuple[float, float]:
            network = nn.Sequential(network)  # what it counts per image is a network, not a layer
            add_syops_counting_methods(network)
            network.start_syops_count(ost=sys.stdout, verbose=False, ignore_list=[])  # type: ignore[operator]
            with torch.no_grad():
                network.eval()(images)
            (_, acs, macs, _), _ = network.compute_average_syops_cost()  # type: ignore[operator]
            network.stop_syops_count()  # type: ignore[operator]
            return float(acs) * len(images), float(macs) * len(images)

        yield count


@pytest.fixture
def own(ours: Any) -> Count:
    """(network, images) -> our accumulates and multiply-accumulates at T = 1."""

    def count(network: nn.Module, images: Tensor) -> tuple[float, float]:
        totals = ours(nn.Sequential(network), 1, images)
        return totals["syops_acs"] + totals["neuron_updates"], totals["syops_macs"]

    return count


# --- the same -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(4, 6, 5, stride=3, padding=2), (4, 11)),
        (nn.Conv2d(8, 4, 3, stride=(3, 2), padding=2, dilation=2, groups=4), (8, 12, 13)),
        (nn.Conv3d(2, 3, (1, 2, 3), stride=2, bias=False), (2, 4, 5, 6)),
        (nn.Linear(30, 7, bias=False), (30,)),
        (nn.BatchNorm2d(4), (4, 5, 6)),
        (nn.BatchNorm2d(4, affine=False), (4, 5, 6)),
        (nn.AvgPool2d(2), (4, 6, 6)),
        (nn.MaxPool2d(3, stride=2), (4, 7, 7)),
    ],
    ids=lambda value: str(value) if isinstance(value, nn.Module) else "",
)
@pytest.mark.parametrize("values", ["spikes", "numbers"])
def test_a_layer_of_one_call_costs_what_it_costs_there(
    layer: nn.Module, shape: tuple[int, ...], values: str, tool: Count, own: Count
) -> None:
    x = spikes(3, *shape) if values == "spikes" else torch.rand(3, *shape) + 0.1
    found = own(layer, x)
    assert found == pytest.approx(tool(layer, x), rel=1e-6)
    assert (found[0] > 0) == (values == "spikes") != (found[1] > 0)


# --- known differences ----------------------------------------------------------------------------


class Folded(nn.Module):
    """Run a layer on all steps of a code at once."""

    def __init__(self, layer: nn.Module, code: Tensor) -> None:
        super().__init__()
        self.layer, self.code = layer, code

    def forward(self, images: Tensor) -> Tensor:
        """Return the output of all steps, [T * B, ...]."""
        output: Tensor = self.layer(self.code)
        return output


def test_it_decides_on_spikes_once_for_all_steps_and_we_for_each(tool: Count, ours: Any) -> None:
    layer = nn.Conv1d(2, 3, 1, bias=False)
    code = torch.cat([spikes(1, 2, 8), torch.rand(1, 2, 8) + 0.1])  # spikes, then numbers
    assert tool(layer, code) == (0, 2 * 48)
    totals = ours(Folded(layer, code), 2, torch.zeros(1, 1))
    assert totals["syops_acs"] == pytest.approx(float(code[0].mean()) * 48)
    assert totals["syops_macs"] == 48


def test_it_adds_the_bias_of_a_linear_layer_once_a_call_and_we_for_each_image(
    tool: Count, own: Count
) -> None:
    layer, numbers = nn.Linear(4, 3), torch.rand(5, 4) + 0.1
    assert tool(layer, numbers) == (0, 5 * 12 + 3)
    assert own(layer, numbers) == (0, 5 * (12 + 3))


def test_it_counts_activations_that_do_not_spike_and_we_do_not(tool: Count, own: Count) -> None:
    numbers = torch.rand(2, 5) + 0.1
    assert tool(nn.ReLU(), numbers) == (0, 10)
    assert own(nn.ReLU(), numbers) == (0, 0)


def test_it_takes_two_values_within_0_and_1_for_spikes_and_we_only_0_and_1(
    tool: Count, own: Count
) -> None:
    layer, halves = nn.Linear(4, 3, bias=False), torch.tensor([[0.5, 0, 0.5, 0]])
    assert tool(layer, halves) == (0.25 * 12, 0)  # the mean for a rate
    assert own(layer, halves) == (0, 12)


def test_steps_without_a_spike_cost_it_nothing_only_if_each_is_a_call_of_its_own(
    tool: Count, ours: Any
) -> None:
    norm, silent, cur = nn.BatchNorm1d(4), torch.zeros(1, 4), torch.rand(1, 4) + 0.1
    assert tool(norm, silent) == (0, 0)
    assert tool(norm, torch.cat([cur, silent])) == (0, 2 * 8)
    totals = ours(Folded(norm, torch.cat([cur, silent])), 2, torch.zeros(1, 1))
    assert (totals["syops_acs"], totals["syops_macs"]) == (0, 8)


def test_a_neuron_costs_an_accumulate_per_step_there_if_it_is_spikingjellys_and_here_always(
    tool: Count, own: Count
) -> None:
    cur = torch.rand(1, 6)
    assert tool(neuron.LIFNode(), cur) == (6, 0)
    assert tool(MultiStepLeaky(beta=0.5), cur.unsqueeze(0)) == (0, 0)
    assert own(MultiStepLeaky(beta=0.5), cur.unsqueeze(0)) == (6, 0)


def test_functional_calls_and_attention_cost_it_nothing(tool: Count, own: Count) -> None:
    class Functional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ x.mT

    x = spikes(1, 4, 3)
    assert tool(Functional(), x) == (0, 0)
    assert own(Functional(), x)[0] > 0
