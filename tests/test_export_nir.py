"""NIR graphs of networks: they compute the same function, or the export is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import snntorch
import torch
from scipy.signal import correlate2d
from torch import Generator, Tensor, nn

from codingbench.backbone import Backbone, Network, SpikingHead, build_network, conv_bn
from codingbench.cells.network import task_of
from codingbench.datasets import fetch, get_info, load
from codingbench.datasets.pixels import to_unit
from codingbench.encoder import Setting, Task
from codingbench.export.agreement import check, compare
from codingbench.export.graph import DT, graph_of
from codingbench.export.signals import Refused
from codingbench.export.tracing import trace
from codingbench.neurons import MultiStepLeaky, over_time
from codingbench.registry import BACKBONES, ENCODERS
from tests.test_every_encoder import CODINGS

TASK = Task(3, 2, 1, 4, 4, mean=(0.5,), std=(0.25,))

Middle = Callable[[Tensor], Tensor]


class Tiny(Backbone):
    """A neuron, a given function, and a head."""

    stem_channels = 2

    def __init__(self, middle: Middle, neuron: Callable[[], nn.Module]) -> None:
        super().__init__(TASK)
        self.neuron = neuron()
        self.middle = middle
        self.head = SpikingHead(self, 2, 2)

    def make_stem(self, channels: int) -> nn.Module:
        return conv_bn(channels, 2, 3)

    def forward(self, cur: Tensor) -> Tensor:
        logits: Tensor = self.head(self.middle(self.neuron(cur)))
        return logits


def tiny(middle: Middle = lambda x: x, neuron: Callable[[], nn.Module] = MultiStepLeaky) -> Network:
    """Return direct coding of currents followed by a :class:`Tiny` backbone."""
    torch.manual_seed(0)
    backbone = Tiny(middle, neuron)
    setting = Setting(TASK, backbone.make_stem(1), 2, backbone.make_neuron)
    return Network(ENCODERS.resolve("direct[spiking=false]").build(setting), backbone)


def images(count: int = 4, size: int = 4) -> Tensor:
    return torch.rand(count, 1, size, size, generator=Generator().manual_seed(1))


def draws() -> Generator:
    return Generator().manual_seed(0)


def written(network: Network, x: Tensor, folder: Path) -> nir.NIRGraph:
    """Return the graph of a network after writing it to a file and reading it back."""
    path = folder / "graph.nir"
    nir.write(path, graph_of(trace(network.double(), x[:1].double(), draws()), {}))
    return nir.read(path)


def refusal(network: Network) -> str:
    with pytest.raises(Refused) as caught:
        graph_of(trace(network.double(), images(1).double(), draws()), {})
    return str(caught.value)


def lively(encoder: str, backbone: str = "csnn", num_steps: int = 3, count: int = 4) -> Any:
    """Return a network and images; its batch norm has the images' statistics, so neurons spike."""
    info = get_info("fashion_mini")
    x = to_unit(load(fetch("fashion_mini", None), "test", count).images)
    plugins = ENCODERS.resolve(encoder), BACKBONES.resolve(backbone)
    network = build_network(*plugins, task_of(info, num_steps), seed=0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(x, draws())
    return network, x


# --- what a graph holds -----------------------------------------------------------------------


class Residual(nn.Module):
    """x + BN(conv1x1(x)) with parameters for which the result is easy to compute by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1)
        self.norm = nn.BatchNorm2d(2, eps=0.0)
        nn.init.constant_(self.conv.weight, 3.0)
        self.conv.bias = nn.Parameter(torch.full((2,), 2.0))
        nn.init.constant_(self.norm.weight, 2.0)
        nn.init.constant_(self.norm.bias, 0.25)
        self.norm.running_mean = torch.full((2,), 1.0)
        self.norm.running_var = torch.full((2,), 16.0)

    def forward(self, x: Tensor) -> Tensor:
        return x + over_time(self.norm, over_time(self.conv, x))


def test_a_graph_known_by_hand() -> None:
    network = tiny(Residual(), lambda: MultiStepLeaky(beta=0.75, threshold=0.5))
    run = trace(network.double(), images(2).double(), draws())
    graph = graph_of(run, {"key": "abcd"})
    assert {name: type(node).__name__ for name, node in graph.nodes.items()} == {
        "input": "Input",
        "encoder.stem.0": "Conv2d",
        "backbone.neuron": "LIF",
        "backbone.middle.conv": "Conv2d",
        "backbone.head.neuron": "LIF",
        "backbone.head.mean_pool": "AvgPool2d",
        "backbone.head.flatten": "Flatten",
        "backbone.head.linear": "Affine",
        "output": "Output",
    }
    assert sorted(graph.edges) == [
        ("backbone.head.flatten", "backbone.head.linear"),
        ("backbone.head.linear", "output"),
        ("backbone.head.mean_pool", "backbone.head.flatten"),
        ("backbone.head.neuron", "backbone.head.mean_pool"),
        ("backbone.middle.conv", "backbone.head.neuron"),
        ("backbone.neuron", "backbone.head.neuron"),  # the sum: two edges into one node
        ("backbone.neuron", "backbone.middle.conv"),
        ("encoder.stem.0", "backbone.neuron"),
        ("input", "encoder.stem.0"),
    ]
    conv = graph.nodes["backbone.middle.conv"]
    assert conv.weight.tolist() == [[[[1.5]], [[1.5]]]] * 2  # 3 x 2 / sqrt(16)
    assert conv.bias.tolist() == [0.75, 0.75]  # (2 - 1) x 2 / sqrt(16) + 0.25
    lif = graph.nodes["backbone.neuron"]
    assert lif.tau.shape == (2, 4, 4)
    assert np.unique(lif.tau) == pytest.approx([4e-4])  # dt / (1 - 0.75)
    assert np.unique(lif.r) == 4.0 and np.unique(lif.v_threshold) == 0.5
    assert not lif.v_reset.any() and not lif.v_leak.any()
    pool = graph.nodes["backbone.head.mean_pool"]
    assert pool.kernel_size.tolist() == pool.stride.tolist() == [4, 4]
    assert graph.metadata["dt"] == 1e-4 and graph.metadata["num_steps"] == 3
    assert graph.metadata["key"] == "abcd" and "standardised" in graph.metadata["input"]


def by_numpy(graph: nir.NIRGraph, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the outputs [T, ...] for one image [T, ...] by NIR's equations in numpy."""
    membranes = {n: 0.0 * node.tau for n, node in graph.nodes.items() if isinstance(node, nir.LIF)}
    taken = []
    for step in x:
        values: dict[str, Any] = {"input": step}
        while "output" not in values:
            for name, node in graph.nodes.items():
                feeding = [source for source, target in graph.edges if target == name]
                if name not in values and all(source in values for source in feeding):
                    total = sum(values[source] for source in feeding)
                    values[name] = _numpy_node(node, total, membranes, name)
        taken.append(values["output"])
    return np.stack(taken)


def _numpy_node(node: Any, x: Any, membranes: dict[str, Any], name: str) -> Any:
    if isinstance(node, nir.LIF):
        slope = ((node.v_leak - membranes[name]) + node.r * x) / node.tau
        v = membranes[name] + 1e-4 * slope
        membranes[name] = np.where(v > node.v_threshold, node.v_reset, v)
        return (v > node.v_threshold).astype(float)
    if isinstance(node, nir.Conv2d):
        (top, left), (down, right) = node.padding, node.stride
        padded = np.pad(x, ((0, 0), (top, top), (left, left)))
        maps = [
            sum(correlate2d(p, k, mode="valid") for p, k in zip(padded, kernels, strict=True))
            for kernels in node.weight
        ]
        return np.stack(maps)[:, ::down, ::right] + node.bias[:, None, None]
    if isinstance(node, nir.AvgPool2d):
        assert x.shape[1:] == tuple(node.kernel_size)
        return x.mean((1, 2), keepdims=True)
    if isinstance(node, nir.Flatten):
        return x.reshape(-1)
    if isinstance(node, nir.Affine):
        return node.weight @ x + node.bias
    assert isinstance(node, nir.Output)
    return x


@pytest.mark.parametrize("coding", ["direct", "rate"])
def test_numpy_gets_the_networks_logits_from_the_equations_of_nir(
    coding: str, tmp_path: Path
) -> None:
    network, x = lively(coding, "csnn[width=4]", count=2)
    graph = written(network, x, tmp_path)
    run = trace(network, x.double(), draws())
    for image in range(2):
        logits = by_numpy(graph, run.inputs[:, image].numpy())
        np.testing.assert_allclose(logits, run.logits[:, image], rtol=0, atol=1e-12)


def test_snntorchs_own_import_gives_the_same_logits(tmp_path: Path) -> None:
    from snntorch.import_nir import import_from_nir

    network, x = lively("direct", "csnn[width=4]", count=2)
    graph = written(network, x, tmp_path)
    run = trace(network, x.double(), draws())
    imported, state, logits = import_from_nir(graph), None, []
    for step in run.inputs[
        :, 0
    ].float():  # one image, because snntorch flattens the batch axis with the image
        out, state = imported(step, state)
        logits.append(out)
    torch.testing.assert_close(torch.stack(logits).double(), run.logits[:, 0], rtol=0, atol=1e-5)


# --- every plug-in ----------------------------------------------------------------------------

REFUSED = {
    "gac": "encoder.mul_2: NIR has no product of two signals",
    "gac[kernel_size=3]": "encoder.mul_2: NIR has no product of two signals",
    "gac_control": "encoder.mul: NIR has no product of two signals and no factors that differ",
    "learned_time": "encoder.mul: NIR has no product of two signals and no factors that differ",
    "phase": "encoder.mul: NIR has no product of two signals and no factors that differ",
}
AGREES = {
    *("burst", "delta", "direct", "direct[spiking=false]", "latency", "latency[scale=log]"),
    *("lowpass", "rate", "rate[gain=0.5]", "signed_rate"),
}


def assert_agrees_or_says_why(coding: str, backbone: str, folder: Path, **of: int) -> None:
    network, x = lively(coding, backbone, **of)
    try:
        graph = written(network, x, folder)
    except Refused as refused:
        assert coding not in AGREES
        assert str(refused).startswith(REFUSED.get(coding, "")) and "\n" not in str(refused)
        return
    assert coding not in REFUSED
    found = check(graph, network, x, seed=0)
    assert 0.02 < found.spikes / found.values < 0.5 and found.predictions == found.images == len(x)


@pytest.mark.parametrize("coding", CODINGS)
def test_every_coding_agrees_or_is_refused_in_a_line(coding: str, tmp_path: Path) -> None:
    assert_agrees_or_says_why(coding, "csnn[width=4]", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES.names())
def test_every_backbone_agrees_or_is_refused_in_a_line(backbone: str, tmp_path: Path) -> None:
    assert_agrees_or_says_why("direct", backbone, tmp_path, num_steps=2, count=2)


# --- what a check finds -----------------------------------------------------------------------


def _without_a_shortcut(graph: nir.NIRGraph) -> nir.NIRGraph:
    edge = ("backbone.neuron", "backbone.head.neuron")
    return nir.NIRGraph(graph.nodes, [e for e in graph.edges if e != edge], graph.metadata)


def _with_other(node: str, name: str, change: Callable[[Any], Any]) -> Any:
    def broken(graph: nir.NIRGraph) -> nir.NIRGraph:
        setattr(graph.nodes[node], name, change(getattr(graph.nodes[node], name)))
        return graph

    return broken


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            _without_a_shortcut,
            r"different spikes on 4 images: \d+ values differ in backbone.head.neuron, ",
        ),
        (
            _with_other("backbone.neuron", "v_threshold", lambda v: 1.2 * v),
            r"different spikes on 4 images: \d+ values differ in backbone.neuron, ",
        ),
        (
            _with_other("backbone.neuron", "v_reset", lambda v: v - 3),
            r"different spikes on 4 images: \d+ values differ in backbone.neuron, ",
        ),
        (
            _with_other("backbone.head.linear", "bias", lambda b: b + 1e-7),
            "have different logits on 4 images: they differ by .* at most 1e-09 is allowed",
        ),
        (
            _with_other("backbone.middle.conv", "padding", lambda p: (1, 1)),
            "the exported graph cannot be executed: ",
        ),
    ],
    ids=["shortcut", "threshold", "reset", "bias", "padding"],
)
def test_a_graph_with_one_fault_is_refused(
    broken: Callable[[nir.NIRGraph], nir.NIRGraph], message: str, tmp_path: Path
) -> None:
    middle = Residual()
    nn.init.constant_(middle.conv.weight, 0.5)  # small, so that the shortcut matters
    network, x = tiny(middle), 8 * images()
    sound = written(network, x, tmp_path)
    assert check(sound, network, x, seed=0).spikes > 50
    with pytest.raises(Refused, match=message):
        check(broken(sound), network, x, seed=0)


