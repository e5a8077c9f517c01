"""Our accumulates and multiply-accumulates compared with NeuroBench's; the numbers are equal.

NeuroBench chooses between the two for each call of a layer. Totals are therefore compared where the
class of a layer is the same at all steps; elsewhere its rule is compared for one layer.
"""

from typing import Any

import pytest
import snntorch
import torch
from neurobench.benchmarks import Benchmark
from neurobench.metrics.workload import SynapticOperations
from neurobench.models import SNNTorchModel, TorchModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils.data import DataLoader, TensorDataset

from codingbench.energy import get_convention, get_technology

Case = tuple[nn.Module, int, Tensor]

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel"),
]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def by_kind(of: dict[str, int]) -> tuple[int, int]:
    """Return accumulates and multiply-accumulates."""
    return of["binary"] + of["signed"], of["level"] + of["real"]


# --- the same -------------------------------------------------------------------------------------


def test_ac_and_mac_are_those_of_its_metric(case: Case, ours: Any, neurobench: Any) -> None:
    network, num_steps, images = case
    totals = ours(network, num_steps, images)
    assert (totals["ac"], totals["mac"]) == neurobench(network, images)
    assert min(totals["ac"], totals["mac"]) > 0


def test_every_layer_and_step_is_that_of_its_rule(
    case: Case, our_steps: Any, neurobench_steps: Any
) -> None:
    ours = {cell: by_kind(of) for cell, of in our_steps(*case).items()}
    assert ours == neurobench_steps(*case)


def test_every_geometry_is_that_of_its_rule_in_every_value_class(
    geometry: Case, our_steps: Any, neurobench_steps: Any
) -> None:
    ours = our_steps(*geometry)
    seen = [{c for c, n in of.items() if n} for of in ours.values()]
    assert seen == [{"binary"}, {"signed"}, {"level"}, {"real"}]
    assert {cell: by_kind(of) for cell, of in ours.items()} == neurobench_steps(*geometry)


def test_its_own_loop_over_snntorch_neurons_counts_what_we_count(ours: Any) -> None:
    """A network as ``SNNTorchModel`` needs it: it resets neurons and calls it for every step."""

    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.linear = nn.Conv2d(2, 6, 3, padding=1), nn.Linear(6 * 25, 4)
            self.lif = snntorch.Leaky(beta=0.8, threshold=0.3, init_hidden=True)
            self.out = snntorch.Leaky(beta=0.8, threshold=0.1, init_hidden=True, output=True)

        def forward(self, x: Tensor) -> Any:
            return self.out(self.linear(self.lif(self.conv(x)).flatten(1)))

    class Looped(nn.Module):
        def __init__(self, model: SNNTorchModel) -> None:
            super().__init__()
            self.step, self.model = model.net, model

        def forward(self, images: Tensor) -> Any:
            return self.model(images)

    model, images = SNNTorchModel(Step()), (draw(3, 4, 2, 5, 5) < 0.3).float()
    totals = ours(Looped(model), 4, images)
    data = DataLoader(TensorDataset(images, torch.zeros(3)), batch_size=3)
    result = Benchmark(model, data, [], [], [[], [SynapticOperations]]).run(quiet=True)
    counts = result["SynapticOperations"]
    assert [totals["ac"], totals["mac"]] == [
        round(counts["Effective_ACs"] * 3),
        round(counts["Effective_MACs"] * 3),
    ]
    assert totals["ac"] > int(images.sum()) * 6 * 4  # beyond the first layer


def test_batches_of_unequal_size_add_up_to_its_benchmark(ours: Any) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, 4))
    images = draw(7, 1, 8, 8).clamp(min=0.5) - 0.5
    data = DataLoader(TensorDataset(images, torch.zeros(7)), batch_size=3)
    benchmark = Benchmark(TorchModel(network), data, [], [], [[], [SynapticOperations]])
    counts = benchmark.run(quiet=True)["SynapticOperations"]
    del benchmark  # removes its hooks
    totals = ours(network, 1, *images.split(3))
    assert (totals["ac"], totals["mac"]) == (0, round(counts["Effective_MACs"] * 7))


# --- pruned networks ------------------------------------------------------------------------------


def pruned(network: nn.Module) -> nn.Module:
    """Set a third of the weights of every layer to 0."""
    torch.manual_seed(9)
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            prune.random_unstructured(layer, "weight", amount=1 / 3)
            prune.remove(layer, "weight")
    return network


