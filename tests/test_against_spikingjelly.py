"""Our binary accumulates and our convention ``memory`` compared with SpikingJelly's.

Its ``SynOpCounter`` examines single tensor operations and takes only 0 and 1 for spikes.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import neuron
from spikingjelly.activation_based.op_counter import (
    ModuleCounterMode,
    NeuromorphicMemoryAccessCounter,
    estimate_simple_energy,
)
from torch import Tensor, nn
from torch.nn import functional as F

from codingbench.energy import Technology, energy_uj, get_convention
from codingbench.neurons import MultiStepLeaky, spiking

Case = tuple[nn.Module, int, Tensor]

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]


def spikes(*shape: int, seed: int = 0, rate: float = 0.3) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


class Apply(nn.Module):
    """A network whose forward is any function of the images."""

    def __init__(self, function: Callable[[Tensor], Any], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, images: Tensor) -> Any:
        return self.function(images)


# --- the same -------------------------------------------------------------------------------------


def test_binary_accumulates_are_those_of_its_counter(
    case: Case, ours: Any, spikingjelly: Any
) -> None:
    network, num_steps, images = case
    assert ours(network, num_steps, images)["effective_binary"] == spikingjelly(network, images)


def test_every_layer_and_step_is_that_of_its_counter(
    case: Case, our_steps: Any, spikingjelly_steps: Any
) -> None:
    assert {cell: of["binary"] for cell, of in our_steps(*case).items()} == spikingjelly_steps(
        *case
    )


def test_every_geometry_is_that_of_its_counter(
    geometry: Case, our_steps: Any, spikingjelly_steps: Any
) -> None:
    ours = [of["binary"] for of in our_steps(*geometry).values()]
    assert ours == list(spikingjelly_steps(*geometry).values())
    assert ours[0] > 0 == sum(ours[1:])  # one step each: binary, signed, level, real


@pytest.mark.parametrize(
    "layer, shape",
    [
        (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (4, 5, 7)),
        (nn.ConvTranspose2d(4, 6, (2, 3), groups=2, bias=False), (4, 5, 7)),
        (nn.ConvTranspose2d(4, 8, 3, dilation=2, groups=4, padding=2), (4, 5, 7)),
        (nn.ConvTranspose1d(4, 6, 4, stride=3), (4, 9)),
        (nn.ConvTranspose3d(2, 3, 2, stride=(1, 2, 2)), (2, 3, 4, 3)),
    ],
    ids=["stride", "groups", "dilation", "one dimension", "three dimensions"],
)
@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_transposed_convolutions_are_those_of_its_counter(
    layer: nn.Module, shape: tuple[int, ...], num_steps: int, ours: Any, spikingjelly: Any
) -> None:
    spk, images = spikes(num_steps * 3, *shape), torch.zeros(3, 1)
    network = Apply(lambda images: layer(spk), layer)
    total = ours(network, num_steps, images)["effective_binary"]
    assert total == spikingjelly(network, images) > 0


WEIGHT = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1))


def attention(x: Tensor) -> Tensor:
    """Attention: queries times keys, both spikes, select values; [N, tokens, features]."""
    q, k, v = x.roll(1, 1), x.roll(2, 1), x.roll(3, 2)
    scores = torch.einsum("bnd,bmd->bnm", q, k)
    return torch.einsum("bnm,bmd->bnd", scores, v)


FUNCTIONAL: dict[str, tuple[Callable[[Tensor], Any], tuple[int, ...]]] = {
    "conv2d": (lambda x: F.conv2d(x, WEIGHT, stride=2, padding=1), (4, 7, 8)),
    "conv2d, groups": (lambda x: F.conv2d(x, WEIGHT[:, :2], groups=2), (4, 7, 8)),
    "conv2d, same": (lambda x: F.conv2d(x, WEIGHT, padding="same", dilation=2), (4, 7, 8)),
    "conv_transpose2d": (lambda x: F.conv_transpose2d(x, WEIGHT[:4], stride=2), (4, 7, 8)),
    "linear": (lambda x: F.linear(x, WEIGHT.flatten(1)), (5, 36)),
    "matmul": (lambda x: x @ WEIGHT.flatten(1).T, (5, 36)),
    "matmul, weights on the left": (lambda x: WEIGHT.flatten(1) @ x, (36, 5)),
    "einsum": (lambda x: torch.einsum("bcn,kc->bkn", x, WEIGHT.flatten(1)), (36, 5)),
    "attention": (attention, (5, 6)),
    "attention of two heads": (lambda x: attention(x.flatten(0, 1)), (2, 5, 6)),
    "spikes with numbers": (lambda x: x @ torch.sin(x.cumsum(-1)).mT, (5, 6)),
    "numbers with spikes": (lambda x: torch.sin(x.cumsum(-1)) @ x.mT, (5, 6)),
}


@pytest.mark.parametrize("name", FUNCTIONAL)
@pytest.mark.parametrize("num_steps, batch", [(1, 1), (1, 3), (2, 3), (4, 1)])
def test_functional_calls_are_those_of_its_counter(
    name: str, num_steps: int, batch: int, ours: Any, spikingjelly: Any
) -> None:
    function, shape = FUNCTIONAL[name]
    spk, images = spikes(num_steps * batch, *shape), torch.zeros(batch, 1)
    network = Apply(lambda images: function(spk))
    total = ours(network, num_steps, images)["effective_binary"]
    assert total == spikingjelly(network, images) > 0


# --- known differences ----------------------------------------------------------------------------


def test_a_negative_spike_is_nothing_to_it_and_an_accumulate_to_us(
    ours: Any, spikingjelly: Any
) -> None:
    network, spk = nn.Sequential(nn.Linear(4, 3)), torch.tensor([[1.0, 0, -1, 0]])
    assert spikingjelly(network, spk) == 0
    assert ours(network, 1, spk)["effective_signed"] == ours(network, 1, spk)["ac"] == 2 * 3


def test_a_step_of_sums_hides_the_spikes_of_the_others_from_it_and_not_from_us(
    ours: Any, spikingjelly: Any
) -> None:
    layer, spk = nn.Linear(4, 3), torch.tensor([[1.0, 0, 1, 0], [1, 0, 2, 1]])
    network = Apply(lambda images: layer(spk), layer)
    assert spikingjelly(network, torch.zeros(1, 4)) == 0
    assert ours(network, 2, torch.zeros(1, 4))["effective_binary"] == 2 * 3


def test_it_counts_synapses_whose_weight_is_0_as_we_do(ours: Any, spikingjelly: Any) -> None:
    layer, spk = nn.Linear(4, 3), torch.tensor([[1.0, 0, 1, 0]])
    nn.init.constant_(layer.weight, 0.5)
    nn.init.zeros_(layer.weight[0])
    totals = ours(nn.Sequential(layer), 1, spk)
    assert spikingjelly(nn.Sequential(layer), spk) == totals["effective_binary"] == 2 * 3
    assert totals["zero_weight_acs"] == 2


def test_it_takes_weights_of_0_and_1_for_spikes_and_we_do_not(ours: Any, spikingjelly: Any) -> None:
    layer = nn.Linear(4, 3, bias=False)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.weight[0])
    network, numbers = nn.Sequential(layer), torch.tensor([[0.3, 0, 0.7, 0], [0, 0.2, 0, 0]])
    assert spikingjelly(network, numbers) == 2 * 8  # two images, each read by eight "spikes"
    totals = ours(network, 1, numbers)
    assert (totals["ac"], totals["effective_real"]) == (0, 3 * 3)
    spk = (numbers > 0).float()
    assert spikingjelly(network, spk) == 3 * 2  # the output with weights 0 receives no spike
    assert ours(network, 1, spk)["effective_binary"] == 3 * 3


def test_it_does_not_see_fused_attention_nor_what_runs_under_inference_mode(
    ours: Any, spikingjelly: Any
) -> None:
    q, k, v = (spikes(2, 1, 5, 4, seed=seed) for seed in range(3))
    network = Apply(lambda images: F.scaled_dot_product_attention(q * 0.3, k, v))
    images = torch.zeros(2, 1)
    assert spikingjelly(network, images) == 0
    assert ours(network, 1, images)["effective_binary"] == int(k.sum() + v.sum()) * 5
    layer, spk = nn.Sequential(nn.Linear(4, 3)), torch.ones(1, 4)
    with torch.inference_mode():
        assert spikingjelly(layer, spk) == 0
        assert ours(layer, 1, spk)["effective_binary"] == 4 * 3


# --- energy ---------------------------------------------------------------------------------------


@spiking(False)  # for SpikingJelly it is no neuron either: a threshold without a membrane
class Spike(nn.Module):
    """Return 1 where the input exceeds 1/2, else 0."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0.5).to(x.dtype)


