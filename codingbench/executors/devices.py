"""One cell trained on several devices: a spawned process for each, and this one, which listens.

The processes leave what they trained as the cell's last checkpoint; from there on it is a cell
like any other, measured in this process.
"""

import os
import signal
import socket
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Event
from typing import Any, Final

import torch

from codingbench.backbone import move_network
from codingbench.cells.network import network_of
from codingbench.cells.run import Apart, CellListener, RunConfig, asked_backend
from codingbench.errors import CodingbenchError, one_line
from codingbench.executors.local import death
from codingbench.executors.remote import EventSender, unheard
from codingbench.executors.worker import Worker
from codingbench.neurons.backends import backend_run, use_backend
from codingbench.runtime.devices import conditions, devices_from, peak_memory_mb
from codingbench.training.checkpoint import CHECKPOINTS, Checkpoints
from codingbench.training.distributed import DataParallel
from codingbench.training.loop import Interrupted, TrainingError, train

WAIT_S: Final = 600.0
"""That a process waits for the others, which may compile or write a checkpoint; one that has
crashed is noticed at once."""

_SETTINGS = {  # read when torch is imported
    # DDP warns in every process that looking for unused parameters found none
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
_POLL_S = 0.2
_GRACE_S = 10.0


def train_on_devices(
    order: RunConfig, key: str, listener: CellListener, should_stop: Callable[[], bool]
) -> Apart:
    """Train a cell on ``order.devices`` devices, from the order's device on.

    Raises:
        CodingbenchError: there are fewer devices, a data set is broken, or the store is.
        Interrupted: ``should_stop`` said so; a checkpoint is written.
        TrainingError: the training cannot go on, or one of the processes died.
    """
    devices = tuple(map(str, devices_from(torch.device(order.device), order.devices)))
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    port, stop = _free_port(), get_context("spawn").Event()
    ranks = [_Rank(order, key, _Place(i, devices, port, WAIT_S), stop) for i in range(len(devices))]
    try:
        _listen(ranks, listener, should_stop, stop)
    finally:
        for rank in ranks:
            rank.end()
    results = [rank.result for rank in ranks if rank.result]
    if len(results) < len(ranks):
        raise Interrupted
    return replace(results[0], peak_memory_mb=max(result.peak_memory_mb for result in results))


def _listen(
    ranks: Sequence["_Rank"], listener: CellListener, should_stop: Callable[[], bool], stop: Event
) -> None:
    """Until all have ended, pass on what they say, and to them that they are to stop."""
    by_connection = {rank.connection: rank for rank in ranks}
    while at_work := [rank.connection for rank in ranks if not rank.has_ended]:
        if should_stop():
            stop.set()
        for connection in wait(at_work, _POLL_S):
            assert isinstance(connection, Connection)
            try:
                by_connection[connection].hear(listener)
            except TrainingError:
                if should_stop():  # Ctrl-C reached a process before that could ignore it
                    raise Interrupted from None
                dead = [rank for rank in ranks if rank.is_dead]
                if dead:  # of which the others fail, and may be heard first
                    raise dead[0].death() from None
                raise


@dataclass(frozen=True)
class _Place:
    """Of a process among the others."""

    rank: int
    devices: tuple[str, ...]
    port: int
    wait_s: float

    def __str__(self) -> str:
        return f"rank {self.rank} of {len(self.devices)}"


class _Rank:
    """A spawned process as its parent sees it."""

    def __init__(self, order: RunConfig, key: str, place: _Place, stop: Event) -> None:
        spawn = get_context("spawn")
        self.place, self.has_ended = place, False
        self.result: Apart | None = None  # or interrupted
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_train_rank, args=(order, key, place, theirs, stop))
        self.process.start()
        theirs.close()  # or the end of the process would not end the pipe

    def hear(self, listener: CellListener) -> None:
        """One message of the process.

        Raises:
            CodingbenchError: no cell can be run.
            TrainingError: the process failed or died.
        """
        try:
            name, content = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            raise self.death() from None
        if name == "ended":
            self.has_ended, (self.result,) = True, content
        elif name == "refused":
            raise CodingbenchError(*content)
        elif name == "failed":
            reason, trace = content
            raise TrainingError(reason) from _Elsewhere(trace)
        else:
            getattr(listener, name)(*content)

    @property
    def is_dead(self) -> bool:
        """Whether it has ended as it was not to."""
        return self.process.exitcode not in (None, 0)

    def death(self) -> TrainingError:
        """How it died."""
        return TrainingError(f"{self.place}: {death(self.process.exitcode)}")

    def end(self) -> None:
        """At once if it is still at work; it can only wait for others that are not there."""
        if self.has_ended:
            self.process.join(_GRACE_S)
        self.process.kill()
        self.process.join()
        self.connection.close()


class _Elsewhere(Exception):
    """The traceback of an error in another process, as text."""


def _train_rank(
    order: RunConfig, key: str, place: _Place, connection: Connection, stop: Event
) -> None:
    """What a spawned process does; what it fails of, it tells, and waits to be killed, because
    by its end the others would fail too, and be heard first."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent decides what they mean
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def tell(name: str, *content: Any) -> None:
        connection.send((name, content))

    try:
        tell(
            "ended", _trained(order, key, place, EventSender(unheard if place.rank else tell), stop)
        )
    except Interrupted:
        tell("ended", None)
    except Exception as error:
        if isinstance(error, CodingbenchError):
            tell("refused", str(error))
        elif isinstance(error, TrainingError):
            tell("failed", str(error), traceback.format_exc())
        else:
            tell("failed", f"{place}: {one_line(error)}", traceback.format_exc())
        threading.Event().wait()


def _trained(
    order: RunConfig, key: str, place: _Place, listener: CellListener, stop: Event
) -> Apart:
    devices = [torch.device(name) for name in place.devices]
    own = devices[place.rank]
    ranks = DataParallel(place.rank, devices, place.port, place.wait_s)
    worker = Worker(replace(order, device=str(own)))
    job, data = worker.jobs[key], worker.data(key)
    threads = max(1, order.threads // ranks.count)
    with conditions(threads, order.is_deterministic), warnings.catch_warnings():
        # the name that replaces it is newer than the oldest torch we run on
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
        network = move_network(network_of(job), own)
        backend = asked_backend(network, job, order)
        with use_backend(backend):
            train(
                network,
                data,
                job.recipe,
                job.cell.seed,
                job.cell.precision,
                listener,
                checkpoints=_Shared(Checkpoints(order.results / CHECKPOINTS, key), ranks),
                should_stop=lambda: ranks.any(stop.is_set()),
                micro_batch=job.cell.micro_batch,
                ranks=ranks,
            )
            apart = Apart(backend_run(backend), peak_memory_mb(own))
    ranks.leave()
    return apart


class _Shared(Checkpoints):
    """The checkpoints of a cell, which rank 0 reads, writes and times for all."""

    def __init__(self, own: Checkpoints, ranks: DataParallel) -> None:
        self._own, self._ranks = own, ranks

    def is_due(self) -> bool:
        return bool(self._ranks.from_first(self._own.is_due()))

    def save(self, state: dict[str, Any]) -> None:
        if self._ranks.rank == 0:
            self._own.save(state)

    def load(self) -> dict[str, Any] | None:
        state: dict[str, Any] | None = self._ranks.from_first(
            None if self._ranks.rank else self._own.load()
        )
        return state


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)  # nobody holds the cell any more: another run may be at it


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