class Spike(nn.Module):
    """Return 1 where the input exceeds 0, else 0."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)


@pytest.fixture
def pruned_network() -> nn.Module:
    torch.manual_seed(0)
    return pruned(
        nn.Sequential(
            nn.Conv2d(4, 6, 3, groups=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(6, 8, 3, stride=2),
            Spike(),
            nn.Flatten(),
            nn.Linear(8 * 9, 5),
            nn.ReLU(),
            nn.Linear(5, 3),
        )
    )


def test_synapses_whose_weight_is_0_are_all_that_it_leaves_out(
    pruned_network: nn.Module, ours: Any, neurobench: Any
) -> None:
    images = (draw(3, 4, 8, 8) < 0.3).float()
    totals = ours(pruned_network, 1, images)
    ac, mac = neurobench(pruned_network, images)
    assert totals["ac"] - totals["zero_weight_acs"] == ac
    assert totals["mac"] - totals["zero_weight_macs"] == mac
    assert totals["zero_weight_acs"] > ac / 3 and totals["zero_weight_macs"] > mac / 3


def test_a_pruned_layer_is_that_of_its_rule_in_every_geometry_and_class(
    geometry: Case, ours: Any, neurobench_steps: Any
) -> None:
    network, num_steps, images = geometry
    totals = ours(pruned(network), num_steps, images)
    steps = neurobench_steps(network, num_steps, images).values()
    assert totals["ac"] - totals["zero_weight_acs"] == sum(ac for ac, _ in steps)
    assert totals["mac"] - totals["zero_weight_macs"] == sum(mac for _, mac in steps)
    assert totals["zero_weight_acs"] > 0 and totals["zero_weight_macs"] > 0


def test_the_convention_neurobench_prices_its_counts(
    pruned_network: nn.Module, ours: Any, neurobench: Any
) -> None:
    images = (draw(3, 4, 8, 8) < 0.3).float()
    totals = ours(pruned_network, 1, images)
    ac, mac = neurobench(pruned_network, images)

    def picojoules(convention: str) -> Any:
        return get_convention(convention).picojoules(totals, get_technology("fp32"))

    assert picojoules("neurobench") == pytest.approx(0.9 * ac + 4.6 * mac, rel=1e-12)
    assert picojoules("exact") > 1.3 * picojoules("neurobench")


# --- known differences ----------------------------------------------------------------------------


def test_it_takes_all_steps_of_a_folded_call_for_the_dearest_and_we_each_for_itself(
    ours: Any, neurobench: Any
) -> None:
    class Folded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, images: Tensor) -> Tensor:
            spk = torch.tensor([[1.0, 0, 1, 0], [1.0, 0, 2, 1]])  # spikes, then sums of spikes
            out: Tensor = self.linear(spk)
            return out

    totals = ours(Folded(), 2, torch.zeros(1, 4))
    assert (totals["ac"], totals["mac"]) == (2 * 3, 3 * 3)
    assert neurobench(Folded(), torch.zeros(1, 4)) == (0, 5 * 3)


def test_it_counts_a_layer_under_two_names_twice_and_we_once(ours: Any, neurobench: Any) -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Linear(4, 3))
            self.head = nn.Sequential(self.block[0])

        def forward(self, images: Tensor) -> Any:
            return self.block(images)

    spk = torch.tensor([[1.0, 0, 1, 0], [1, 1, 1, 0]])
    assert ours(Shared(), 1, spk)["ac"] == 5 * 3
    assert neurobench(Shared(), spk) == (2 * 5 * 3, 0)


@pytest.mark.parametrize(
    "layer",
    [nn.ConvTranspose2d(2, 3, 2), nn.Bilinear(4, 4, 3), "functional"],
    ids=["transposed", "bilinear", "functional"],
)
def test_what_it_does_not_know_it_passes_over(layer: Any, neurobench: Any, ours: Any) -> None:
    """We count all three: Bilinear as x W, then the product with the other input."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(2, 3, 2) if layer == "functional" else layer

        def forward(self, images: Tensor) -> Any:
            if layer == "functional":
                return F.conv2d(images, self.layer.weight)
            return self.layer(*[images] * (1 + isinstance(layer, nn.Bilinear)))

    spk = torch.zeros(1, 2, 4, 4)
    spk[0, 0, 1, 1] = 1  # four outputs of three channels read it, either way
    assert neurobench(Network(), spk) == (0, 0)
    if isinstance(layer, nn.Bilinear):
        # One spike reads 3 x 4 weights; of its row's 3 x 4 sums, 3 meet a spike of the other input.
        totals = ours(Network(), 1, spk)
        assert totals["ac"] == 3 * 4 + 3
    else:
        assert ours(Network(), 1, spk)["ac"] == 4 * 3


def test_an_error_in_its_metric_becomes_0_where_we_count(ours: Any, capsys: Any) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(4, 3, batch_first=True)

        def forward(self, images: Tensor) -> Any:
            return self.rnn(images)[0]

    torch.manual_seed(0)
    spk = torch.tensor([[[1.0, 0, 1, 0], [0, 0, 0, 1]]])
    data = DataLoader(TensorDataset(spk, torch.zeros(1)))
    benchmark = Benchmark(TorchModel(Recurrent()), data, [], [], [[], [SynapticOperations]])
    assert benchmark.run()["SynapticOperations"] == 0.0
    assert "Error running workload metric" in capsys.readouterr().out
    totals = ours(Recurrent(), 2, spk)
    assert totals["ac"] == 3 * 3  # three spikes, each to three hidden units
    assert totals["mac"] == 3 * 3  # the hidden state at the second step; 0 before the first
