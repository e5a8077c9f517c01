"""Cells as Ray tasks, on this machine or on a cluster that shares the results folder."""

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
from codingbench.executors.base import CellOutcome, GridListener, record_failure
from codingbench.executors.events import EventRouter
from codingbench.executors.remote import RemoteResult, outcome_of, run_cell
from codingbench.runtime.interrupts import StopRequest
from codingbench.store.folder import Store
from codingbench.training.loop import Interrupted

_POLL_S = 0.5
_REACH_S = 10.0  # Ray itself waits two minutes for a head node that does not answer
_GRACE_S = 60.0  # a cell that is told to stop finishes its batch and writes a checkpoint
_ENVIRONMENT = {  # read when Ray is imported
    "RAY_USAGE_STATS_ENABLED": "0",  # a Ray that is started here sends no statistics
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # otherwise Ray prints messages among the results
}


class OnRay:
    """Runs one Ray task per cell; Ray repeats a task whose worker or machine is lost.

    Args:
        address: of a cluster; None uses the cluster of RAY_ADDRESS or of this machine, or starts
            one here until the grid has ended.
        gpus: GPUs of each cell; with 0.5, two cells share one. 0 means one GPU if the run's
            device is a GPU.
        retries: how often Ray repeats a cell whose worker died or was told to end; the cell
            continues from its last checkpoint.
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
            store, router = Store(config.results), EventRouter(listener, jobs)
            task = ray.remote(**self._needs(ray, config))(_run_cell)
            mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
            futures = {task.remote(config, key, mailbox, Path.cwd()): key for key in jobs}
            try:
                while futures:
                    if stop():
                        raise Interrupted
                    ready, _ = ray.wait(list(futures), timeout=_POLL_S)
                    for message in _messages(ray, mailbox):
                        router.receive(*message)
                    for future in ready:
                        key = futures.pop(future)
                        router.end(key)
                        yield key, _outcome(ray, future, store, jobs[key], key)
            finally:
                for future in futures:
                    ray.cancel(future)
                if futures:
                    ray.wait(list(futures), num_returns=len(futures), timeout=_GRACE_S)

    def _needs(self, ray: Any, config: RunConfig) -> dict[str, Any]:
        """Return what each cell needs, as options of a Ray task.

        Raises:
            CodingbenchError: no machine has enough CPUs and GPUs; Ray would wait for ever.
                Machines that an autoscaler has not started yet do not count.
        """
        gpus = self.gpus or float(config.device.startswith("cuda"))
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        has = [(int(m.get("CPU", 0)), m.get("GPU", 0.0)) for m in machines]
        if not any(cpu >= config.threads and gpu >= gpus for cpu, gpu in has):
            seen = ", ".join(f"{cpu} and {gpu:g}" for cpu, gpu in sorted(set(has)))
            raise CodingbenchError(
                f"a cell needs {config.threads} CPUs and {gpus:g} GPUs, which no machine of the "
                f"Ray cluster has (they have: {seen or 'there are no machines'})"
            )
        return {
            "num_cpus": config.threads,
            "num_gpus": gpus,
            "max_retries": self.retries,
            "retry_exceptions": [Interrupted],
        }


class Mailbox:
    """A Ray actor that keeps the events of cells until they are taken."""

    def __init__(self) -> None:
        self._messages: list[tuple[Any, ...]] = []

    def put(self, *message: Any) -> None:
        """Add an event: the cell's key, the event's name, and its content."""
        self._messages.append(message)

    def take(self) -> list[tuple[Any, ...]]:
        """Return the events that were added since the last call."""
        messages, self._messages = self._messages, []
        return messages


def _run_cell(config: RunConfig, key: str, mailbox: Any, folder: Path) -> RemoteResult:
    """Run a cell on a worker, in the folder of the command: paths may be relative to it."""
    with contextlib.suppress(OSError):
        os.chdir(folder)
    return run_cell(config, key, lambda *event: mailbox.put.remote(key, *event))


def _messages(ray: Any, mailbox: Any) -> list[tuple[Any, ...]]:
    """Take the events; there are none if the mailbox was lost, which does not affect cells."""
    try:
        messages: list[tuple[Any, ...]] = ray.get(mailbox.take.remote(), timeout=_REACH_S)
    except ray.exceptions.RayError:
        return []
    return messages


def _outcome(ray: Any, future: Any, store: Store, job: Job, key: str) -> CellOutcome:
    try:
        return outcome_of(ray.get(future))
    except ray.exceptions.RayTaskError as error:
        was_ended = isinstance(error.cause, Interrupted)
        reason = "its worker was told to end" if was_ended else one_line(error.cause)
    except ray.exceptions.RayError as error:
        reason = one_line(error)
    return record_failure(store, job, key, reason)


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Connect to Ray and disconnect at the end, unless this process was connected before.

    Raises:
        CodingbenchError: Ray is not installed, or cannot be reached.
    """
    for name, value in _ENVIRONMENT.items():
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
        _check_listening(where)
        with _unchanged_handler(signal.SIGTERM):
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        name = where or "this machine"
        raise CodingbenchError(f"cannot reach Ray at {name}: {one_line(error)}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _unchanged_handler(number: int) -> Iterator[None]:
    """Restore the handler of a signal: Ray makes SIGTERM end the process at once."""
    before = signal.getsignal(number)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(number, before)


def _check_listening(address: str) -> None:
    """Check that a server listens at ``host:port`` or ``ray://host:port``.

    Other forms of an address name no port and are not checked.

    Raises:
        OSError: no server listens there.
        ValueError: the port is not a number.
    """
    parts = urlsplit(address if "//" in address else f"//{address}")
    if parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), _REACH_S).close()
