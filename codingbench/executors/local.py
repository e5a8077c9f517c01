"""Cells run on this machine: in this process, or packed side by side in processes of their own."""

import contextlib
import math
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from codingbench.cells.grid import Job
from codingbench.cells.run import CellListener, RunConfig
from codingbench.errors import CodingbenchError
from codingbench.executors.base import CellOutcome, GridListener
from codingbench.executors.remote import EventSender
from codingbench.executors.worker import Worker
from codingbench.runtime.interrupts import StopRequest, stop_on_signals
from codingbench.training.loop import Interrupted

_GRACE_S = 60.0  # a process that is asked to stop finishes its batch and writes a checkpoint
_POLL_S = 0.2


class InProcess:
    """One cell after another, in this process."""

    def run(
        self,
        config: RunConfig,
        jobs: Mapping[str, Job],
        listener: GridListener,
        stop: StopRequest,
    ) -> Iterator[tuple[str, CellOutcome]]:
        """See :class:`codingbench.executors.base.Executor`."""
        worker = Worker(config, jobs)
        for key, job in jobs.items():
            if stop():
                raise Interrupted
            yield key, worker.run(key, listener.cell_started(job), stop)


class Processes:
    """Up to ``workers`` cells at a time, each in a spawned process that goes on to the next one.

    A process that dies (a crash, no memory left) or takes longer than ``timeout_s`` over a cell
    is replaced; its cell is tried again ``retries`` times, from its last checkpoint, and then
    recorded as failed.
    """

    def __init__(self, workers: int, timeout_s: float | None = None, retries: int = 0) -> None:
        self.workers, self.timeout_s, self.retries = workers, timeout_s, retries

    def run(
        self,
        config: RunConfig,
        jobs: Mapping[str, Job],
        listener: GridListener,
        stop: StopRequest,
    ) -> Iterator[tuple[str, CellOutcome]]:
        """See :class:`codingbench.executors.base.Executor`."""
        book = Worker(config, jobs)  # records what a dead process cannot
        queue, tries = deque(jobs), dict.fromkeys(jobs, 0)
        lanes = [_Lane(_own(config, at)) for at in range(min(self.workers, len(jobs)))]
        try:
            while queue or any(lane.key for lane in lanes):
                if stop():
                    raise Interrupted
                for lane in lanes:
                    if queue and not lane.key:
                        key = queue.popleft()
                        lane.hand(key, listener.cell_started(jobs[key]))
                for at, key, report in self._ended(lanes):
                    if report.ending != "died":
                        yield key, report
                        continue
                    lanes[at] = _Lane(_own(config, at))
                    tries[key] += 1
                    if tries[key] <= self.retries:
                        queue.append(key)
                    else:
                        yield key, book.record_failure(key, report.reason)
        finally:
            for lane in lanes:
                lane.ask_to_stop()
            for lane in lanes:
                lane.end()

    def _ended(self, lanes: list["_Lane"]) -> Iterator[tuple[int, str, CellOutcome]]:
        """Hear those that speak; the lanes whose cell has ended, with its key."""
        wait([lane.connection for lane in lanes if lane.key], _POLL_S)
        for at, lane in enumerate(lanes):
            key = lane.key
            if not key:
                continue
            report = lane.hear()
            if report is None and self.timeout_s and lane.seconds() > self.timeout_s:
                lane.kill()
                report = CellOutcome("died", reason=f"took longer than {self.timeout_s:g} s")
            if report:
                lane.key = ""
                yield at, key, report


class _Lane:
    """A spawned process, and the cell that it is at."""

    def __init__(self, order: RunConfig) -> None:
        spawn = get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        # no daemon, which may have no processes of its own, for decoding or several devices; the
        # end of the pipe ends it all the same
        self.process = spawn.Process(target=_serve, args=(order, theirs))
        self.process.start()
        theirs.close()  # or the end of the process would not end the pipe
        self.key = ""
        self._listener: CellListener | None = None
        self._began = math.inf

    def hand(self, key: str, listener: CellListener) -> None:
        """Give it a cell to run."""
        self.key, self._listener, self._began = key, listener, math.inf
        with contextlib.suppress(OSError):  # it died, which hear() finds out
            self.connection.send(key)

    def hear(self) -> CellOutcome | None:
        """Pass on what the process says; how its cell ended, once it has.

        Raises:
            CodingbenchError: the process cannot run any cell.
        """
        try:
            while self.connection.poll():
                name, content = self.connection.recv()
                if name == "ended":
                    ended: CellOutcome = content[0]
                    return ended
                if name == "refused":
                    raise CodingbenchError(content[0])
                if name == "began":
                    self._began = time.monotonic()
                    continue
                getattr(self._listener, name)(*content)
        except (EOFError, OSError):
            self.process.join()
            return CellOutcome("died", reason=death(self.process.exitcode))
        return None

    def seconds(self) -> float:
        """Since the cell began, which is after the process has."""
        return time.monotonic() - self._began

    def ask_to_stop(self) -> None:
        """At its next batch if it is at a cell, else at once."""
        if self.key and self.process.is_alive():
            self.process.terminate()
        self.connection.close()

    def end(self) -> None:
        """Wait for the process, but not for ever."""
        self.process.join(_GRACE_S)
        if self.process.is_alive():
            self.kill()

    def kill(self) -> None:
        """At once."""
        self.process.kill()
        self.process.join()


def _own(order: RunConfig, lane: int) -> RunConfig:
    """The order with the lane's own GPUs, where a cell has several.

    >>> from codingbench.cells.grid import Grid
    >>> order = RunConfig(Grid(), "results", "cuda", {}, devices=2)
    >>> _own(order, 0).device, _own(order, 1).device
    ('cuda:0', 'cuda:2')
    """
    kind, _, first = order.device.partition(":")
    if kind != "cuda" or order.devices == 1:
        return order
    return replace(order, device=f"cuda:{int(first or 0) + lane * order.devices}")


def death(exitcode: int | None) -> str:
    """How a process ended that was not to end."""
    if exitcode is None or exitcode >= 0:
        return f"its process ended with status {exitcode}"
    name = signal.Signals(-exitcode).name
    hint = " (no memory left?)" if -exitcode == signal.SIGKILL else ""
    return f"its process was ended by {name}{hint}"


def _serve(order: RunConfig, connection: Connection) -> None:
    """What a spawned process does: run the cells that it is handed, until the pipe ends."""
    # Ctrl-C reaches all processes of a terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_on_signals([signal.SIGTERM]) as stop:

        def tell(name: str, *content: Any) -> None:
            try:
                connection.send((name, content))
            except OSError:  # there is no parent any more
                stop.signal = signal.SIGTERM

        try:
            worker = Worker(order, order.jobs())
            while not stop():
                key = connection.recv()
                tell("began")
                tell("ended", worker.run(key, EventSender(tell), stop))
        except CodingbenchError as error:
            tell("refused", str(error))
        except (EOFError, OSError, Interrupted):
            pass  # the parent has ended, or asked to stop