@pytest.fixture
def thresholds() -> nn.Module:
    """A network with real numbers, averages of spikes, and spikes as inputs of its layers."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        Spike(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 10, 3, stride=2, groups=2, bias=False),
        nn.BatchNorm2d(10),
        Spike(),
        nn.Flatten(),
        nn.Linear(10 * 9, 5),
    )
    with torch.no_grad():
        for _ in range(20):  # running statistics with which the neurons spike
            network.train()(torch.rand(8, 3, 16, 16) * 4)
    return network.eval()


IMAGES = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(5)) * 4
NORM_CHANNELS = 6 + 10


def chip(mac_pj: float, ac_pj: float, byte_pj: float) -> Technology:
    return Technology("of the test", mac_pj, ac_pj, bits=32, source="", byte_pj=byte_pj)


def test_the_convention_memory_is_its_simple_energy_but_for_one_addition_per_normalised_channel(
    thresholds: nn.Module, ours: Any
) -> None:
    theirs, totals = estimate_simple_energy(thresholds, IMAGES), ours(thresholds, 1, IMAGES)

    def memory(mac_pj: float, ac_pj: float, byte_pj: float) -> Any:
        return get_convention("memory").picojoules(totals, chip(mac_pj, ac_pj, byte_pj))

    read = theirs.counts["weight_read_bytes"], theirs.counts["bias_read_bytes"]
    assert memory(1, 0, 0) == theirs.counts["mac"]
    assert memory(0, 1, 0) == theirs.counts["ac"] - NORM_CHANNELS
    assert memory(0, 0, 1) == sum(read) == theirs.counts["memory_access_bytes"]
    assert read[1] == 4 * totals["bias_adds"] == 4 * 3 * (6 * 256 + 5)
    assert min(totals[name] for name in ("effective_binary", "dense_level", "dense_real")) > 0
    picojoules = energy_uj(totals | {"images": 1}, "memory") * 1e6
    assert theirs.energy_total_pj - picojoules == pytest.approx(0.9 * NORM_CHANNELS, abs=1e-6)


def test_they_count_that_addition_once_for_each_call(thresholds: nn.Module, ours: Any) -> None:
    """Two batches have the work of one twice as large, plus 16 additions each."""
    two = [estimate_simple_energy(thresholds, images).counts["ac"] for images in (IMAGES, IMAGES)]
    one = estimate_simple_energy(thresholds, torch.cat([IMAGES, IMAGES])).counts["ac"]
    assert sum(two) - one == NORM_CHANNELS
    assert ours(thresholds, 1, IMAGES, IMAGES) == ours(thresholds, 1, torch.cat([IMAGES, IMAGES]))


@pytest.mark.parametrize("num_steps, batch", [(1, 1), (2, 3), (4, 3)])
def test_membranes_are_read_and_written_as_its_neurons_are(
    num_steps: int, batch: int, ours: Any
) -> None:
    """Compare its leaky neurons with ours for the same currents."""
    cur = torch.randn(num_steps, batch, 2, 5, generator=torch.Generator().manual_seed(0))
    lif = neuron.LIFNode(tau=2.0, decay_input=False, v_reset=0.0, step_mode="m")
    counter = NeuromorphicMemoryAccessCounter()
    with torch.no_grad(), ModuleCounterMode([counter], model=lif):
        spk = lif(cur)
    counts = counter.get_counts()["Global"]
    assert spk.any() and torch.equal(spk, MultiStepLeaky(beta=0.5)(cur))
    leaky = MultiStepLeaky(beta=0.5)
    totals = ours(Apply(lambda images: leaky(cur), leaky), num_steps, torch.zeros(batch, 1))
    bytes_moved = counts["neuron_state_read_bytes"] + counts["neuron_state_write_bytes"]
    assert get_convention("memory").picojoules(totals, chip(0, 0, 1)) == bytes_moved > 0
