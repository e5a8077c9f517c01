"""Measure a training step and an evaluation against the same network with ReLU for neurons.

    GOMP_SPINCOUNT=3000 python tests/benchmarks/bench_training.py [--short] [--json training.json]
    python tests/benchmarks/bench_training.py --device cuda --precision bf16

All variants of a case run in turn in one process. Every round has the same order, images and
initial weights. The ratio is the median over rounds of (variant) / (ReLU) of the same round.

All neurons are the same model, GAC's LIF with the triangle surrogate; in fp32 the logits are
compared before any time is taken. SpikingJelly's LIF has equal terms: no halved input, the gradient
through the reset, and its multi-step form. Memory is the most that tensors take during a training
step, in addition to what they took before.

On CUDA the networks have the size of a real training. The device is idle before and after each
measurement. Our neurons run as fused kernels, ReLU and ours with channels-last memory, and the
other libraries with the contiguous memory that they expect. CUDA graphs are not used here;
``on_gpu.py`` measures them.
"""

import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import snntorch
import torch
from rich.console import Console
from rich.table import Table
from timing import alternate, median_ms, parser, ratios, shown, write_json
from torch import Tensor, nn
from torch.nn import functional as F

from codingbench.backbone import Backbone, Network, build_network, move_network
from codingbench.encoder import Task
from codingbench.neurons import MultiStepLeaky, layout, triangle, use_backend
from codingbench.neurons.fused import is_available
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.runtime.devices import device_name, keep_freed_memory, resolve_device
from codingbench.training.evaluation import autocast

GAC_LIF: dict[str, Any] = {
    "beta": 0.5,
    "spike_grad": triangle,
    "reset_mechanism": "zero",
    "reset_delay": False,
}
NARROW = "ms_resnet 16,32,64"  # ms_resnet18 with these channels, 16 of the stem
BATCH = {"csnn": 100, NARROW: 32, "ms_resnet18": 4}
CASES = [(network, num_steps, batch) for network, batch in BATCH.items() for num_steps in (2, 4, 8)]
SHORT = [("csnn", 2, 4)]
CUDA_CASES = [("csnn", 4, 256), ("ms_resnet18", 4, 64), ("ms_resnet18", 6, 64)]


class Looped(nn.Module):
    """The neuron as a Python loop over the first axis, one autograd graph per step."""

    def forward(self, cur: Tensor) -> Tensor:
        held, train = torch.zeros_like(cur[0]), []
        for x in cur:
            mem = 0.5 * held + x
            spk = triangle(mem - 1)
            held = mem * (1 - spk)
            train.append(spk)
        return torch.stack(train)


class LayerByLayer(nn.Module):
    """snntorch's neuron, called T times before the next layer runs."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = snntorch.Leaky(**GAC_LIF)

    def forward(self, cur: Tensor) -> Tensor:
        mem, train = torch.zeros_like(cur[0]), []
        for x in cur:
            spk, mem = self.neuron(x, mem)
            train.append(spk)
        self.neuron.mem = torch.zeros(0)
        return torch.stack(train)


class OneStep(nn.Module):
    """snntorch's neuron for the loop around the network: one step, the membrane kept."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = snntorch.Leaky(**GAC_LIF)
        self.mem: Tensor | None = None

    def forward(self, cur: Tensor) -> Tensor:
        mem = torch.zeros_like(cur[0]) if self.mem is None else self.mem
        spk, self.mem = self.neuron(cur[0], mem)
        return torch.stack([spk])

    def forget(self) -> None:
        self.mem, self.neuron.mem = None, torch.zeros(0)


class ReLU(nn.Module):
    """The reference: a network without time on the same batch of all steps."""

    def forward(self, cur: Tensor) -> Tensor:
        return F.relu(cur)


