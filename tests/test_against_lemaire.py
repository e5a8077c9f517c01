"""Our convention ``lemaire`` compared with SpikingJelly's ``LemaireEnergyProfiler``.

It examines modules, decides once per call whether the input is spikes, and takes buffers for those
of the whole call. It is therefore given one image and one step at a time, as the paper describes.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron
from spikingjelly.activation_based.op_counter import estimate_lemaire_energy
from torch import Tensor, nn

from codingbench.counting.lemaire import byte_pj
from codingbench.energy import energy_uj
from codingbench.neurons import MultiStepLeaky

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES = torch.rand(3, 3, 9, 9, generator=torch.Generator().manual_seed(3)) * 3


class OneStep(MultiStepLeaky):
    """Our neuron for a single step [B, ...]."""

    def forward(self, cur: Tensor) -> Tensor:
        """Return the spikes [B, ...]."""
        spk: Tensor = super().forward(cur.unsqueeze(0)).squeeze(0)
        return spk


def network(spiking: Callable[[], nn.Module]) -> nn.Module:
    """Return strides, groups, biases and every size of buffer up to 32 KiB, one step deep."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        spiking(),
        nn.Conv2d(32, 12, (3, 5), stride=2, padding=1, groups=2, bias=False),
        spiking(),
        nn.Conv2d(12, 6, 2, stride=(1, 2)),
        spiking(),
        nn.Flatten(),
        nn.Linear(6 * 4 * 2, 200),
        spiking(),
        nn.Linear(200, 5),
    ).eval()


@pytest.fixture
def theirs() -> Callable[[nn.Module, Tensor], dict[str, float]]:
    """(network, images) -> energy in pJ and counts of their profiler, one image at a time."""

    def count(network: nn.Module, images: Tensor) -> dict[str, float]:
        totals = dict.fromkeys(("pj", "ac", "mac", "memory_pj"), 0.0)
        for image in images:
            functional.reset_net(network)
            report = estimate_lemaire_energy(network, image.unsqueeze(0))
            totals["pj"] += report.total_pj
            totals["ac"] += report.counts["ac"] + report.counts["acc_addr"]
            totals["mac"] += report.counts["mac"] + report.counts["mac_addr"]
            totals["memory_pj"] += report.breakdown_pj["memory_pj"]
        return totals

    return count


# They refuse what their formulas do not have, so this layer, which does nothing, is made known.
@pytest.fixture(autouse=True)
def flatten_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    from spikingjelly.activation_based.op_counter import analytical_energy

    known = analytical_energy._LemaireCounter._warn_or_raise_unsupported

    def refuse(self: Any, module: nn.Module) -> None:
        if not isinstance(module, nn.Flatten):
            known(self, module)

    monkeypatch.setattr(analytical_energy._LemaireCounter, "_warn_or_raise_unsupported", refuse)


def assert_same(totals: dict[str, float], expected: dict[str, float]) -> None:
    assert totals["lemaire_acs"] == expected["ac"]
    assert totals["lemaire_macs"] == expected["mac"]
    assert totals["lemaire_memory_pj"] == pytest.approx(expected["memory_pj"], rel=1e-12)
    assert energy_uj(totals | {"images": 1}, "lemaire") * 1e6 == pytest.approx(
        expected["pj"], rel=1e-12
    )


def test_a_spiking_network_costs_what_it_costs_there(ours: Any, theirs: Any) -> None:
    own = network(lambda: OneStep(beta=0.5, threshold=0.2))
    other = network(lambda: neuron.LIFNode(tau=2.0, decay_input=False, v_threshold=0.2))
    with torch.no_grad():
        functional.reset_net(other)
        assert torch.equal(own(IMAGES), other(IMAGES))
    totals = ours(own, 1, IMAGES)
    assert totals["effective_binary"] > 1000 and totals["effective_real"] > 1000
    assert_same(totals, theirs(other, IMAGES))


class Folded(nn.Module):
    """Run a layer on all steps of a code at once."""

    def __init__(self, layer: nn.Module, code: Tensor) -> None:
        super().__init__()
        self.layer, self.code = layer, code

    def forward(self, images: Tensor) -> Tensor:
        """Return the output of all steps, [T * B, ...]."""
        output: Tensor = self.layer(self.code)
        return output


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(4, 6, 5, stride=3, padding=2), (4, 11)),
        (nn.Conv2d(8, 4, 3, stride=(3, 2), dilation=2, groups=4), (8, 12, 13)),
        (nn.Conv3d(2, 3, (1, 2, 3), stride=2, bias=False), (2, 4, 5, 6)),
        (nn.Linear(3000, 7), (3000,)),
        (nn.Linear(600, 500, bias=False), (600,)),  # weights of more than a megabyte
    ],
    ids=["conv1d", "conv2d", "conv3d", "linear", "large"],
)
@pytest.mark.parametrize("values", ["spikes", "numbers", "silence"])
def test_each_layer_and_step_costs_what_it_costs_there(
    layer: nn.Module, shape: tuple[int, ...], values: str, ours: Any, theirs: Any
) -> None:
    """Their profiler adds the writing of the output where a network has no neuron."""
    x = torch.rand(2 * 3, *shape, generator=torch.Generator().manual_seed(0))
    code = {"spikes": (x < 0.3).float(), "numbers": x, "silence": x * 0}[values]
    totals = ours(Folded(layer, code), 2, torch.zeros(3, 1))
    neurons = nn.Sequential(layer, neuron.IFNode(v_threshold=1e9))
    expected = theirs(neurons, code)
    with torch.no_grad():
        size = layer(code).numel()
    membranes = 2 * 4 * size * byte_pj(4 * size // 6)  # of the neurons, which never spike
    expected = expected | {
        "pj": expected["pj"] - membranes,
        "memory_pj": expected["memory_pj"] - membranes,
    }
    assert totals["lemaire_acs"] == expected["ac"]
    assert totals["lemaire_macs"] == expected["mac"]
    assert totals["lemaire_memory_pj"] == pytest.approx(expected["memory_pj"], rel=1e-9)


def test_they_charge_for_the_buffers_of_a_whole_batch_and_we_for_those_of_an_image(
    ours: Any,
) -> None:
    layer = nn.Sequential(nn.Linear(30, 20), neuron.IFNode(v_threshold=1e9))
    spk = (torch.rand(8, 30, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    one, many = (estimate_lemaire_energy(layer, x).breakdown_pj for x in (spk[:1], spk))
    functional.reset_net(layer)
    assert many["potential_pj"] > 8 * one["potential_pj"] > 0
    linear = nn.Sequential(layer[0])
    alone = sum(ours(linear, 1, image)["lemaire_memory_pj"] for image in spk.split(1))
    assert ours(linear, 1, spk)["lemaire_memory_pj"] == pytest.approx(alone)


def test_negative_spikes_are_numbers_to_it_and_to_us(ours: Any, theirs: Any) -> None:
    layer = nn.Linear(4, 3)
    spk = torch.tensor([[1.0, 0, -1, 0]])
    expected = theirs(nn.Sequential(layer, neuron.IFNode(v_threshold=1e9)), spk)
    assert ours(nn.Sequential(layer), 1, spk)["lemaire_macs"] == expected["mac"] == 12
