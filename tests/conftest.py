"""Networks that every counter understands, and what each counter makes of them.

Every tool runs the network in a pass of its own, so that no hook of one is seen by another, and
is imported where it is used: tests without it do not need it.
"""

import datetime
import os
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
import snntorch
import torch
from snntorch import surrogate, utils
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from codingbench.backbone import Network, build_network
from codingbench.counting.counter import OperationCounter
from codingbench.encoder import Task
from codingbench.neurons import over_time
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.schema import COUNTS, TABLES, VALUE_CLASSES
from codingbench.store.folder import Store
from codingbench.training import host_state

Case = tuple[nn.Module, int, Tensor]
"""A network, its number of steps, one batch of images."""

Cell = tuple[str, int]
"""A layer's name and a step, 1-based."""

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)


# --- processes ------------------------------------------------------------------------------------

EVERYDAY = "not slow and not thorough"
MOST_PROCESSES = 4  # each needs up to 2 GB


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many processes run the tests: several for the everyday suite, each on one core.

    Single files start faster in one process. Thorough and slow tests measure times, kill processes
    and start clusters, and so have the machine to themselves.
    """
    is_whole = config.args == config.getini("testpaths")
    is_watched = config.option.capture == "no" or config.option.collectonly
    if not is_whole or is_watched or config.option.markexpr != EVERYDAY:
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # inherited by the processes
    return min(MOST_PROCESSES, len(os.sched_getaffinity(0)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse unknown fixtures at collection: pytest does not look for those of skipped tests."""
    for item in items:
        if isinstance(item, pytest.Function):
            known = {"request", *item._fixtureinfo.name2fixturedefs}
            if unknown := set(item.fixturenames) - known:
                raise pytest.UsageError(f"{item.nodeid}: no fixture {', '.join(sorted(unknown))}")


@pytest.fixture
def no_type_checker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore that beartype, which checks signatures in tests, draws from Python's random module."""
    monkeypatch.setattr(host_state, "_python_draws", lambda: None)


# --- the counters ---------------------------------------------------------------------------------


def layer_rows(network: nn.Module, num_steps: int, *batches: Tensor) -> list[dict[str, Any]]:
    with torch.no_grad(), OperationCounter(network.eval(), num_steps) as counter:
        for images in batches:
            network(images)
    assert not counter.uncounted()
    return counter.layer_rows()


def synops(network: nn.Module, *batches: Tensor) -> int:
    from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter

    counter = SynOpCounter()
    with torch.no_grad(), DispatchCounterMode([counter]):
        for images in batches:
            network.eval()(images)
    return int(counter.get_total())


def inputs(
    network: nn.Module, num_steps: int, images: Tensor
) -> Iterator[tuple[Cell, nn.Module, Tensor]]:
    """Every layer with its input at every step; no hook is left on it.

    An input of T * B rows is all steps; else the calls are shared out among the steps if they are
    a multiple of T, and run once for all steps if not.
    """
    calls: dict[str, list[Tensor]] = defaultdict(list)
    modules = {n: m for n, m in network.named_modules() if isinstance(m, LAYERS)}

    def remember(name: str) -> Any:
        return lambda module, args: calls[name].append(args[0].clone())

    handles = [m.register_forward_pre_hook(remember(n)) for n, m in modules.items()]
    with torch.no_grad():
        network.eval()(images)
    for handle in handles:
        handle.remove()
    for name, given in calls.items():
        per_step = len(given) // num_steps if len(given) % num_steps == 0 else len(given)
        for call, x in enumerate(given):
            is_folded = len(x) == num_steps * len(images)
            first = 0 if is_folded else call // per_step
            for at, part in enumerate(x.chunk(num_steps) if is_folded else [x]):
                yield (name, first + at + 1), modules[name], part


@pytest.fixture(scope="session")
def ours() -> Callable[..., dict[str, float]]:
    """(network, T, *batches) -> our total of every count, and ``ac`` and ``mac`` of their sums."""

    def count(network: nn.Module, num_steps: int, *batches: Tensor) -> dict[str, float]:
        rows = layer_rows(network, num_steps, *batches)
        totals: dict[str, float] = {name: sum(row[name] for row in rows) for name in COUNTS}
        return totals | {
            "ac": totals["effective_binary"] + totals["effective_signed"],
            "mac": totals["effective_level"] + totals["effective_real"],
        }

    return count


@pytest.fixture(scope="session")
def our_steps() -> Callable[[nn.Module, int, Tensor], dict[Cell, dict[str, int]]]:
    """(network, T, images) -> our effective operations by layer and step, then by value class."""
    return lambda network, num_steps, images: {
        (row["layer"], row["step"]): {c: row[f"effective_{c}"] for c in VALUE_CLASSES}
        for row in layer_rows(network, num_steps, images)
        if row["kind"] == "synapse"
    }


