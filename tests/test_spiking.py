"""Neurons are recognised by what they do, so that the bill does not depend on who wrote them."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from codingbench.backbone import Backbone, MembraneBlock, SpikingHead, build_network, conv_bn
from codingbench.cells.rows import step_rows
from codingbench.counting.counter import OperationCounter
from codingbench.encoder import Task
from codingbench.energy import CONVENTIONS, energy_uj
from codingbench.neurons import over_time, spiking
from codingbench.registry import ENCODERS, Plugin
from codingbench.schema import COUNTS
from codingbench.store import firing
from tests.neurons_by_hand import DEFAULT, NEURONS, Cell, Denied, Lif, Surrogate, WithSurrogate

TASK = Task(4, 10, 3, 16, 16, (0.5,) * 3, (0.25,) * 3)


class Plain(Backbone):
    """Two convolutions between neurons, with a shortcut and a head."""

    stem_channels = 6
    make: Callable[[], nn.Module] = DEFAULT

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.block = MembraneBlock(self, 6, 12, stride=2)
        self.head = SpikingHead(self, 12, task.num_classes)

    def make_stem(self, channels: int) -> nn.Module:
        return conv_bn(channels, 6, kernel_size=3)

    def make_neuron(self) -> nn.Module:
        return type(self).make()

    def forward(self, cur: Tensor) -> Tensor:
        logits: Tensor = self.head(self.block(cur))
        return logits


def network_of(make: Callable[[], nn.Module], encoder: str = "direct") -> nn.Module:
    cls = type("Made", (Plain,), {"make": staticmethod(make)})
    backbone = Plugin("made", cls, (), "0")
    network = build_network(ENCODERS.resolve(encoder), backbone, TASK, seed=3)
    return strong(network).eval()


def strong(network: nn.Module) -> nn.Module:
    """Raise the weights of all normalisations, so that every neuron spikes."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.fill_(4.0)
    return network


