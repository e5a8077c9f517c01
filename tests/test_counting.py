"""Counts compared with values computed by hand and with a naive counter, by step and class."""

from collections.abc import Callable
from typing import Any

import pytest
import snntorch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codingbench.backbone import build_network
from codingbench.cells.rows import step_rows
from codingbench.counting.counter import OperationCounter
from codingbench.counting.ledger import Ledger
from codingbench.counting.value_classes import measure
from codingbench.encoder import Task
from codingbench.energy import energy_uj
from codingbench.neurons import MultiStepLeaky, over_time
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.schema import VALUE_CLASSES

Row = dict[str, Any]


class Folded(nn.Module):
    """A layer applied to inputs [T, B, ...] with time folded into the batch."""

    def __init__(self, layer: nn.Module, inputs: Tensor) -> None:
        super().__init__()
        self.layer, self.inputs = layer, inputs

    def forward(self, images: Tensor) -> Tensor:
        return over_time(self.layer, self.inputs)


class Calling(nn.Module):
    """A network whose forward pass is any function."""

    def __init__(self, function: Callable[["Calling", Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, images: Tensor) -> Tensor:
        self.function(self, images)
        return images


def count(network: nn.Module, num_steps: int, images: Tensor, batches: int = 1) -> list[Row]:
    with torch.no_grad(), OperationCounter(network, num_steps) as counter:
        for _ in range(batches):
            network(images)
    return counter.layer_rows()


def synapses(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["kind"] == "synapse"]


def by_class(row: Row, how: str) -> dict[str, int]:
    return {c: row[f"{how}_{c}"] for c in VALUE_CLASSES if row[f"{how}_{c}"]}


# --- by hand ----------------------------------------------------------------------------------


def test_a_3x3_convolution_by_hand() -> None:
    """A corner of 3x3 pixels with padding 1 is read 4 times, an edge 6 and the centre 9 times."""
    inputs = torch.zeros(2, 1, 1, 3, 3)
    inputs[0, 0, 0, 0, 0] = inputs[0, 0, 0, 1, 1] = 1  # corner and centre at step 1
    inputs[1, 0, 0, 0, 1] = -1  # an edge at step 2
    layer = nn.Conv2d(1, 5, 3, padding=1)  # bias is not counted
    first, second = synapses(count(Folded(layer, inputs), 2, torch.zeros(1, 1)))
    assert by_class(first, "effective") == {"binary": (4 + 9) * 5}
    assert by_class(second, "effective") == {"signed": 6 * 5}
    assert first["dense_binary"] == second["dense_signed"] == 9 * 9 * 5
    assert (first["input_values"], first["input_nonzero"]) == (9, 2)
    assert first["input_rate"] == 2 / 9


def test_what_is_computed_without_images_is_not_counted() -> None:
    def forward(net: Any, images: Tensor) -> Tensor:
        table = torch.arange(4.0).reshape(-1, 1) * torch.arange(4.0)  # a constant of the coding
        return images * torch.exp(table * table)

    row = count(Calling(forward), 1, torch.ones(3, 4, 4), batches=2)[0]
    assert row["gate_muls"] == 2 * 3 * 4 * 4  # the product with the images alone


def test_images_and_random_numbers_written_into_a_new_tensor_are_counted() -> None:
    def forward(net: Any, images: Tensor) -> Tensor:
        copy, noise = torch.zeros(3, 4), torch.empty(3, 4)
        copy[0] = images[0]
        noise.normal_()
        return copy * copy + noise * noise

    rows = count(Calling(forward), 1, torch.ones(3, 4))
    assert sum(row["gate_muls"] for row in rows) == 2 * 3 * 4


def test_a_three_layer_network_by_hand() -> None:
    """Image 2x2 -> conv 1x1 (2 channels, once) -> LIF -> conv 2x2 -> LIF -> linear 3."""
    conv1, conv2, linear = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 4, 2), nn.Linear(4, 3)
    for layer in (conv1, conv2, linear):
        nn.init.ones_(layer.weight)
        assert layer.bias is not None
        nn.init.zeros_(layer.bias)

    def forward(net: Any, images: Tensor) -> Tensor:
        cur = net.conv1(images).expand(3, -1, -1, -1, -1)
        spk = net.lif2(over_time(net.conv2, net.lif1(cur)))
        return over_time(net.linear, spk.flatten(2))

    parts = {"conv1": conv1, "conv2": conv2, "linear": linear}
    network = Calling(forward, **parts, lif1=MultiStepLeaky(), lif2=MultiStepLeaky())
    # .25 never spikes, .7 at step 2, 1.5 at each step, 0 never; the same in both channels
    images = torch.tensor([[[[0.25, 0.7], [1.5, 0.0]]]])
    rows = count(network, 3, images)
    layers: dict[str, list[Row]] = {}
    for row in rows:
        layers.setdefault(row["layer"], []).append(row)

    (once,) = layers["conv1"]  # one row, because it runs once, at step 1
    assert (once["step"], once["executions"], once["input_class"]) == (1, 1, "real")
    assert by_class(once, "effective") == {"real": 3 * 2}  # the black pixel costs nothing
    assert by_class(once, "dense") == {"real": 4 * 2}
    assert [row["spikes"] for row in layers["lif1"]] == [2, 4, 2]
    assert [row["firing_rate"] for row in layers["lif1"]] == [2 / 8, 4 / 8, 2 / 8]
    assert [row["effective_binary"] for row in layers["conv2"]] == [8, 16, 8]
    assert [row["dense_binary"] for row in layers["conv2"]] == [32, 32, 32]
    assert [row["spikes"] for row in layers["lif2"]] == [4, 4, 4]
    assert [row["effective_binary"] for row in layers["linear"]] == [12, 12, 12]

    steps = step_rows(rows, [0.1, 0.2, 0.3])
    assert [s["spikes"] for s in steps] == [6, 8, 6]
    # AC 20, 28, 20 at .9 pJ, and 6 MAC at 4.6 pJ at the first step
    exact = [(6 * 4.6 + 20 * 0.9) * 1e-6, (27.6 + 48 * 0.9) * 1e-6, (27.6 + 68 * 0.9) * 1e-6]
    assert [s["energy_exact_uj"] for s in steps] == pytest.approx(exact)
    # paper: the first convolution densely; conv2 at rates 2/8, 4/8, 2/8 x 32, linear at 1 x 12
    paper = [(8 * 4.6 + 20 * 0.9) * 1e-6, (36.8 + 48 * 0.9) * 1e-6, (36.8 + 68 * 0.9) * 1e-6]
    assert [s["energy_paper_uj"] for s in steps] == pytest.approx(paper)


@pytest.mark.parametrize("encoder, gate", [("direct", False), ("gac", True)])
def test_ms_resnet18_costs_what_the_published_code_costs(encoder: str, gate: bool) -> None:
    """Dense operations at 32x32: stem 1.77 M and gate 134.2 M once; shortcuts 25.2 M a step."""
    task = Task(2, 10, 3, 32, 32, (0.5,) * 3, (0.25,) * 3)
    network = build_network(
        ENCODERS.resolve(encoder), BACKBONES.resolve("ms_resnet18"), task, seed=0
    ).eval()
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad(), OperationCounter(network, 2) as counter:
        network(torch.rand(1, 3, 32, 32), draws)
    rows = synapses(counter.layer_rows())
    dense: dict[tuple[str, int], int] = {}
    for row in rows:
        kind = next(k for k in ("stem", "spatial", "temporal", "shortcut", "convs", "linear")
                    if k in row["layer"])  # fmt: skip
        key = kind, row["step"]
        dense[key] = dense.get(key, 0) + sum(row[f"dense_{c}"] for c in VALUE_CLASSES)
    assert dense.get(("spatial", 1)) == (134_217_728 if gate else None)
    assert ("spatial", 2) not in dense and ("stem", 2) not in dense
    assert dense["stem", 1] == 1_769_472
    assert dense["shortcut", 1] == dense["shortcut", 2] == 3 * 8_388_608
    assert dense["convs", 1] == dense["convs", 2] == 2_189_426_688
    assert dense["linear", 2] == 5_120
    assert not counter.uncounted()


def test_the_gate_of_gac_costs_what_was_derived_from_its_code() -> None:
    """The gate has 134.2 M dense MACs, 0.617 mJ; the convention ``exact`` leaves out padding.

    On 32x32 pixels, a 4x4 kernel padded by 1 and 2 reads 124 of 128 rows, and a 3x3 kernel padded
    by 1 reads 94 of 96.
    """
    task = Task(2, 10, 3, 32, 32, (0.5,) * 3, (0.25,) * 3)
    network = build_network(
        ENCODERS.resolve("gac"), BACKBONES.resolve("ms_resnet18"), task, seed=0
    ).eval()
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), OperationCounter(network, 2) as counter:
        network(images, torch.Generator())
    rows = {(row["layer"], row["step"]): row for row in synapses(counter.layer_rows())}
    gate = [row for (layer, _), row in rows.items() if "encoder.spatial" in layer]
    assert [row["executions"] for row in gate] == [1, 1]  # two convolutions, once for both steps
    dense_uj = sum(energy_uj(row, "dense-mac") for row in gate)
    assert dense_uj == pytest.approx(617.4, abs=0.05)
    assert gate[0]["effective_real"] == 124 * 124 * 64 * 64
    stem = rows["encoder.stem.0", 1]
    assert (stem["dense_real"], stem["effective_real"]) == (1_769_472, 94 * 94 * 3 * 64)
    shortcuts = [row for (layer, _), row in rows.items() if "shortcut" in layer]
    dense = [sum(by_class(row, "dense").values()) for row in shortcuts]
    assert dense == [8_388_608] * 3 * 2  # 25.2 M per step
    # The second and third have currents as input, which are priced densely without zero skipping.
    assert {row["input_class"] for row in shortcuts[2:]} == {"real"}
    for row in shortcuts[2:]:
        assert energy_uj(row, "dense-mac") == pytest.approx(4.6e-6 * 8_388_608)
        assert energy_uj(row, "exact") == pytest.approx(4.6e-6 * row["effective_real"])
    gate_muls = {row["step"]: row["gate_muls"] for row in counter.layer_rows() if row["gate_muls"]}
    assert gate_muls == dict.fromkeys((1, 2), 2 * 64 * 32 * 32)  # TA x SCA, then the spikes