@pytest.fixture(scope="session")
def neurobench() -> Callable[..., tuple[int, ...]]:
    """(network, *batches) -> AC and MAC of its metric ``SynapticOperations`` x samples."""
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    def count(network: nn.Module, *batches: Tensor) -> tuple[int, ...]:
        model, metric = TorchModel(network), SynapticOperations()
        model.register_hooks()
        with torch.no_grad():
            for images in batches:
                per_image = metric(model, model(images), (images, None))
                model.reset_hooks()
        model.cleanup_hooks()
        samples = sum(map(len, batches))
        return tuple(round(per_image[f"Effective_{kind}s"] * samples) for kind in ("AC", "MAC"))

    return count


@pytest.fixture(scope="session")
def neurobench_steps() -> Callable[[nn.Module, int, Tensor], dict[Cell, tuple[int, int]]]:
    """(network, T, images) -> its AC and MAC of each layer's input at one step alone."""
    from neurobench.metrics.utils.layers import single_layer_MACs

    def count(network: nn.Module, num_steps: int, images: Tensor) -> dict[Cell, tuple[int, int]]:
        counts: dict[Cell, tuple[int, int]] = {}
        for cell, layer, x in inputs(network, num_steps, images):
            with torch.no_grad():
                operations, is_ac = single_layer_MACs(x, layer)
            ac, mac = counts.get(cell, (0, 0))
            counts[cell] = (ac + operations, mac) if is_ac else (ac, mac + operations)
        return counts

    return count


@pytest.fixture(scope="session")
def spikingjelly() -> Callable[..., int]:
    """(network, *batches) -> total of its ``SynOpCounter``."""
    return synops


@pytest.fixture(scope="session")
def spikingjelly_steps() -> Callable[[nn.Module, int, Tensor], dict[Cell, int]]:
    """(network, T, images) -> its ``SynOpCounter`` of each layer's input at one step alone."""

    def count(network: nn.Module, num_steps: int, images: Tensor) -> dict[Cell, int]:
        counts: dict[Cell, int] = defaultdict(int)
        for cell, layer, x in inputs(network, num_steps, images):
            counts[cell] += synops(layer, x)
        return dict(counts)

    return count


@pytest.fixture
def one_thread() -> Iterator[None]:
    """On tensors this small, threads that wait for a core held by others are most of the time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _own_data_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what runs record about plug-ins out of the user's data folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_stacks_of_seeds() -> Iterator[None]:
    """Keep seeds for devices that nothing uses yet without the stack of the call.

    Below pytest a stack is deep, and formatting three of them takes most of ``torch.manual_seed``.
    """
    quick = SimpleNamespace(**vars(traceback) | {"format_stack": list})
    with pytest.MonkeyPatch.context() as patch:
        for module in (torch.cuda, torch.xpu, torch.mtia):
            patch.setattr(module, "traceback", quick, raising=False)
        yield


# --- a store of made-up cells ---------------------------------------------------------------------

DAY = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
_VALUES: dict[pa.DataType, Any] = {
    pa.string(): "text",
    pa.bool_(): True,
    pa.timestamp("us", tz="UTC"): DAY,
}
LEARNED = {"uncounted": "", "silent_layers": "", "largest_class_share": 0.1, "loss_drop": 1.0}
USUAL = LEARNED | {"neuron": "default"}
COST = {"effective_binary": 2_000_000, "effective_real": 1_000_000, "paper_acs": 8_000_000.0}
NO_COUNTS: dict[str, Any] = dict.fromkeys(COUNTS, 0)


def row(table: str, **values: Any) -> dict[str, Any]:
    made = {field.name: _VALUES.get(field.type, 1) for field in TABLES[table]}
    return made | {name: USUAL[name] for name in USUAL if name in made} | values


def commit(store: Store, key: str, **values: Any) -> None:
    """A cell of two steps and 10 test images; step 1 costs COST, step 2 half of it.

    ``values`` stand in the rows of every table that has their columns.
    """
    assert values.keys() <= {name for table in TABLES.values() for name in table.names}
    common = {"key": key, "dataset": "digits", "encoder": "gac[heads=2]", "num_steps": 2} | values
    steps = [
        NO_COUNTS
        | COST
        | {"paper_first_macs": 500_000, "accuracy": 0.75, "firing_rate": 0.25, "is_prefix": True}
        | {"code_nonzero": 3, "code_values": 12},
        NO_COUNTS
        | {name: count / 2 for name, count in COST.items()}
        | {"accuracy": 0.875, "firing_rate": 0.125, "is_prefix": False}
        | {"code_nonzero": 6, "code_values": 12},
    ]
    conv = {"layer": "backbone.conv1", "position": 2, "kind": "synapse", "spikes": 0, "neurons": 0}
    lif = {"layer": "backbone.lif1", "position": 3, "kind": "neuron", "input_values": 0}
    norm = {"layer": "backbone.bn1", "position": 4, "kind": "norm", "input_values": 0}
    none = {"input_class": None, "input_nonzero": 0, "input_rate": 0.0}
    layers = [  # neither in the order of execution nor of the steps
        lif | none | {"step": 1, "spikes": 30, "neurons": 4, "executions": 10},
        lif | none | {"step": 2, "spikes": 10, "neurons": 4, "executions": 10}
        | {"neuron_updates": 40},
        norm | none | {"step": 1, "spikes": 0, "neurons": 0, "executions": 10, "norm_macs": 2000},
        conv | {"step": 2, "input_class": "binary", "executions": 5}
        | {"input_values": 300, "input_rate": 0.1, "effective_binary": 1_000_000},
        conv | COST | {"step": 1, "input_class": "real", "executions": 10, "input_nonzero": 50}
        | {"input_values": 100, "input_rate": 0.5, "dense_real": 50_000_000},
    ]  # fmt: skip

    def made(table: str, **own: Any) -> dict[str, Any]:
        values = {**own, **common}
        return row(table, **{name: values[name] for name in TABLES[table].names if name in values})

    total = {name: 1.5 * count for name, count in COST.items()} | {"paper_first_macs": 500_000}
    cell = {"accuracy": 0.875, "num_classes": 10, "images": 10}
    store.commit(
        key,
        {
            "cells": [made("cells", **{**NO_COUNTS, **total, **cell})],
            "steps": [
                made("steps", **{**step, "images": 10, "step": t})
                for t, step in enumerate(steps, 1)
            ],
            "layers": [made("layers", **{**NO_COUNTS, **layer, "images": 10}) for layer in layers],
            "epochs": [made("epochs", epoch=e, train_loss=2.5 / e) for e in (1, 2)],
            "predictions": [],
        },
    )


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A store of two finished cells and a failed one."""
    store = Store(tmp_path)
    commit(store, "aaaa1111aaaa1111", seed=0)
    commit(store, "aaaa2222aaaa2222", seed=1)
    failure = {"key": "ffff0000ffff0000", "dataset": "digits", "reason": "out of [memory]"}
    store.record_failure(
        "ffff0000ffff0000", row("failures", **failure, traceback="in line 3\n  x[0]")
    )
    return tmp_path


