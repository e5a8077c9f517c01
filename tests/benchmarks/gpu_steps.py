"""Times of training steps and evaluations of one network with various replacements of its neurons.

Every variant runs the project's own training step on augmented batches, including the optimizer and
the running sums. The convolutions alone, without normalisation and neurons, are a lower bound for
every kind of neuron. The same network with ReLU in channels-last order shows the cost of an
ordinary network.
"""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import bench_training
import torch
from graph_checks import Silent, random_data
from torch import nn

from codingbench.backbone import move_network
from codingbench.neurons import MultiStepLeaky, use_backend
from codingbench.neurons.backends import BACKENDS
from codingbench.recipes.recipe import load_recipe
from codingbench.training.augment import Batch
from codingbench.training.distributed import SINGLE_PROCESS
from codingbench.training.loop import _Run

CONVOLUTIONS, RELU = "convolutions alone", "ReLU, channels-last"
WARM_UP = 8  # steps; the sixth one is captured
PEERS = {"SpikingJelly": "SpikingJelly", "snntorch outer loop": "snntorch, outer loop"}


@dataclass(frozen=True)
class Network:
    """A network to measure: ``csnn`` or ``ms_resnet18`` behind direct coding."""

    name: str
    num_steps: int
    batch: int
    precision: str = "bf16"

    def __str__(self) -> str:
        return f"{self.name} T={self.num_steps} b{self.batch} {self.precision}"


@dataclass(frozen=True)
class Variant:
    """A replacement of the neurons, and how it runs."""

    name: str
    neuron: Callable[[], nn.Module]
    backend: str = "eager"
    graphs: bool = False
    is_channels_last: bool = False
    has_norms: bool = True


def variants(default: str) -> list[Variant]:
    """Return all variants of this project; ``default`` is the backend of a run on this device."""
    ours = partial(MultiStepLeaky, beta=0.5, threshold=1.0)
    relu = bench_training.ReLU
    found = [
        Variant(CONVOLUTIONS, nn.Identity, graphs=True, is_channels_last=True, has_norms=False),
        Variant(RELU, relu, is_channels_last=True),
        Variant("ReLU, channels-last, graphs", relu, graphs=True, is_channels_last=True),
        Variant(f"ours: {default}, graphs", ours, default, graphs=True),
        Variant(f"ours: {default}, no graphs", ours, default),
    ]
    others = [name for name in BACKENDS if name != default]
    return found + [Variant(f"ours: {name}, graphs", ours, name, graphs=True) for name in others]