# --- against a naive counter ------------------------------------------------------------------

GEOMETRIES: dict[str, Any] = {
    "plain": nn.Conv2d(4, 6, 3, padding=1),
    "stride": nn.Conv2d(4, 6, 3, stride=2),
    "dilation": nn.Conv2d(4, 6, 3, padding=2, dilation=2),
    "groups": nn.Conv2d(4, 6, 3, padding=1, groups=2),
    "depthwise": nn.Conv2d(4, 4, 5, padding=2, groups=4),
    "uneven": nn.Conv2d(4, 6, (2, 5), stride=(1, 3), padding=(1, 0)),
    "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
    "transposed groups": nn.ConvTranspose2d(4, 6, 2, groups=2),
}


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("value_class", ["binary", "signed", "level", "real"])
def test_every_geometry_equals_counting_with_unit_weights(name: str, value_class: str) -> None:
    """Count operations by applying the layer, with weights 1, to the mask of non-zero inputs."""
    layer, draws = GEOMETRIES[name], torch.Generator().manual_seed(3)
    mask = (torch.rand(3, 2, 4, 9, 11, generator=draws) < 0.3).float()
    values = {
        "binary": mask,
        "signed": mask * torch.where(torch.rand(mask.shape, generator=draws) < 0.5, -1.0, 1.0),
        "level": mask * torch.randint(1, 5, mask.shape, generator=draws) / 4,
        "real": mask * (torch.rand(mask.shape, generator=draws) + 0.01),
    }[value_class]
    rows = synapses(count(Folded(layer, values), 3, torch.zeros(2, 1)))
    assert [row["input_class"] for row in rows] == [value_class] * 3
    with torch.no_grad():
        ones = type(layer)(**_arguments(layer))
        nn.init.ones_(ones.weight)
        expected = [int(ones(step).double().sum()) for step in mask]
        out = ones(mask[0]).numel()
    assert [by_class(row, "effective") for row in rows] == [{value_class: n} for n in expected]
    if not isinstance(layer, nn.ConvTranspose2d):
        assert rows[0][f"dense_{value_class}"] == out * layer.weight[0].numel()


