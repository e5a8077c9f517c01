"""Run a grid from Python: plan it, prepare it, carry it out.

Nothing here prints, and nothing ends the process::

    planned = plan(parse_settings({"encoders": "direct,gac", "T": "2,4"}))
    planned.remaining()                              # without fetching any data
    result = planned.prepare().carry_out(listener)   # trains and measures what is not finished

Settings are parsed once and the grid is expanded once. Worker processes expand it once each.
"""

import math
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from codingbench.cells.grid import Job
from codingbench.cells.settings import RunSettings
from codingbench.executors.config import ExecutorConfig

if TYPE_CHECKING:
    import torch

    from codingbench.cells.run import RunConfig
    from codingbench.executors.base import Executor, GridListener, Outcome
    from codingbench.executors.limit import TimeLimit
    from codingbench.runtime.interrupts import StopRequest
    from codingbench.store.folder import Store


@dataclass(frozen=True)
class RunOptions:
    """Options of a run that are not part of a cell's key.

    Args:
        neurons: ``auto``, ``compiled`` or ``eager``.
        is_deterministic: use only deterministic algorithms; None: on a CPU.
        names_host: keep a hash of the machine's name in the rows.
        keeps_weights: keep the weights of finished cells.
        force: run finished cells again.
        graphs: replay training steps and validations from CUDA graphs where that is possible.
        tests_each_epoch: measure the test accuracy after every epoch, for ``reproduce``.
        logs: names of :mod:`codingbench.executors.logs`.
    """

    neurons: str = "auto"
    is_deterministic: bool | None = None
    names_host: bool = True
    keeps_weights: bool = True
    force: bool = False
    graphs: bool = True
    tests_each_epoch: bool = False
    logs: tuple[str, ...] = ()


@dataclass(frozen=True)
class RunResult:
    """The result of a run: the store, the grid's jobs by cell key, and the numbers of cells.

    The store may hold more cells than those of the grid.
    """

    store: "Store"
    jobs: dict[str, Job]
    outcome: "Outcome"

    @property
    def keys(self) -> list[str]:
        """Keys of the grid's cells, in the grid's order, whether finished or failed."""
        return list(self.jobs)


@dataclass(frozen=True)
class PreparedRun:
    """A run whose data sets are at hand and whose requests are all checked."""

    config: "RunConfig"
    jobs: dict[str, Job]
    store: "Store"
    executor: "Executor"
    limit: "TimeLimit"
    logs: tuple[str, ...] = ()

    def carry_out(self, listener: "GridListener", stop: "StopRequest | None" = None) -> RunResult:
        """Run every cell that is not finished, and report each event to ``listener``.

        A failing cell is recorded with its reason and the others go on. Cells that do not fit into
        a time limit are left, with their progress in checkpoints.

        Raises:
            CodingbenchError: a data set is broken, the store cannot be written, or not even one
                epoch fits into the time limit.
            Interrupted: ``stop`` was set; finished cells and checkpoints are kept.
        """
        from codingbench.executors.base import run_grid

        with self._logged(listener) as logged:
            outcome = run_grid(self.config, self.executor, logged, stop, self.jobs, self.limit)
        return RunResult(self.store, self.jobs, outcome)

    @contextmanager
    def _logged(self, listener: "GridListener") -> Iterator["GridListener"]:
        """Yield the listener, or one that writes the requested logs, too."""
        if not self.logs:
            yield listener
            return
        from codingbench.executors.logs import Logging

        keys = {job: key for key, job in self.jobs.items()}
        with closing(Logging(listener, self.logs, self.store, keys)) as logging:
            yield logging