@pytest.fixture
def row_of() -> Callable[..., dict[str, Any]]:
    """(table, **values) -> a row with all columns."""
    return row


# --- networks -------------------------------------------------------------------------------------


class Folded(nn.Module):
    """A layer on inputs [T, B, ...], time folded into the batch; the images are not looked at."""

    def __init__(self, layer: nn.Module, inputs: Tensor) -> None:
        super().__init__()
        self.layer, self.inputs = layer, inputs

    def forward(self, images: Tensor) -> Tensor:
        return over_time(self.layer, self.inputs)


class Looped(nn.Module):
    """snntorch's own style: the network of one step is called for every step of [B, T, ...]."""

    def __init__(self, step: nn.Module) -> None:
        super().__init__()
        self.step = step

    def forward(self, images: Tensor) -> Tensor:
        utils.reset(self.step)
        return torch.stack([self.step(images[:, t])[0] for t in range(images.shape[1])])


class Seeded(nn.Module):
    """One of our networks with the same random numbers in every pass."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images, draws(7))
        return logits


class Spike(nn.Module):
    """1 where the input exceeds 0, else 0."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype)


class Roll(nn.Module):
    """x + factor * x moved by one channel: of spikes sums 0, 1, 2 or differences -1, 0, 1."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x + self.factor * x.roll(1, 1)


def draws(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def spikes(*shape: int, seed: int = 0, rate: float = 0.3) -> Tensor:
    return (torch.rand(shape, generator=draws(seed)) < rate).float()


def of_every_class(*shape: int) -> Tensor:
    """Four steps of one mask: spikes, signed spikes, sums of spikes, real numbers."""
    mask, random = spikes(*shape), torch.rand(shape, generator=draws(1))
    scale = (torch.ones(shape), (random * 2).floor() * 2 - 1, (random * 3).ceil(), random + 0.01)
    return torch.stack([mask * values for values in scale])


def ours_on(
    encoder: str, backbone: str, num_steps: int, batch: int, side: int, *, is_trained: bool
) -> Case:
    """Codings and backbones of this package; trained: after four steps of gradient descent.

    Normalised by the statistics of random images, without which deep neurons stay silent.
    """
    task = Task(num_steps, 10, 3, side, side, (0.5,) * 3, (0.25,) * 3)
    network = build_network(ENCODERS.resolve(encoder), BACKBONES.resolve(backbone), task, seed=1)
    images, labels = torch.rand(10, 3, side, side, generator=draws(2)), torch.arange(10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 0.5
    for step in range(4):
        loss = F.cross_entropy(network(images, draws(step)).mean(0), labels)
        if is_trained:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Seeded(network), num_steps, torch.rand(batch, 3, side, side, generator=draws(3))


@cache
def csnn(encoder: str, num_steps: int, batch: int, is_trained: bool) -> Case:
    return ours_on(encoder, "csnn[width=4]", num_steps, batch, 16, is_trained=is_trained)


def ms_resnet18(encoder: str, batch: int) -> Case:
    network, num_steps, images = ours_on(encoder, "ms_resnet18", 2, batch, 8, is_trained=False)
    return network.double(), num_steps, images.double()  # NeuroBench sums in the network's dtype


def looped(batch: int, num_steps: int) -> Case:
    """snntorch's neurons with their own state; the spikes of one are averaged."""
    torch.manual_seed(4)
    neuron = {"beta": 0.8, "init_hidden": True, "spike_grad": surrogate.fast_sigmoid()}
    step = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        snntorch.Leaky(**neuron, threshold=0.3),
        nn.Conv2d(6, 8, 3, stride=2),
        snntorch.Leaky(**neuron, threshold=0.1),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8, 5),
        snntorch.Leaky(**neuron, output=True),
    )
    return Looped(step), num_steps, spikes(batch, num_steps, 2, 7, 7, seed=5)


