"""The cost of counting: time of an evaluation with a counter / without a counter.

    python tests/benchmarks/bench_counting.py [--short] [--json counting.json]

All variants of a network run alternately in one process, in the same order and on the same images
in every round. The ratio is the median over rounds of (with counter) / (without) in the same round.
NeuroBench and SpikingJelly only count synaptic operations, per layer or in total. Our counter also
determines spikes, value classes and all other columns of table ``layers``, at every step.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from timing import alternate, median_ms, parser, ratios, write_json
from torch import Tensor

from codingbench.backbone import Network, build_network
from codingbench.counting.counter import OperationCounter
from codingbench.encoder import Task
from codingbench.registry import BACKBONES, ENCODERS
from codingbench.runtime.devices import keep_freed_memory

# backbone, encoder, T, images per batch, batches
CASES = [
    ("csnn", "direct", 4, 200, 5),
    ("csnn", "gac", 4, 200, 5),
    ("csnn", "rate", 4, 200, 5),
    ("csnn", "latency", 4, 200, 5),
    ("csnn", "direct", 8, 200, 5),
    ("ms_resnet18", "direct", 4, 10, 1),
    ("ms_resnet18", "gac", 4, 10, 1),
]
SHORT = [("csnn", "direct", 2, 8, 1)]


def ways_to_count(network: Network, num_steps: int, batches: list[Tensor]) -> dict[str, Any]:
    """Return functions that evaluate all batches, by name: plain and with each counter."""

    def plain() -> None:
        draws = torch.Generator().manual_seed(0)
        for images in batches:
            network(images, draws)

    def ours() -> None:
        with OperationCounter(network, num_steps) as counter:
            plain()
        counter.layer_rows()

    return {"plain": plain, "codingbench": ours} | _peers(network, batches, plain)


def _peers(
    network: Network, batches: list[Tensor], plain: Callable[[], None]
) -> dict[str, Callable[[], None]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from neurobench.metrics.workload import SynapticOperations
        from neurobench.models import TorchModel
        from spikingjelly.activation_based.op_counter import DispatchCounterMode, SynOpCounter

    def neurobench() -> None:
        model, metric = TorchModel(network), SynapticOperations()
        model.register_hooks()
        draws = torch.Generator().manual_seed(0)
        for images in batches:
            network(images, draws)
            metric(model, None, (images, None))
            model.reset_hooks()
        model.cleanup_hooks()

    def spikingjelly() -> None:
        with DispatchCounterMode([SynOpCounter()]):
            plain()

    return {"NeuroBench 2.3.0": neurobench, "SpikingJelly 2.0.0": spikingjelly}


def train_a_little(network: Network, images: Tensor, draws: torch.Generator) -> None:
    """Train ten steps on random labels, because an untrained gate is atypical: 1/2 everywhere."""
    labels = torch.randint(0, 100, (len(images),), generator=draws)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(10):
        logits = network(images, draws).mean(0)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
    network.eval()


def measure(case: tuple[str, str, int, int, int], rounds: int) -> dict[str, Any]:
    """Return the times of one case in seconds per round, and their ratios to plain evaluation."""
    backbone, encoder, num_steps, size, count = case
    task = Task(num_steps, 100, 3, 32, 32, (0.5,) * 3, (0.25,) * 3)
    plugins = ENCODERS.resolve(encoder), BACKBONES.resolve(backbone)
    network = build_network(*plugins, task, seed=0)
    draws = torch.Generator().manual_seed(1)
    batches = [torch.rand(size, 3, 32, 32, generator=draws) for _ in range(count)]
    train_a_little(network, batches[0][:20], draws)
    ways = ways_to_count(network, num_steps, batches)
    with torch.no_grad():
        wall_s = alternate(ways, rounds)
    found = {name: ratios(times, wall_s["plain"]) for name, times in wall_s.items()}
    return {
        "case": f"{backbone}, {encoder}, T={num_steps}",
        "images": size * count,
        "rounds": rounds,
        "wall_s": wall_s,
        "ratio": {name: ratio["ratio"] for name, ratio in found.items()},
        "spread": {name: ratio["spread"] for name, ratio in found.items()},
    }


def show(results: list[dict[str, Any]]) -> Table:
    """Return a table with the time of the plain evaluation and each counter's ratio to it."""
    counters = [name for name in results[0]["ratio"] if name != "plain"]
    table = Table(title="evaluation with a counter / without (median, smallest-largest)")
    for heading in ("case", "images", "plain ms", *counters):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for result in results:
        plain_ms = median_ms(result["wall_s"]["plain"])
        low_high = {name: "{:.2f}-{:.2f}".format(*result["spread"][name]) for name in counters}
        cells = (f"{result['ratio'][name]:.2f} ({low_high[name]})" for name in counters)
        table.add_row(result["case"], str(result["images"]), f"{plain_ms:.0f}", *cells)
    return table


def main() -> None:
    """Run the cases, print the table, write the JSON."""
    options = parser(__doc__, "one small case, two rounds").parse_args()
    keep_freed_memory()
    cases, rounds = (SHORT, 2) if options.short else (CASES, options.rounds)
    results = [measure(case, rounds) for case in cases]
    Console(width=110).print(show(results))
    write_json(options.json, results)


if __name__ == "__main__":
    main()
