"""One cell trained on several devices: a spawned process for each, and this process listens.

The processes leave what they trained as the cell's last checkpoint. From then on the cell is like
any other, and is measured in this process.
"""

import os
import signal
import socket
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.synchronize import Event
from typing import Any, Final

import torch

from codingbench.backbone import move_network
from codingbench.cells.data import DataCache
from codingbench.cells.network import network_of
from codingbench.cells.run import (
    CellListener,
    DistributedTraining,
    RunConfig,
    requested_backend,
)
from codingbench.errors import CodingbenchError, one_line
from codingbench.executors.base import end_process, exit_reason
from codingbench.executors.events import EventSender, ignore_event
from codingbench.neurons.backends import backend_run, use_backend
from codingbench.runtime.devices import conditions, devices_from, peak_memory_mb
from codingbench.runtime.lifeline import end_with_parent
from codingbench.training.checkpoint import CHECKPOINTS, Checkpoints
from codingbench.training.distributed import DataParallel
from codingbench.training.loop import Interrupted, train
from codingbench.training.meter import TrainingError

WAIT_S: Final = 600.0
"""Seconds that a process waits for the others, which may compile or write a checkpoint.

A process that has crashed is noticed at once.
"""

_ENVIRONMENT = {  # read when torch is imported
    # DDP warns in every process that its search for unused parameters found none
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
_POLL_S = 0.2
_GRACE_S = 10.0


def train_on_devices(
    config: RunConfig, key: str, listener: CellListener, should_stop: Callable[[], bool]
) -> DistributedTraining:
    """Train a cell on ``config.devices`` devices, from the device of ``config`` on.

    Raises:
        CodingbenchError: there are fewer devices, or a data set or the store is broken.
        Interrupted: ``should_stop`` returned true; a checkpoint is written.
        TrainingError: the training cannot continue, or one of the processes died.
    """
    devices = tuple(map(str, devices_from(torch.device(config.device), config.devices)))
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    port, stop = _free_port(), get_context("spawn").Event()
    ranks = [
        _Rank(config, key, _RankInfo(i, devices, port, WAIT_S), stop) for i in range(len(devices))
    ]
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
    """Pass on the events of the processes until all have ended; tell them when to stop."""
    by_connection = {rank.connection: rank for rank in ranks}
    while running := [rank.connection for rank in ranks if not rank.has_ended]:
        if should_stop():
            stop.set()
        ready = wait(running, _POLL_S) or [rank.connection for rank in ranks if rank.is_lost]
        for connection in ready:
            assert isinstance(connection, Connection)
            try:
                by_connection[connection].receive(listener)
            except TrainingError:
                if should_stop():  # Ctrl-C reached a process before it ignored the signal
                    raise Interrupted from None
                dead = [rank for rank in ranks if rank.is_dead]
                if dead:  # its death makes the others fail, and their errors may arrive first
                    raise dead[0].death() from None
                raise


@dataclass(frozen=True)
class _RankInfo:
    """A process among those that train a cell: its rank, all devices, and how they connect."""

    rank: int
    devices: tuple[str, ...]
    port: int
    wait_s: float

    def __str__(self) -> str:
        return f"rank {self.rank} of {len(self.devices)}"


class _Rank:
    """A spawned process as its parent sees it; ``result`` stays None if it was interrupted."""

    def __init__(self, config: RunConfig, key: str, info: _RankInfo, stop: Event) -> None:
        spawn = get_context("spawn")
        self.info, self.has_ended = info, False
        self.result: DistributedTraining | None = None
        self.connection, theirs = spawn.Pipe()
        self.process = spawn.Process(target=_train_rank, args=(config, key, info, theirs, stop))
        self.process.start()
        theirs.close()  # otherwise the pipe would stay open after the process has ended

    def receive(self, listener: CellListener) -> None:
        """Handle one message of the process.

        Raises:
            CodingbenchError: no cell can be run.
            TrainingError: the process failed or died.
        """
        if self.is_lost:
            raise self.death()
        try:
            name, content = self.connection.recv()
        except (EOFError, OSError):
            end_process(self.process, _GRACE_S)
            raise self.death() from None
        if name == "ended":
            self.has_ended, (self.result,) = True, content
        elif name == "refused":
            raise CodingbenchError(*content)
        elif name == "failed":
            reason, trace = content
            raise TrainingError(reason) from _RemoteTraceback(trace)
        else:
            getattr(listener, name)(*content)

    @property
    def is_lost(self) -> bool:
        """The process has ended without a result; one that it started may hold its pipe open."""
        return not (self.has_ended or self.process.is_alive() or self.connection.poll())

    @property
    def is_dead(self) -> bool:
        """The process has ended with an error status or by a signal."""
        return self.process.exitcode not in (None, 0)

    def death(self) -> TrainingError:
        """Return the error that names this process and how it ended."""
        return TrainingError(f"{self.info}: {exit_reason(self.process.exitcode)}")

    def end(self) -> None:
        """End the process: one that still runs can only wait for others that have ended."""
        end_process(self.process, _GRACE_S if self.has_ended else 0.0)
        self.connection.close()


class _RemoteTraceback(Exception):
    """The traceback of an error in another process, as text."""


def _train_rank(
    config: RunConfig, key: str, info: _RankInfo, connection: Connection, stop: Event
) -> None:
    """Entry point of one rank.

    On an error it reports and then waits to be killed: exiting first would make the other ranks
    fail, and their errors would hide the real one.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # the parent decides what they mean
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()  # its claim on the cell ended with it, so another run may hold it now

    def send(name: str, *content: Any) -> None:
        connection.send((name, content))

    listener = EventSender(ignore_event if info.rank else send)
    try:
        send("ended", _train(config, key, info, listener, stop))
    except Interrupted:
        send("ended", None)
    except Exception as error:
        if isinstance(error, CodingbenchError):
            send("refused", str(error))
        elif isinstance(error, TrainingError):
            send("failed", str(error), traceback.format_exc())
        else:
            send("failed", f"{info}: {one_line(error)}", traceback.format_exc())
        threading.Event().wait()


def _train(
    config: RunConfig, key: str, info: _RankInfo, listener: CellListener, stop: Event
) -> DistributedTraining:
    """Train the cell as one rank, together with the others."""
    devices = [torch.device(name) for name in info.devices]
    device = devices[info.rank]
    ranks = DataParallel(info.rank, devices, info.port, info.wait_s)
    job = config.jobs()[key]
    data = DataCache([job], config.grid.data_dir, device, config.decoders, config.threads).load(job)
    threads = max(1, config.threads // ranks.count)
    with conditions(threads, config.is_deterministic), warnings.catch_warnings():
        # The new name of this argument does not exist in the oldest supported torch.
        warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
        network = move_network(network_of(job), device, job.cell.precision)
        backend = requested_backend(network, job, config)
        with use_backend(backend):
            training = train(
                network,
                data,
                job.recipe,
                job.cell.seed,
                job.cell.precision,
                listener,
                checkpoints=_SharedCheckpoints(
                    Checkpoints(config.results / CHECKPOINTS, key), ranks
                ),
                should_stop=lambda: ranks.any(stop.is_set()),
                micro_batch=job.cell.micro_batch,
                ranks=ranks,
                graphs=config.graphs,
                tests_each_epoch=config.tests_each_epoch,
            )
            result = DistributedTraining(
                backend_run(backend), peak_memory_mb(device), training.earlier_s
            )
    ranks.leave()
    return result


class _SharedCheckpoints(Checkpoints):
    """The checkpoints of a cell; rank 0 reads, writes and times them for all ranks."""

    def __init__(self, checkpoints: Checkpoints, ranks: DataParallel) -> None:
        self._checkpoints, self._ranks = checkpoints, ranks

    def is_due(self) -> bool:
        return bool(self._ranks.from_first(self._checkpoints.is_due()))

    def save(self, state: dict[str, Any]) -> None:
        if self._ranks.rank == 0:
            self._checkpoints.save(state)

    def load(self) -> dict[str, Any] | None:
        state: dict[str, Any] | None = self._ranks.from_first(
            None if self._ranks.rank else self._checkpoints.load()
        )
        return state


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