def _arguments(layer: Any) -> dict[str, Any]:
    names = [
        "in_channels",
        "out_channels",
        "kernel_size",
        "stride",
        "padding",
        "dilation",
        "groups",
    ]
    names += ["output_padding"] if isinstance(layer, nn.ConvTranspose2d) else []
    return {name: getattr(layer, name) for name in names} | {"bias": False}


# --- how things are called --------------------------------------------------------------------


def test_functional_calls_count_like_layers() -> None:
    x = (torch.rand(2, 3, 4, 8, 8) < 0.4).float()
    conv, linear = nn.Conv2d(4, 6, 3, stride=2), nn.Linear(8, 5)

    def layers(net: Any, images: Tensor) -> None:
        over_time(net.conv, x)
        net.linear(x)

    def functional(net: Any, images: Tensor) -> None:
        F.conv2d(x.flatten(0, 1), conv.weight, conv.bias, stride=2)
        torch.einsum("tbchw,kw->tbchk", x, linear.weight)

    def totals(network: nn.Module) -> list[int]:
        rows = synapses(count(network, 2, torch.zeros(3, 1)))
        return [sum(r["effective_binary"] for r in rows if r["step"] == t) for t in (1, 2)]

    expected = totals(Calling(layers, conv=conv, linear=linear))
    assert min(expected) > 0
    assert totals(Calling(functional)) == expected