class Steps:
    """One variant of a network on a device, ready to train and to evaluate."""

    def __init__(self, network: Network, variant: Variant, device: torch.device) -> None:
        self.variant, self.device, self.precision = variant, device, network.precision
        built = bench_training.build(network.name, variant.neuron, network.num_steps)
        if not variant.has_norms:
            remove_norms(built)
        placed = move_network(built, device, network.precision)
        data = random_data(network.batch, network.batch, device)
        ((self.images, self.labels),) = data.val.batches(network.batch)
        units = self.images.float() / 255
        if variant.is_channels_last:
            placed.to(memory_format=torch.channels_last)
            units = units.contiguous(memory_format=torch.channels_last)
        self.batch = Batch(units, self.labels)
        recipe = replace(load_recipe("gac"), batch_size=network.batch)
        self.run = _Run(
            placed,
            data,
            recipe,
            0,
            network.precision,
            Silent(),
            None,
            SINGLE_PROCESS,
            variant.graphs,
        )

    def train(self) -> None:
        """Take one training step."""
        self.run._step(self.batch, 0.01)

    @torch.no_grad()
    def evaluate(self) -> None:
        """Evaluate one batch."""
        self.run.runner(self.run.evaluator._measure, self.images, self.labels)

    def modes(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield training and evaluation, each with the network in the right mode."""
        for name, step in (("train", self.train), ("evaluate", self.evaluate)):
            self.run.network.train(name == "train")
            yield name, step

    def context(self) -> AbstractContextManager[None]:
        """Return the context that the steps need."""
        return use_backend(self.variant.backend)

    def facts(self) -> dict[str, Any]:
        """Return the number of graphs and the reasons for eager steps."""
        runner: Any = self.run.runner
        return {
            "graphs": getattr(runner, "captured", 0),
            "refusals": sorted(set(getattr(runner, "refusals", {}).values())),
        }

    def release(self) -> None:
        """Free the graphs."""
        self.run.release()


class PeerSteps:
    """A network with the neurons of another library, run as its users do."""

    def __init__(self, network: Network, name: str, device: torch.device) -> None:
        where = bench_training.Where(device, network.precision)
        self.way = bench_training.Way(
            PEERS[name], network.name, network.num_steps, network.batch, where
        )

    def modes(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """See :class:`Steps`; the same holds for the other methods."""
        yield "train", self.way.train
        yield "evaluate", self.way.evaluate

    def context(self) -> AbstractContextManager[None]:
        return use_backend("eager")

    def facts(self) -> dict[str, Any]:
        return {}

    def release(self) -> None: ...


def remove_norms(network: nn.Module) -> None:
    """Remove all batch normalisations, which leaves only the convolutions."""
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.Identity())


def measure(
    make: Callable[[], Steps | PeerSteps],
    network: Network,
    device: torch.device,
    rounds: int = 7,
    round_s: float = 0.25,
) -> dict[str, Any]:
    """Return median milliseconds of a step and of an evaluated batch, and the memory of a step.

    A round has as many steps as fit in ``round_s`` seconds. The device is idle before and after it.
    """
    before = reset_memory(device)
    steps = make()
    row: dict[str, Any] = {"network": str(network)}
    with steps.context():
        for mode, step in steps.modes():
            first_s = timed(step, 1, device)
            for _ in range(WARM_UP - 1):
                step()
            one_s = timed(step, 2, device) / 2
            count = max(1, round(round_s / one_s))
            times = [1e3 * timed(step, count, device) / count for _ in range(rounds)]
            row[f"{mode}_ms"] = statistics.median(times)
            row[f"{mode}_spread_ms"] = [min(times), max(times)]
            row[f"{mode}_first_s"] = first_s
            if mode == "train":
                row["peak_mb"] = peak_mb(device, before)
    row["images_per_s"] = 1e3 * network.batch / row["train_ms"]
    row |= steps.facts()
    steps.release()
    return row


def profile(
    make: Callable[[], Steps | PeerSteps], device: torch.device, rounds: int = 3, top: int = 15
) -> dict[str, Any]:
    """Return the kernels that take most of a training step: milliseconds, calls and name.

    On a CPU these are operations instead of kernels.
    """
    steps = make()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    _, step = next(steps.modes())
    with steps.context():
        timed(step, 2, device)
        with torch.profiler.profile(activities=kinds) as profiler:
            timed(step, rounds, device)
    found: dict[str, list[float]] = {}
    for event in profiler.events():
        if device.type == "cpu" or "CUDA" in str(event.device_type):
            found.setdefault(event.name, []).append(event.time_range.elapsed_us() / 1e3 / rounds)
    steps.release()
    rows = sorted(((sum(ms), len(ms) / rounds, name) for name, ms in found.items()), reverse=True)
    return {
        "total_ms": sum(ms for ms, _, _ in rows),
        "kernels": [{"ms": ms, "calls": calls, "name": name} for ms, calls, name in rows[:top]],
    }


def timed(step: Callable[[], None], count: int, device: torch.device) -> float:
    """Return the seconds of ``count`` steps."""
    wait(device)
    started = time.perf_counter()
    for _ in range(count):
        step()
    wait(device)
    return time.perf_counter() - started


def wait(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_memory(device: torch.device) -> int:
    """Reset the peak memory and return the bytes that tensors take now."""
    gc.collect()
    if device.type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak_mb(device: torch.device, before: int) -> float | None:
    """Return the peak memory of tensors since the reset, weights and images included, in MiB."""
    if device.type != "cuda":
        return None
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def relate(rows: list[dict[str, Any]]) -> None:
    """Add the ratios of each row to the ReLU network and to the convolutions alone."""
    for base, suffix in ((RELU, "over_relu"), (CONVOLUTIONS, "over_convolutions")):
        found = [row for row in rows if row.get("variant") == base and "train_ms" in row]
        for row in rows:
            for mode in ("train", "evaluate"):
                if found and f"{mode}_ms" in row:
                    row[f"{mode}_{suffix}"] = row[f"{mode}_ms"] / found[0][f"{mode}_ms"]
            if found and base == RELU and row.get("peak_mb") and found[0].get("peak_mb"):
                row["memory_over_relu"] = row["peak_mb"] / found[0]["peak_mb"]
