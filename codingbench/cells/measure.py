"""The final measurement of a cell: a trained network on the test images, with its operations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from codingbench.backbone import Network
from codingbench.cells.grid import Job
from codingbench.cells.weights import Weights
from codingbench.counting.counter import OperationCounter
from codingbench.training.evaluation import Evaluation, evaluate, stream
from codingbench.training.loop import Data, Interrupted


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
) -> Measured:
    """Evaluate the network with its last weights, counting operations, then with the selected.

    Args:
        network: with its last weights; it is left with the selected ones, if there are any.

    Raises:
        Interrupted: ``should_stop`` returned true.
    """
    cell = job.cell

    def after_batch(images: int) -> None:
        if should_stop():
            raise Interrupted
        listener.measuring(images, cell.test_samples)

    def test() -> Evaluation:
        draws = stream(cell.seed, "test", next(network.parameters()).device)
        return evaluate(network, data.test, draws, cell.precision, after_batch)

    with OperationCounter(network, cell.num_steps) as counter:
        last = test()
    selected = last
    if weights.selected is not None:
        network.load_state_dict(weights.selected)
        selected = test()
    return Measured(last, selected, counter)
