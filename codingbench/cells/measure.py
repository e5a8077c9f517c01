"""The final measurement of a cell: a trained network on the test images, with its operations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from torch import Generator

from codingbench.backbone import Network
from codingbench.cells.counted import Counted
from codingbench.cells.grid import Job
from codingbench.cells.weights import Weights
from codingbench.counting.counter import OperationCounter
from codingbench.training.cuda_graphs import replaying
from codingbench.training.evaluation import Evaluation, Evaluator, stream, stream_seed
from codingbench.training.graphs import EAGER, Eager
from codingbench.training.loop import Interrupted
from codingbench.training.splits import Data

_EAGER_CALLS: Final = 2
"""Eager calls before a capture. A test has few batches, and the first has loaded all kernels."""


class MeasurementListener(Protocol):
    """Receives the progress of a measurement."""

    def measuring(self, done: int, total: int) -> None:
        """``done`` of ``total`` test images are measured."""


@dataclass(frozen=True)
class Measured:
    """Test results with the last and with the selected weights; operations with the last."""

    last: Evaluation
    selected: Evaluation
    counter: OperationCounter


def measure(
    network: Network,
    weights: Weights,
    data: Data,
    job: Job,
    listener: MeasurementListener,
    should_stop: Callable[[], bool] = lambda: False,
    graphs: bool = True,
) -> Measured:
    """Evaluate the network with its last weights, counting operations, then with the selected.

    Args:
        network: with its last weights; it is left with the selected ones, if there are any.
        graphs: replay batches from CUDA graphs where the network allows it. The results have the
            same bits either way.

    Raises:
        Interrupted: ``should_stop`` returned true.
    """
    cell = job.cell
    draws = stream(cell.seed, "test", next(network.parameters()).device)
    runner = _runner(network, draws, graphs)
    evaluator = Evaluator(network, draws, cell.precision)

    def after_batch(images: int) -> None:
        if should_stop():
            raise Interrupted
        listener.measuring(images, cell.test_samples)

    def test(runner: Eager) -> Evaluation:
        draws.manual_seed(stream_seed(cell.seed, "test"))
        evaluator.runner = runner
        return evaluator(data.test, after_batch)

    try:
        with OperationCounter(network, cell.num_steps) as counter:
            if runner is EAGER:
                last = test(EAGER)
            else:
                counted = Counted(counter, runner, draws)
                last = test(counted)
                counted.finish()
        selected = last
        if weights.selected is not None:
            network.load_state_dict(weights.selected)
            selected = test(runner)
    finally:
        runner.release()
    return Measured(last, selected, counter)


def _runner(network: Network, draws: Generator, graphs: bool) -> Eager:
    """Return the runner of the batches: CUDA graphs if they are wanted and possible."""
    if not graphs or draws.device.type != "cuda":
        return EAGER
    return replaying(network, [draws], _EAGER_CALLS)