def test_single_precision_is_compared_without_a_verdict(tmp_path: Path) -> None:
    network, x = lively("direct", "csnn[width=4]")
    graph = written(network, x, tmp_path)
    found = compare(graph, network.float(), x, seed=0)
    assert found.images == found.predictions == 4
    assert sum(found.different.values()) < 1e-4 * found.values and 0 <= found.logits < 1e-2


# --- what NIR can express, and what it cannot -----------------------------------------------------


class Step(MultiStepLeaky):
    def forward(self, cur: Tensor) -> Tensor:
        return super().forward(cur)


class Stepwise(nn.Module):
    """snntorch's neuron, called once per step."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = snntorch.Leaky(beta=0.5)

    def forward(self, cur: Tensor) -> Tensor:
        mem = torch.zeros_like(cur[0])
        spikes = []
        for step in cur:
            spk, mem = self.neuron(step, mem)
            spikes.append(spk.to(step.dtype))  # snntorch's spikes are in single precision
        return torch.stack(spikes)


@pytest.mark.parametrize(
    ("neuron", "message"),
    [
        (lambda: MultiStepLeaky(reset_mechanism="subtract"), "this neuron's reset is 'subtract'"),
        (lambda: MultiStepLeaky(reset_mechanism="none"), "this neuron's reset is 'none'"),
        (lambda: MultiStepLeaky(reset_delay=True), "but this neuron one step later"),
        (lambda: MultiStepLeaky(beta=1.0), r"this neuron has no leak \(beta = 1\)"),
        (lambda: MultiStepLeaky(graded_spikes_factor=2.0), "no inhibition, quantised state"),
        (Step, "no inhibition, quantised state"),
        (Stepwise, r"backbone.neuron.stack: NIR has no node for it"),
    ],
    ids=["subtract", "none", "delayed", "no leak", "graded", "subclass", "stepwise"],
)
def test_neurons_that_nir_cannot_express_are_refused(
    neuron: Callable[[], nn.Module], message: str
) -> None:
    with pytest.raises(Refused, match=message):
        network = tiny(neuron=neuron).double()
        graph_of(trace(network, images(1).double(), draws()), {})


def _layers(*layers: nn.Module) -> Middle:
    made = nn.Sequential(*layers).double().eval()
    return lambda x: over_time(made, x)


@pytest.mark.parametrize(
    ("middle", "message"),
    [
        (lambda x: x * x.mean((3, 4), keepdim=True), "NIR has no product of two signals"),
        (lambda x: x * torch.ones(3, 1, 1, 1, 1), "no factors that differ between steps"),
        (lambda x: x + 0.5, "one of these two operands is constant"),
        (lambda x: x + x, "this sum contains a signal twice"),
        (lambda x: torch.stack([x[0], x[1], x[2]]), "stack: NIR has no node for it"),
        (lambda x: torch.relu(x), "relu: NIR has no node for it"),
        (lambda x: x.cumsum(0), "cumsum: NIR has no node for it"),
        (lambda x: x.mean(2, keepdim=True).expand(x.shape), "but not over other axes"),
        (
            _layers(nn.Conv2d(2, 2, 1), nn.MaxPool2d(2)),
            "only one over the spikes of a single layer",
        ),
        (_layers(nn.AvgPool2d(3, ceil_mode=True)), "divides by the size of the kernel and drops"),
        (
            _layers(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False)),
            "NIR has no batch statistics",
        ),
        (_layers(nn.BatchNorm2d(2)), "no layer precedes this one into which it could be folded"),
        (_layers(nn.Conv2d(2, 2, 1, groups=2)), "wrong output shape for grouped convolutions"),
        (lambda x: over_time(nn.Dropout(), x), "NIR has no random numbers"),
    ],
    ids=lambda value: None if callable(value) else value[:24],
)
def test_operations_that_nir_cannot_express_are_refused_by_name(
    middle: Middle, message: str
) -> None:
    assert message in refusal(tiny(middle))


class Pooled(nn.Module):
    """Pools over spikes and over currents, with padding and strides and layers between them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv_bn(2, 2, 3)
        self.neuron = MultiStepLeaky(threshold=0.3)
        self.most = nn.MaxPool2d(2)
        self.mean = nn.AvgPool2d(3, stride=1, padding=1)
        self.adaptive = nn.AdaptiveAvgPool2d(2)
        self.drop = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        most = over_time(self.most, x)
        mean = over_time(self.adaptive, over_time(self.mean, over_time(self.conv, x)))
        return over_time(self.drop, most) + mean + over_time(self.most, self.neuron(x))