def test_a_loop_over_time_counts_the_same_as_folded_time() -> None:
    """A network in the style of snntorch: layers called T times, and neurons with state."""
    cur = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(2)) * 2
    linear = nn.Linear(6, 5, bias=False)
    settings: dict[str, Any] = {"beta": 0.5, "reset_mechanism": "zero", "reset_delay": False}

    def looped(net: Any, images: Tensor) -> None:
        mem = torch.zeros(3, 6)
        for step in cur:
            spk, mem = net.lif(step, mem)
            net.linear(spk)

    def folded(net: Any, images: Tensor) -> None:
        over_time(net.linear, net.lif(cur))

    network = Calling(looped, lif=snntorch.Leaky(**settings), linear=linear)
    reference = Calling(folded, lif=MultiStepLeaky(**settings), linear=linear)
    rows, expected = (count(n, 4, torch.zeros(3, 1)) for n in (network, reference))
    assert rows == expected
    assert sum(row["spikes"] for row in rows) > 0


def test_a_layer_called_twice_in_each_step_is_split_by_step() -> None:
    spikes = torch.zeros(3, 2, 3, 6)  # three steps with two calls each, three images
    for step in range(3):
        spikes[step, :, :, : step + 1] = 1

    def looped(net: Any, images: Tensor) -> None:
        for first, second in spikes:
            net.linear(first)
            net.linear(second)

    rows = count(Calling(looped, linear=nn.Linear(6, 5)), 3, torch.zeros(3, 1))
    assert [row["effective_binary"] for row in rows] == [2 * 3 * 5, 2 * 6 * 5, 2 * 9 * 5]
    assert [row["executions"] for row in rows] == [6, 6, 6]


def test_three_different_operations_at_three_steps_run_once() -> None:
    def forward(net: Any, images: Tensor) -> None:
        for pool in (torch.mean, torch.sum, torch.amax):
            pool(images, (1,))

    (row,) = count(Calling(forward), 3, torch.rand(2, 4))
    assert (row["step"], row["executions"], row["pool_ops"]) == (1, 3 * 2, 3 * 2 * 3)


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_sizes_that_coincide_do_not_confuse_steps_with_channels(num_steps: int) -> None:
    """T images of T channels, seen once: the first axis of [T, T, 4, 4] is not time."""
    images = torch.rand(num_steps, num_steps, 4, 4)
    layers = nn.Sequential(nn.Conv2d(num_steps, 2, 3), nn.BatchNorm2d(2), nn.AvgPool2d(2)).eval()
    network = Calling(lambda net, images: layers(images), layers=layers)
    rows = count(network, num_steps, images)
    assert [row["step"] for row in rows] == [1, 1, 1]
    assert {row["executions"] for row in rows} == {num_steps}


def test_a_last_batch_of_as_many_images_as_steps_is_split_like_those_before_it() -> None:
    """Two steps: [2, 2, 4] may be two steps of two images, or two images of two rows."""
    looped, at_once = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(net: Any, images: Tensor) -> None:
        for _ in range(2):
            net.looped(images)
        net.at_once(torch.stack([images[:, 0], images[:, 0]]))

    network = Calling(forward, looped=looped, at_once=at_once)
    last = torch.ones(2, 2, 4)
    last[1] = 0.3
    with torch.no_grad(), OperationCounter(network, 2) as counter:
        network(torch.ones(3, 2, 4))
        network(last)
    rows = {(row["layer"], row["step"]): row for row in counter.layer_rows()}
    for step in (1, 2):  # the rows of three images, then of two, which are real together
        assert by_class(rows["looped", step], "effective") == {"binary": 72, "real": 48}
        assert by_class(rows["at_once", step], "effective") == {"binary": 36, "real": 24}


