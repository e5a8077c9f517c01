"""A cell run in a process that Ray or a cluster's scheduler starts."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from codingbench.cells.run import RunConfig
from codingbench.errors import CodingbenchError
from codingbench.executors.base import CellOutcome
from codingbench.executors.events import EventSender, ignore_event
from codingbench.executors.worker import Worker
from codingbench.runtime.interrupts import stop_on_signals

_latest_worker: Worker | None = None


@dataclass(frozen=True)
class Refusal:
    """No cell of the grid can be run in this process; ``message`` says why in one line.

    It is returned and not raised, because submitit keeps only the traceback of an exception.
    """

    message: str


RemoteResult = CellOutcome | Refusal


def run_cell(config: RunConfig, key: str, send: Callable[..., None] = ignore_event) -> RemoteResult:
    """Run one cell of the grid; its result is in the store.

    Args:
        config: the index of its device is ignored, because the scheduler assigns the GPU.
        key: of the cell.
        send: called with the name of each event and its content; the first event is ``began``.

    Raises:
        Interrupted: the scheduler sent SIGTERM or SIGINT; a checkpoint is written.
    """
    config = replace(config, device=config.device.partition(":")[0])
    with stop_on_signals() as stop:
        try:
            worker = _worker_for(config)
            if key not in worker.jobs:
                return Refusal(
                    f"this machine's grid has no cell {key}: its code or plug-ins differ from "
                    "those of the machine that started the run"
                )
            send("began")
            return worker.run(key, EventSender(send), stop)
        except CodingbenchError as error:
            return Refusal(str(error))


def outcome_of(result: RemoteResult) -> CellOutcome:
    """Return the outcome of a cell that was run remotely.

    Raises:
        CodingbenchError: the result is a refusal.
    """
    if isinstance(result, Refusal):
        raise CodingbenchError(result.message)
    return result


def _worker_for(config: RunConfig) -> Worker:
    """Return this process's worker: a process that runs many cells loads their data once."""
    global _latest_worker
    if _latest_worker is None or _latest_worker.config != config:
        _latest_worker = Worker(config, config.jobs())
    return _latest_worker