def on_spikes(*layers: nn.Module) -> Case:
    """A convolution of spikes before them, and one of real numbers behind them."""
    torch.manual_seed(8)
    layer = nn.Sequential(nn.Conv2d(4, 4, 1), Spike(), *layers, nn.ReLU(), nn.Conv2d(6, 3, 2))
    return Folded(layer, spikes(2, 3, 4, 8, 8)), 2, torch.zeros(3, 1)


CODINGS = ("direct", "direct[spiking=false]", "rate", "latency", "latency[scale=log]", "gac")
RUNS = {"T1": (1, 3, False), "T2 trained": (2, 1, True), "T4 trained": (4, 3, True)}

CASES: dict[str, Callable[[], Case]] = {
    **{f"csnn {c} {r}": partial(csnn, c, *RUNS[r]) for c in CODINGS for r in RUNS},
    "ms_resnet18 direct": lambda: ms_resnet18("direct", batch=2),
    "ms_resnet18 gac": lambda: ms_resnet18("gac", batch=1),
    "snntorch loop T4": lambda: looped(batch=3, num_steps=4),
    "snntorch loop T1": lambda: looped(batch=1, num_steps=1),
    "average pooling": lambda: on_spikes(nn.AvgPool2d(2), nn.Conv2d(4, 6, 3)),
    "maximum pooling": lambda: on_spikes(nn.MaxPool2d(2), nn.Conv2d(4, 6, 3)),
    "sum of spikes": lambda: on_spikes(Roll(1), nn.Conv2d(4, 6, 3, padding=1)),
    "difference of spikes": lambda: on_spikes(Roll(-1), nn.Conv2d(4, 6, 3, padding=1)),
}

GEOMETRIES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "stride and bias": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), (4, 9, 8)),
    "no bias": (lambda: nn.Conv2d(4, 6, 3, bias=False), (4, 9, 8)),
    "uneven": (lambda: nn.Conv2d(4, 6, (2, 5), stride=(1, 3), padding=(1, 0)), (4, 9, 8)),
    "groups": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 9, 8)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 5, padding=2, groups=4), (4, 9, 8)),
    "dilation": (lambda: nn.Conv2d(4, 6, 3, padding=2, dilation=(2, 1)), (4, 9, 8)),
    "same, uneven": (lambda: nn.Conv2d(4, 6, (4, 2), padding="same"), (4, 9, 8)),
    "circular": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (4, 9, 8)),
    "one dimension": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=2, groups=2), (4, 9)),
    "three dimensions": (lambda: nn.Conv3d(4, 6, (1, 2, 3), stride=2, padding=1), (4, 3, 5, 6)),
    "linear": (lambda: nn.Linear(30, 7), (30,)),
    "linear on every row": (lambda: nn.Linear(8, 7, bias=False), (4, 9, 8)),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    """Every layer's input is of one class at all steps, of 0 alone, or comes step by step."""
    return CASES[request.param]()


@pytest.fixture(params=GEOMETRIES)
def geometry(request: pytest.FixtureRequest) -> Case:
    """One layer on binary, signed, level and real inputs, in this order, one step each."""
    torch.manual_seed(6)
    layer, shape = GEOMETRIES[request.param]
    return Folded(layer(), of_every_class(3, *shape)), 4, torch.zeros(3, 1)