def test_pools_and_sums_of_three_agree(tmp_path: Path) -> None:
    network, x = tiny(Pooled()), 8 * images(8)
    graph = written(network, x, tmp_path)
    kinds = {name: type(node).__name__ for name, node in graph.nodes.items()}
    assert kinds["backbone.middle.most.any"] == kinds["backbone.middle.most.any_2"] == "Threshold"
    assert check(graph, network, x, seed=0).spikes > 100


def test_learnt_values_of_every_neuron_agree(tmp_path: Path) -> None:
    def neuron() -> MultiStepLeaky:
        beta = torch.linspace(0.1, 1.3, 32).reshape(2, 4, 4)  # values beyond 1 are taken as 1
        made = MultiStepLeaky(
            beta=beta.clamp(max=0.95), threshold=torch.full((2, 1, 1), 0.4), learn_threshold=True
        )
        with torch.no_grad():
            made.threshold[1] = 0.9
        return made

    network, x = tiny(neuron=neuron), 8 * images()
    graph = written(network, x, tmp_path)
    lif = graph.nodes["backbone.neuron"]
    assert np.unique(lif.v_threshold[0]) == pytest.approx([0.4]) and len(np.unique(lif.tau)) > 20
    assert DT / lif.tau[0, 0, 0] == pytest.approx(0.9)
    assert check(graph, network, x, seed=0).spikes > 50