def counted(network: nn.Module, *sizes: int, num_steps: int = 4) -> OperationCounter:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(sum(sizes), 3, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad(), OperationCounter(network, num_steps) as counter:
        for batch in images.split(list(sizes)):
            network(batch, generator)
            functional.reset_net(network)
    return counter


def numbers(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Everything in the rows but the names of the neurons."""
    names = [name for name in rows[0] if name != "layer"]
    return [
        (row["layer"] if row["kind"] != "neuron" else "", *(row[name] for name in names))
        for row in rows
    ]


@pytest.mark.parametrize("encoder", ["direct", "rate", "gac"])
@pytest.mark.parametrize("kind", NEURONS)
def test_one_network_has_one_bill_whoever_wrote_its_neurons(kind: str, encoder: str) -> None:
    usual = counted(network_of(DEFAULT, encoder), 4, 3).layer_rows()
    counter = counted(network_of(NEURONS[kind], encoder), 4, 3)
    assert numbers(counter.layer_rows()) == numbers(usual)
    assert not counter.uncounted()
    assert not counter.undecided("backbone") and not counter.undecided("encoder")


@pytest.mark.parametrize("kind", NEURONS)
def test_conventions_and_rates_are_those_of_the_usual_neuron(kind: str) -> None:
    def bill(make: Callable[[], nn.Module]) -> dict[str, float]:
        rows = counted(network_of(make), 4).layer_rows()
        totals = {name: sum(row[name] for row in rows) for name in COUNTS} | {"images": 4}
        energies = {name: energy_uj(totals, name) for name in CONVENTIONS}
        return energies | {"rate": step_rows(rows, [0.5] * 4)[-1]["firing_rate"]}

    usual, unseen = bill(DEFAULT), bill(Denied)
    assert bill(NEURONS[kind]) == usual
    assert usual["rate"] > unseen["rate"] == 0
    assert usual["memory"] != unseen["memory"] and usual["syops-like"] != unseen["syops-like"]


def test_neurons_have_their_qualified_names() -> None:
    rows = counted(network_of(NEURONS["cell"]), 4).layer_rows()
    names = {row["layer"] for row in rows if row["kind"] == "neuron"}
    assert names == {
        "encoder.neuron.cell",
        "backbone.block.neurons.0.cell",
        "backbone.block.neurons.1.cell",
        "backbone.head.neuron.cell",
    }
    names = {
        row["layer"]
        for row in counted(network_of(WithSurrogate), 4).layer_rows()
        if row["kind"] == "neuron"
    }
    assert "backbone.head.neuron" in names and "backbone.head.neuron.fire" not in names


def test_updates_and_spikes_are_counted_by_step() -> None:
    cur = torch.tensor([[0.6, 2.0], [0.8, 0.0], [0.0, 0.4], [1.5, 1.5]]).reshape(4, 1, 2)
    rows = rows_of(Calling(lif=Lif(), run=lambda parts: parts["lif"](cur)))
    assert [(row["step"], row["spikes"]) for row in rows] == [(1, 1), (2, 1), (3, 0), (4, 2)]
    assert [(row["neurons"], row["neuron_updates"]) for row in rows] == [(2, 2)] * 4
    assert [row["firing_rate"] for row in rows] == [0.5, 0.5, 0.0, 1.0]


class Calling(nn.Module):
    """A network whose forward pass is any function of its parts."""

    def __init__(self, run: Callable[[dict[str, nn.Module]], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.run, self.backbone = run, nn.ModuleDict(parts)

    def forward(self, images: Tensor) -> Tensor:
        self.run(dict(self.backbone))
        return images


def counter_of(network: nn.Module, num_steps: int = 4) -> OperationCounter:
    with torch.no_grad(), OperationCounter(network, num_steps) as counter:
        network(torch.zeros(1, 1))
    return counter


def rows_of(network: nn.Module, num_steps: int = 4) -> list[dict[str, Any]]:
    return counter_of(network, num_steps).layer_rows()


# --- what is no neuron ----------------------------------------------------------------------------


class Relu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(min=0)


class Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = nn.functional.max_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])
        return pooled


class Same(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Flipped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flip(-1)


class Block(nn.Module):
    """A convolution and a neuron: it ends in spikes of the shape of its input, but is none."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.conv, self.neuron = nn.Conv2d(2, 2, 3, padding=1), neuron

    def forward(self, x: Tensor) -> Tensor:
        spk: Tensor = self.neuron(4 * over_time(self.conv, x))
        return spk


REAL = torch.randn(4, 1, 2, 4, 4, generator=torch.Generator().manual_seed(1))
SPIKES = (REAL > 0).float()


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (Relu(), -REAL.abs()),  # dead: all 0
        (Relu(), REAL),
        (Relu(), SPIKES),
        (Pool(), REAL),
        (Pool(), SPIKES),
        (Same(), SPIKES),
        (Flipped(), SPIKES),
        (nn.Dropout(), SPIKES),
        (nn.ReLU(), -REAL.abs()),
        (nn.Threshold(0.0, 1.0), -REAL.abs()),
        (Denied(), REAL),
    ],
)
def test_what_only_passes_or_bounds_values_is_no_neuron(module: nn.Module, x: Tensor) -> None:
    rows = rows_of(Calling(part=module.eval(), run=lambda parts: parts["part"](x)))
    assert not [row for row in rows if row["kind"] == "neuron"]


def test_a_module_is_judged_by_all_batches_together() -> None:
    inputs = iter([REAL.clamp(0, 1).round(), REAL])  # a ReLU whose first batch looks like spikes
    network = Calling(part=Relu(), run=lambda parts: parts["part"](next(inputs)))
    with torch.no_grad(), OperationCounter(network, 4) as counter:
        network(torch.zeros(1, 1))
        network(torch.zeros(1, 1))
    assert not [row for row in counter.layer_rows() if row["kind"] == "neuron"]


def test_a_block_that_ends_in_a_neuron_is_not_one_itself() -> None:
    network = Calling(part=Block(Lif()), run=lambda parts: parts["part"](REAL))
    names = {row["layer"] for row in rows_of(network) if row["kind"] == "neuron"}
    assert names == {"backbone.part.neuron"}


def test_a_spike_function_alone_is_a_neuron_without_membrane() -> None:
    network = Calling(part=Block(Surrogate()), run=lambda parts: parts["part"](REAL))
    counter = counter_of(network)
    names = {row["layer"] for row in counter.layer_rows() if row["kind"] == "neuron"}
    assert names == {"backbone.part.neuron"} and not counter.undecided("backbone")


def test_silent_neurons_and_those_with_spikes_as_input_are_told_by_their_class() -> None:
    def run(parts: dict[str, nn.Module]) -> None:
        for name, x in (("a", REAL), ("silent", -REAL.abs()), ("fed", SPIKES)):
            parts[name](x)

    network = Calling(a=Lif(), silent=Lif(), fed=Lif(0.4), run=run)
    counter = counter_of(network)
    spikes = {
        layer: sum(row["spikes"] for row in rows)
        for layer, rows in itertools.groupby(counter.layer_rows(), lambda row: row["layer"])
    }
    assert list(spikes) == ["backbone.a", "backbone.silent", "backbone.fed"]
    assert spikes["backbone.silent"] == 0 and spikes["backbone.fed"] == SPIKES.sum()
    assert not counter.undecided("backbone")