def test_a_pass_that_gave_nothing_is_no_zero() -> None:
    class Nothing(nn.Module):
        def forward(self, images: Tensor) -> None:
            images @ images

    with pytest.raises(RuntimeError, match="failed or returned None for 1 batches"):
        count(Nothing(), 1, torch.ones(2, 2))


def test_a_shared_layer_counts_once_per_execution() -> None:
    x = torch.ones(3, 6)

    def forward(net: Any, images: Tensor) -> None:
        net.shared(x)
        net.shared(x)

    shared = nn.Linear(6, 2)
    (row,) = count(Calling(forward, shared=shared, other_name=shared), 4, torch.zeros(3, 1))
    assert (row["executions"], row["effective_binary"]) == (2 * 3, 2 * 3 * 6 * 2)


def test_batches_add_up() -> None:
    x = (torch.rand(2, 3, 4, 8, 8) < 0.4).float()
    network = Folded(nn.Conv2d(4, 6, 3), x)
    one, three = (synapses(count(network, 2, torch.zeros(3, 1), batches=n)) for n in (1, 3))
    for row, total in zip(one, three, strict=True):
        assert total["effective_binary"] == 3 * row["effective_binary"]
        assert total["images"] == 3 * row["images"] == 9
        assert total["input_rate"] == pytest.approx(row["input_rate"])


def test_counting_changes_no_output_and_leaves_no_hook() -> None:
    task = Task(3, 10, 1, 28, 28, (0.3,), (0.3,))
    network = build_network(ENCODERS.resolve("gac"), BACKBONES.resolve("csnn"), task, 0).eval()
    images = torch.rand(4, 1, 28, 28)

    def logits() -> Tensor:
        with torch.no_grad():
            out: Tensor = network(images, torch.Generator().manual_seed(0))
        return out

    plain = logits()
    with OperationCounter(network, 3):
        assert torch.equal(logits(), plain)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_a_layer_whose_work_leaves_torch_is_named() -> None:
    class Foreign(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 4))

        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(x.numpy() @ self.weight.detach().numpy())

    def forward(net: Any, images: Tensor) -> Any:
        return net.odd(torch.ones(2, 4))

    network = Calling(forward, odd=Foreign())
    with torch.no_grad(), OperationCounter(network, 1) as counter:
        network(torch.zeros(2, 1))
    assert counter.uncounted() == ["odd"]


def test_an_error_while_counting_is_an_error_not_a_zero() -> None:
    def broken(net: Any, images: Tensor) -> None:
        raise RuntimeError("broken layer")

    network = Calling(broken)
    with pytest.raises(RuntimeError, match="broken layer"):
        count(network, 1, torch.zeros(2, 1))
    assert not network._forward_hooks


@pytest.mark.parametrize(
    "values, expected",
    [
        ([0, 0, 0], "binary"),
        ([0, 1, 1], "binary"),
        ([0, -1, 1], "signed"),
        ([-1, 0], "signed"),
        ([0, 1, 2], "level"),
        ([0, 0.25, 0.75], "level"),
        ([1 / 9, 0, 7 / 9], "level"),
        ([0, 0.5], "level"),
        ([0, 0.3712], "real"),
        ([0, 1e-7, 2], "real"),
        ([1, 1.0001, 0], "real"),
        ([0, 1, 1 - 2**-24], "level"),
        ([0, 1, 1e-45], "real"),
        ([0, 1, float("inf")], "real"),
    ],
)
def test_value_classes(values: list[float], expected: str) -> None:
    ledger = Ledger()
    measured = measure(torch.tensor(values, dtype=torch.float32).reshape(-1, 1), ledger)
    assert ledger.set(ledger.content().tolist())
    assert measured.value_class == expected
    assert measured.nonzero.tolist() == [sum(value != 0 for value in values)]
    magnitude = sum(map(abs, values)) if expected != "real" else sum(map(bool, values))
    assert measured.totals.magnitude.value == pytest.approx(magnitude)
