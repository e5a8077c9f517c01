"""Cells as Ray tasks: on this machine, or on a cluster that sees the results folder."""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from codingbench.cells.grid import Job
from codingbench.cells.run import RunConfig
from codingbench.errors import CodingbenchError, one_line
from codingbench.executors.base import CellOutcome, GridListener
from codingbench.executors.remote import Answer, EventRouter, opened, run_cell
from codingbench.executors.worker import Worker
from codingbench.runtime.interrupts import StopRequest
from codingbench.training.loop import Interrupted

_POLL_S = 0.5
_REACH_S = 10.0  # Ray itself waits two minutes for a head that is not there
_GRACE_S = 60.0  # a cell that is asked to stop finishes its batch and writes a checkpoint
_SETTINGS = {  # read when Ray is imported
    "RAY_USAGE_STATS_ENABLED": "0",  # a Ray started here reports to nobody
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Ray prints what becomes of its workers among the results
}


class OnRay:
    """One task per cell; Ray itself tries a cell again whose worker or machine is lost.

    Args:
        address: of a cluster; None uses the one of RAY_ADDRESS or on this machine, or starts one
            here for the time of the grid.
        gpus: of a cell, which may be a fraction: 0.5 is two cells to a GPU. 0 is one where the
            order's device is a GPU.
        retries: how often Ray tries a cell again whose worker died or was told to end; it goes on
            from its last checkpoint.
    """

    def __init__(self, address: str | None, gpus: float, retries: int) -> None:
        self.address, self.gpus, self.retries = address, gpus, retries

    def run(
        self,
        config: RunConfig,
        jobs: Mapping[str, Job],
        listener: GridListener,
        stop: StopRequest,
    ) -> Iterator[tuple[str, CellOutcome]]:
        """See :class:`codingbench.executors.base.Executor`."""
        with _connected(self.address) as ray:
            book = Worker(config, jobs)  # records what a dead worker cannot
            audience = EventRouter(listener, jobs)
            task = ray.remote(**self._needs(ray, config))(_run_cell)
            mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
            futures = {task.remote(config, key, mailbox, Path.cwd()): key for key in jobs}
            try:
                while futures:
                    if stop():
                        raise Interrupted
                    ready, _ = ray.wait(list(futures), timeout=_POLL_S)
                    for message in _taken(ray, mailbox):
                        audience.hear(*message)
                    for future in ready:
                        key = futures.pop(future)
                        audience.end(key)
                        yield key, _report(ray, future, key, book)
            finally:
                for future in futures:
                    ray.cancel(future)
                if futures:
                    ray.wait(list(futures), num_returns=len(futures), timeout=_GRACE_S)

    def _needs(self, ray: Any, order: RunConfig) -> dict[str, Any]:
        """Of each cell, as Ray's options.

        Raises:
            CodingbenchError: no machine has as much, and Ray would wait for one without an end.
                Machines that an autoscaler has yet to start do not count.
        """
        gpus = self.gpus or float(order.device.startswith("cuda"))
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        has = [(int(m.get("CPU", 0)), m.get("GPU", 0.0)) for m in machines]
        if not any(cpu >= order.threads and gpu >= gpus for cpu, gpu in has):
            seen = ", ".join(f"{cpu} and {gpu:g}" for cpu, gpu in sorted(set(has)))
            raise CodingbenchError(
                f"a cell needs {order.threads} CPUs and {gpus:g} GPUs, which no machine of the "
                f"Ray cluster has (they have: {seen or 'none is there'})"
            )
        return {
            "num_cpus": order.threads,
            "num_gpus": gpus,
            "max_retries": self.retries,
            "retry_exceptions": [Interrupted],
        }


class Mailbox:
    """Where the cells leave what they tell, until it is taken; an actor of its own."""

    def __init__(self) -> None:
        self._messages: list[tuple[Any, ...]] = []

    def tell(self, *message: Any) -> None:
        """A cell's key, the name of what happens there, and what is said of it."""
        self._messages.append(message)

    def take(self) -> list[tuple[Any, ...]]:
        """Everything that was told since the last time."""
        messages, self._messages = self._messages, []
        return messages


def _run_cell(order: RunConfig, key: str, mailbox: Any, folder: Path) -> Answer:
    """On a worker, which need not have been started in ``folder``: paths may be relative to it."""
    with contextlib.suppress(OSError):
        os.chdir(folder)
    return run_cell(order, key, lambda *message: mailbox.tell.remote(key, *message))


def _taken(ray: Any, mailbox: Any) -> list[tuple[Any, ...]]:
    """What was told; nothing once the mailbox is lost with its machine, which ends no cell."""
    try:
        messages: list[tuple[Any, ...]] = ray.get(mailbox.take.remote(), timeout=_REACH_S)
    except ray.exceptions.RayError:
        return []
    return messages


def _report(ray: Any, future: Any, key: str, book: Worker) -> CellOutcome:
    try:
        return opened(ray.get(future))
    except ray.exceptions.RayTaskError as error:
        was_ended = isinstance(error.cause, Interrupted)
        reason = "its worker was told to end" if was_ended else one_line(error.cause)
        return book.record_failure(key, reason)
    except ray.exceptions.RayError as error:
        return book.record_failure(key, one_line(error))


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, connected for as long as this lasts unless it was before.

    Raises:
        CodingbenchError: Ray is not installed, or not to be reached.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        raise CodingbenchError(
            "the executor 'ray' needs Ray: pip install 'codingbench[ray]'"
        ) from None
    if ray.is_initialized():
        yield ray
        return
    where = address or os.environ.get("RAY_ADDRESS", "")
    try:
        _knock(where)
        with _same_handler(signal.SIGTERM):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        name = where or "this machine"
        raise CodingbenchError(f"cannot reach Ray at {name}: {one_line(error)}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _same_handler(number: int) -> Iterator[None]:
    """Ray makes SIGTERM end the process at once; here it goes on to mean what it did."""
    before = signal.getsignal(number)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, before)


def _knock(address: str) -> None:
    """Whether anybody listens at ``host:port`` or ``ray://host:port``; other forms name no port.

    Raises:
        OSError: nobody does.
        ValueError: the port is none.
    """
    parts = urlsplit(address if "//" in address else f"//{address}")
    if parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), _REACH_S).close()