def spikingjelly_neuron() -> nn.Module:
    """Return SpikingJelly's LIF as v = v / 2 + x; its surrogate of alpha = 1 is the triangle."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from spikingjelly.activation_based import neuron, surrogate
    lif: nn.Module = neuron.LIFNode(
        tau=2.0,
        decay_input=False,
        v_reset=0.0,
        detach_reset=False,
        surrogate_function=surrogate.PiecewiseQuadratic(alpha=1.0),
        step_mode="m",
    )
    lif.register_forward_hook(lambda module, args, output: module.reset())
    return lif


@dataclass(frozen=True)
class Kind:
    """A kind of module in the neurons' place.

    Args:
        neuron: makes one.
        backend: of our neurons.
        is_one_step: the network is called once per step, not once for all steps.
        follows_layout: on CUDA the network is channels-last, as this project runs it.
    """

    neuron: Callable[[], nn.Module]
    backend: str = "eager"
    is_one_step: bool = False
    follows_layout: bool = False


KINDS = {
    "ReLU": Kind(ReLU, follows_layout=True),
    "ours, fused": Kind(MultiStepLeaky, "fused", follows_layout=True),
    "ours, compiled": Kind(MultiStepLeaky, "compiled", follows_layout=True),
    "ours, eager": Kind(MultiStepLeaky, follows_layout=True),
    "Python loop": Kind(Looped),
    "snntorch, layer by layer": Kind(LayerByLayer),
    "snntorch, outer loop": Kind(OneStep, is_one_step=True),
    "SpikingJelly": Kind(spikingjelly_neuron),
}


def names_on(device: torch.device) -> list[str]:
    """Return the kinds that exist on a device: fused kernels need CUDA."""
    return [name for name, kind in KINDS.items() if kind.backend != "fused" or is_available(device)]


@dataclass(frozen=True)
class Where:
    """The device and the precision of the networks."""

    device: torch.device
    precision: str

    def wait(self) -> None:
        """Wait until the device has done its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Way:
    """One network with one kind of neuron, ready to train or to evaluate."""

    def __init__(self, name: str, network: str, num_steps: int, batch: int, where: Where) -> None:
        self.kind, self.num_steps, self.where = KINDS[name], num_steps, where
        seen = 1 if self.kind.is_one_step else num_steps
        with self.context():
            built = build(network, self.kind.neuron, seen)
            self.network = move_network(built, where.device, where.precision)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.01)
        draws = torch.Generator().manual_seed(1)
        self.images = torch.rand(batch, 3, 32, 32, generator=draws).to(where.device)
        self.labels = torch.randint(0, 100, (batch,), generator=draws).to(where.device)
        self.draws = torch.Generator(where.device)

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        """Select the backend of the neurons and the order of memory."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(use_backend(self.kind.backend))
            if not self.kind.follows_layout:
                never = patch.object(layout, "keeps_channels_last", lambda *where: False)
                stack.enter_context(never)
            yield

    def logits(self) -> Tensor:
        """Return the logits of every step."""
        calls = self.num_steps if self.kind.is_one_step else 1
        with self.context(), autocast(self.where.device, self.where.precision):
            found = torch.cat([self.network(self.images, self.draws) for _ in range(calls)])
        for module in self.network.modules():
            if isinstance(module, OneStep):
                module.forget()
        return found

    def train(self) -> None:
        """Take one step of the optimizer."""
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        with self.context():
            F.cross_entropy(self.logits().float().mean(0), self.labels).backward()
        self.optimizer.step()
        self.where.wait()

    @torch.no_grad()
    def evaluate(self) -> None:
        """Compute the logits in evaluation mode."""
        self.network.eval()
        self.logits()
        self.where.wait()


def build(network: str, neuron: Callable[[], nn.Module], num_steps: int) -> Network:
    """Build a network behind direct coding. Its weights do not depend on the neuron."""
    task = Task(num_steps, 100, 3, 32, 32, (0.5,) * 3, (0.25,) * 3)
    name = "csnn" if network == "csnn" else "ms_resnet18"
    backbone = BACKBONES.resolve(name)
    with contextlib.ExitStack() as changed:
        changed.enter_context(patch.object(Backbone, "make_neuron", lambda self: neuron()))
        if network == NARROW:
            module = sys.modules[backbone.cls.__module__]
            stages = tuple(
                (blocks, width, stride)
                for (blocks, _, stride), width in zip(
                    module.STAGES["cifar"], (16, 32, 64), strict=True
                )
            )
            changed.enter_context(patch.dict(module.STAGES, {"cifar": stages}))
            changed.enter_context(patch.object(backbone.cls, "stem_channels", 16))
        return build_network(ENCODERS.resolve("direct"), backbone, task, seed=0)


def check_equal(ways: dict[str, Way]) -> None:
    """Check that the neurons are one model: all networks but ReLU's give the same logits."""
    expected = None
    for name, way in ways.items():
        way.network.eval()
        with torch.no_grad():
            found = way.logits()
        if name == "ReLU":
            continue
        expected = found if expected is None else expected
        close = torch.isclose(found, expected, rtol=1e-3, atol=1e-3).float().mean()
        # SpikingJelly compares with >=: a membrane of exactly 1 spikes there and not here
        assert close > 0.95, f"{name} is another model"