@dataclass(frozen=True)
class Plan:
    """A run request that was parsed and checked, with its jobs, expanded once."""

    settings: RunSettings
    jobs: list[Job]
    device: "torch.device"
    options: RunOptions = field(default_factory=RunOptions)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    started: float = field(default_factory=time.monotonic)
    """The time of ``time.monotonic()`` from which a time limit counts."""

    @property
    def store(self) -> "Store":
        """The store of the results; its folder need not exist."""
        from codingbench.store.folder import Store

        return Store(self.settings.results)

    def warnings(self) -> list[str]:
        """Return what the user should know before the cells are trained, one line each."""
        found = (job.recipe.warning() for job in self.jobs)
        return list(dict.fromkeys(text for text in found if text))

    def remaining(self) -> list[Job]:
        """Return the jobs that are not finished, as far as is known without fetching data.

        They are in the order in which they will run.
        """
        from codingbench.cells.data import known_fingerprints
        from codingbench.cells.order import by_seed

        finished = self.store.finished()
        if not finished:
            return by_seed(self.jobs)
        fingerprints = known_fingerprints(self.jobs, self.settings.grid.data_dir)

        def is_finished(job: Job) -> bool:
            fingerprint = fingerprints.get(job.cell.dataset)
            return fingerprint is not None and job.key(fingerprint) in finished

        return [job for job in by_seed(self.jobs) if not is_finished(job)]

    @property
    def is_deterministic(self) -> bool:
        """True if cells use only deterministic algorithms: as requested, by default on a CPU."""
        requested = self.options.is_deterministic
        return self.device.type == "cpu" if requested is None else requested

    def pack(self) -> tuple[int, int]:
        """Return the number of cells at a time, and of threads for each.

        Raises:
            SpecError: there are not enough devices for a cell.
        """
        settings = self.settings
        return self.executor.pack(
            self.jobs, self.device, settings.workers, settings.threads, settings.devices
        )

    def prepare(self) -> PreparedRun:
        """Check the devices and the store, fetch missing data sets, and choose the workers.

        Raises:
            SpecError: there are not enough devices for a cell.
            StoreError: the results folder cannot be written.
            DatasetError: a data set is missing and cannot be downloaded, or is broken.
        """
        from codingbench.runtime.devices import warm_up

        settings, options = self.settings, self.options
        workers, threads = self.pack()
        if self.executor.runs_here(workers) and settings.devices == 1:
            warm_up(self.device)
        # These import pandas, meanwhile.
        from codingbench.cells.data import find_sources
        from codingbench.cells.run import RunConfig, keyed
        from codingbench.executors.limit import TimeLimit
        from codingbench.training.graphs import tell_once

        store = self.store
        store.check_writable()
        for line in self._about_own_plugins():
            tell_once(line)
        sources = find_sources(self.jobs, settings.grid.data_dir)
        for source in sources.values():
            if remark := source.remark():
                tell_once(remark)
        config = RunConfig(
            grid=settings.grid,
            results=store.folder.resolve(),
            device=str(self.device),
            fingerprints={name: source.fingerprint() for name, source in sources.items()},
            neurons=options.neurons,
            threads=threads,
            decoders=settings.decoders,
            devices=settings.devices,
            is_deterministic=self.is_deterministic,
            names_host=options.names_host,
            keeps_weights=options.keeps_weights,
            force=options.force,
            graphs=options.graphs,
            tests_each_epoch=options.tests_each_epoch,
        )
        jobs = keyed(self.jobs, config.fingerprints)
        limit = TimeLimit(settings.time_limit_s or math.inf, self.started)
        executor = self.executor.executor(workers, limit)
        return PreparedRun(config, jobs, store, executor, limit, options.logs)

    def _about_own_plugins(self) -> Iterator[str]:
        """Keep the sources of plug-ins that do not ship; yield what the user should know."""
        from codingbench.cells.older import cells_of_other_code
        from codingbench.plugins.keeping import keep_sources, own

        plugins = [plugin for job in self.jobs for plugin in job.plugins()]
        if own(plugins):
            yield from keep_sources(plugins, self.store.folder)
            yield from cells_of_other_code(self.jobs, self.store)


def plan(
    settings: RunSettings,
    options: RunOptions | None = None,
    executor: ExecutorConfig | None = None,
) -> Plan:
    """Expand and check a run request; nothing is trained, fetched or written.

    Raises:
        SpecError: a name, parameter or bound is not valid, a class would have no image, a plug-in
            refuses its parameters, T or the images, the device does not exist, or the executor
            knows no time limit.
    """
    started, executor = time.monotonic(), executor or ExecutorConfig()
    if settings.time_limit_s:
        executor.check_time_limit(settings.devices)
    jobs = settings.grid.expand()
    # These import torch. A wrong name was refused before.
    from codingbench.cells.data import check_classes
    from codingbench.cells.network import check_plugins, check_smallest_batches
    from codingbench.runtime.devices import resolve_device

    device = resolve_device(settings.device)
    check_classes(jobs)
    check_plugins(jobs)
    check_smallest_batches(jobs)
    return Plan(settings, jobs, device, options or RunOptions(), executor, started)