# --- declarations ---------------------------------------------------------------------------------


@spiking
class Graded(nn.Module):
    def forward(self, cur: Tensor) -> Tensor:
        return cur * (cur > 0.5)


@spiking
class Integer(nn.Module):
    def forward(self, cur: Tensor) -> tuple[Tensor, str]:
        return cur.clamp(0, 3).round(), "and something else"


@pytest.mark.parametrize("cls", [Graded, Integer])
def test_a_declared_neuron_has_a_spike_for_each_value_that_is_not_0(cls: Any) -> None:
    counter = counter_of(Calling(part=cls(), run=lambda parts: parts["part"](REAL)))
    rows = counter.layer_rows()
    out = cls()(REAL)
    expected = (out if isinstance(out, Tensor) else out[0]).flatten(1).count_nonzero(1)
    assert [row["spikes"] for row in rows] == expected.tolist()
    assert {row["kind"] for row in rows} == {"neuron"} and not counter.undecided("backbone")


class Recurrent(nn.Module):
    """A neuron whose spikes return through weights."""

    def __init__(self) -> None:
        super().__init__()
        self.back, self.cell = nn.Linear(6, 6, bias=False), Cell()

    def forward(self, cur: Tensor) -> Tensor:
        mem, spk, train = torch.zeros_like(cur[0]), torch.zeros_like(cur[0]), []
        for step in cur:
            spk, mem = self.cell(step + self.back(spk), mem)
            train.append(spk)
        return torch.stack(train)


def test_weights_inside_a_declared_neuron_are_synapses() -> None:
    cur = 2 * torch.randn(4, 1, 6, generator=torch.Generator().manual_seed(2))
    whole = spiking(type("Declared", (Recurrent,), {}))
    network = Calling(part=whole(), run=lambda parts: parts["part"](cur))
    kinds = {(row["layer"], row["kind"]) for row in rows_of(network)}
    assert kinds == {("backbone.part", "neuron"), ("backbone.part.back", "synapse")}


def test_a_declaration_holds_for_derived_classes_and_can_be_changed_there() -> None:
    class Derived(Graded):
        pass

    @spiking(False)
    class NoNeuron(Graded):
        pass

    for cls, kinds in ((Derived, {"neuron"}), (NoNeuron, {"gate"})):
        network = Calling(part=cls(), run=lambda parts: parts["part"](REAL))
        assert {row["kind"] for row in rows_of(network)} - {"gate"} == kinds - {"gate"}


# --- what cannot be told --------------------------------------------------------------------------


class Functional(nn.Module):
    """A convolution and a membrane without a module for the neuron."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fire = nn.Conv2d(2, 2, 3, padding=1), Surrogate()
        self.uses_module = False

    def forward(self, x: Tensor) -> Tensor:
        mem, train = torch.zeros_like(x[0]), []
        for cur in over_time(self.conv, x):
            mem = 0.5 * mem + cur
            spk = self.fire(mem) if self.uses_module else (mem > 0).to(mem.dtype)
            mem = mem * (1 - spk)
            train.append(spk)
        return torch.stack(train)


def test_spikes_made_outside_a_module_are_undecided() -> None:
    part = Functional()
    network = Calling(part=part, run=lambda parts: parts["part"](REAL))
    assert counter_of(network).undecided("backbone") == ["backbone.part"]
    part.uses_module = True  # the spikes are seen, but the membrane is computed around them
    assert counter_of(network).undecided("backbone") == ["backbone.part.fire"]


def test_a_module_that_sees_nothing_but_spikes_is_undecided_unless_it_is_declared() -> None:
    for cls, names in ((Lif, ["backbone.part"]), (Denied, [])):
        network = Calling(part=cls(0.4), run=lambda parts: parts["part"](SPIKES))
        assert counter_of(network).undecided("backbone") == names


def test_hand_made_neurons_of_an_encoder_do_not_change_the_firing_rate() -> None:
    rows = counted(network_of(Lif), 4).layer_rows()
    backbone = [row for row in rows if row["layer"].startswith("backbone.")]
    whole, alone = firing.sums(rows), firing.sums(backbone)
    assert whole["encoder_neurons"] == 6 * 16 * 16 and whole["encoder_spikes"] > 0
    assert (whole["spikes"], whole["neurons"]) == (alone["spikes"], alone["neurons"])