def peak_mb(run: Callable[[], None], where: Where) -> float:
    """Return the most that tensors take during ``run`` beyond those before it, in 2^20 bytes."""
    if where.device.type == "cuda":
        before = torch.cuda.memory_allocated(where.device)
        torch.cuda.reset_peak_memory_stats(where.device)
        run()
        return (torch.cuda.max_memory_allocated(where.device) - before) / 2**20
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    at, most = 0, 0
    events = profile.profiler.kineto_results.events()
    for event in sorted(events, key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            at += event.nbytes()
            most = max(most, at)
    return most / 2**20


def measure(case: tuple[str, int, int], rounds: int, where: Where) -> dict[str, Any]:
    """Return the seconds of each round of one case, the ratios to ReLU, and the memory."""
    network, num_steps, batch = case
    ways = {name: Way(name, network, num_steps, batch, where) for name in names_on(where.device)}
    if where.precision == "fp32":
        check_equal(ways)  # in bf16 currents near the threshold round either way
    name = device_name(where.device)
    case_name = f"{network}, T={num_steps}, batch {batch}"
    result: dict[str, Any] = {"case": case_name, "rounds": rounds, "device": name}
    result["precision"] = where.precision
    for kind, run in (("training step", Way.train), ("evaluation", Way.evaluate)):
        # the first, unmeasured round compiles
        wall_s = alternate({name: partial(run, way) for name, way in ways.items()}, rounds)
        result[kind] = {name: _summary(times, wall_s["ReLU"]) for name, times in wall_s.items()}
    result["peak_mb"] = {name: peak_mb(way.train, where) for name, way in ways.items()}
    return result


def _summary(times: list[float], floor: list[float]) -> dict[str, Any]:
    return {"wall_s": times, "median_ms": median_ms(times), **ratios(times, floor)}


def show(results: list[dict[str, Any]]) -> Iterator[Table]:
    """Yield one table per case, with a row per variant."""
    for result in results:
        table = Table(title=f"{result['case']} (ratio to ReLU: median, smallest-largest)")
        table.add_column("neurons")
        for heading in ("train ms", "ratio", "evaluate ms", "ratio", "peak MB"):
            table.add_column(heading, justify="right")
        for name in result["peak_mb"]:
            cells = []
            for kind in ("training step", "evaluation"):
                found = result[kind][name]
                cells += [f"{found['median_ms']:.1f}", shown(found)]
            table.add_row(name, *cells, f"{result['peak_mb'][name]:.0f}")
        yield table


def main() -> None:
    """Run the cases, print the tables, write the JSON."""
    known = parser(__doc__, "one small case, two rounds")
    known.add_argument("--cases", default="", help="only those whose name contains this")
    known.add_argument("--device", default="cpu")
    known.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    options = known.parse_args()
    where = Where(resolve_device(options.device), options.precision)
    keep_freed_memory()
    full = CUDA_CASES if where.device.type == "cuda" else CASES
    cases, rounds = (SHORT, 2) if options.short else (full, options.rounds)
    console, results = Console(width=110), []
    for case in cases:
        if options.cases in f"{case[0]}, T={case[1]}":
            results.append(measure(case, rounds, where))
            for table in show(results[-1:]):
                console.print(table)
    write_json(options.json, results)


if __name__ == "__main__":
    main()
