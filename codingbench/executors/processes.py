"""Cells run side by side in processes of this machine."""

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
from codingbench.executors.base import (
    NOT_BEGUN,
    CellOutcome,
    GridListener,
    end_process,
    exit_reason,
    record_failure,
)
from codingbench.executors.events import EventSender
from codingbench.executors.limit import NO_LIMIT, TimeLimit
from codingbench.executors.worker import Worker
from codingbench.runtime.interrupts import StopRequest, stop_on_signals
from codingbench.runtime.lifeline import end_with_parent
from codingbench.store.folder import Store
from codingbench.training.budget import Allowance
from codingbench.training.loop import Interrupted

_GRACE_S = 60.0  # a process that is told to stop finishes its batch and writes a checkpoint
_ORPHAN_S = 10.0  # the same, for a process whose parent has ended
_EXIT_S = 5.0  # a process that has closed its pipe only has to leave
_POLL_S = 0.2


class Processes:
    """Runs up to ``workers`` cells at a time, each in a spawned process that takes many in turn.

    A process that dies (from a crash or for lack of memory), or takes longer than ``timeout_s``
    for a cell, is replaced. Its cell is tried again up to ``retries`` times, from its last
    checkpoint, and then recorded as failed. No cell is begun for which ``limit`` has no time.
    """

    def __init__(
        self,
        workers: int,
        timeout_s: float | None = None,
        retries: int = 0,
        limit: TimeLimit = NO_LIMIT,
    ) -> None:
        self.workers, self.timeout_s, self.retries = workers, timeout_s, retries
        self.limit = limit

    def run(
        self,
        config: RunConfig,
        jobs: Mapping[str, Job],
        listener: GridListener,
        stop: StopRequest,
    ) -> Iterator[tuple[str, CellOutcome]]:
        """See :class:`codingbench.executors.base.Executor`."""
        store = Store(config.results)
        queue, tries = deque(jobs), dict.fromkeys(jobs, 0)
        lanes = [_Lane(_lane_config(config, i)) for i in range(min(self.workers, len(jobs)))]
        try:
            while queue or any(lane.key for lane in lanes):
                if stop():
                    raise Interrupted
                for index in range(len(lanes)):
                    while queue and not lanes[index].key:
                        key = queue.popleft()
                        if self.limit.admits(job := jobs[key]):
                            if lanes[index].has_ended:
                                lanes[index] = _Lane(_lane_config(config, index))
                            cell = self.limit.learning(listener.cell_started(job), job)
                            lanes[index].assign(key, cell, self.limit.allowance(job))
                        else:
                            yield key, NOT_BEGUN
                for key, outcome in self._ended(lanes):
                    if outcome.ending != "died":
                        yield key, outcome
                        continue
                    tries[key] += 1
                    if tries[key] <= self.retries:
                        queue.append(key)
                    else:
                        yield key, record_failure(store, jobs[key], key, outcome.reason)
        finally:
            for lane in lanes:
                lane.ask_to_stop()
            for lane in lanes:
                lane.end()

    def _ended(self, lanes: list["_Lane"]) -> Iterator[tuple[str, CellOutcome]]:
        """Receive events; yield key and outcome of each cell that has ended."""
        wait([lane.connection for lane in lanes if lane.key], _POLL_S)
        for lane in lanes:
            key = lane.key
            if not key:
                continue
            outcome = lane.receive()
            if outcome is None and self.timeout_s and lane.seconds() > self.timeout_s:
                lane.kill()
                outcome = CellOutcome("died", reason=f"took longer than {self.timeout_s:g} s")
            if outcome:
                lane.key = ""
                yield key, outcome


class _Lane:
    """A spawned process, and the key of the cell that it runs, empty while it has none."""

    def __init__(self, config: RunConfig) -> None:
        spawn = get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        # The process is no daemon, because daemons may not start processes for decoding or for
        # several devices. It ends by itself when its end of the pipe is closed.
        self.process = spawn.Process(target=_serve, args=(config, theirs))
        self.process.start()
        theirs.close()  # otherwise the pipe would stay open after the process has ended
        self.key = ""
        self._listener: CellListener | None = None
        self._began = math.inf

    def assign(self, key: str, listener: CellListener, allowance: Allowance | None = None) -> None:
        """Give the process a cell to run, and the time that the cell may take."""
        self.key, self._listener, self._began = key, listener, math.inf
        with contextlib.suppress(OSError):  # a dead process is noticed by receive()
            self.connection.send((key, allowance))

    def receive(self) -> CellOutcome | None:
        """Pass on the events of the process; return how its cell ended, once it has.

        Raises:
            CodingbenchError: the process cannot run any cell.
        """
        try:
            has_ended = self.has_ended  # although processes of its own may hold the pipe open
            while self.connection.poll():
                name, content = self.connection.recv()
                if name == "ended":
                    outcome: CellOutcome = content[0]
                    return outcome
                if name == "refused":
                    raise CodingbenchError(content[0])
                if name == "began":
                    self._began = time.monotonic()
                    continue
                getattr(self._listener, name)(*content)
        except (EOFError, OSError):
            has_ended = True
        if not has_ended:
            return None
        end_process(self.process, _EXIT_S)
        return CellOutcome("died", reason=exit_reason(self.process.exitcode))

    @property
    def has_ended(self) -> bool:
        """The process has died or was killed, so it takes no further cell."""
        return not self.process.is_alive()

    def seconds(self) -> float:
        """Return the seconds since the cell began, without the start of the process."""
        return time.monotonic() - self._began

    def ask_to_stop(self) -> None:
        """Let the process stop after its current batch, or at once if it has no cell."""
        if self.key and self.process.is_alive():
            self.process.terminate()
        self.connection.close()

    def end(self) -> None:
        """Wait for the process to end; kill it if it takes longer than the grace period."""
        end_process(self.process, _GRACE_S)

    def kill(self) -> None:
        """Kill the process and wait for its end."""
        end_process(self.process)


def _lane_config(config: RunConfig, lane: int) -> RunConfig:
    """Return the configuration of a lane, which has GPUs of its own if a cell uses several.

    >>> from codingbench.cells.grid import Grid
    >>> config = RunConfig(Grid(), "results", "cuda", {}, devices=2)
    >>> _lane_config(config, 0).device, _lane_config(config, 1).device
    ('cuda:0', 'cuda:2')
    """
    kind, _, first = config.device.partition(":")
    if kind != "cuda" or config.devices == 1:
        return config
    return replace(config, device=f"cuda:{int(first or 0) + lane * config.devices}")


def _serve(config: RunConfig, connection: Connection) -> None:
    """Entry point of a spawned process: run the cells it is given until the pipe is closed."""
    # Ctrl-C reaches all processes of a terminal; the parent decides what happens.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with stop_on_signals([signal.SIGTERM]) as stop:

        def stop_soon() -> None:
            stop.signal = signal.SIGTERM

        end_with_parent(before=stop_soon, grace_s=_ORPHAN_S)

        def send(name: str, *content: Any) -> None:
            try:
                connection.send((name, content))
            except OSError:  # the parent has ended
                stop_soon()

        try:
            worker = Worker(config, config.jobs())
            while not stop():
                key, allowance = connection.recv()
                send("began")
                send("ended", worker.run(key, EventSender(send), stop, allowance))
        except CodingbenchError as error:
            send("refused", str(error))
        except (EOFError, OSError, Interrupted):
            pass  # the parent has ended, or has asked to stop
