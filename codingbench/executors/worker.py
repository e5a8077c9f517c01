"""The code that runs one cell after another, in whatever process it is created."""

import gc
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial

import torch

from codingbench.cells.data import DataCache
from codingbench.cells.estimate import epoch_seconds
from codingbench.cells.grid import Job
from codingbench.cells.run import CellListener, DistributedTraining, RunConfig, run_job
from codingbench.cells.weights import kept_weights
from codingbench.errors import CodingbenchError, one_line
from codingbench.executors.base import CellOutcome, record_failure
from codingbench.executors.devices import train_on_devices
from codingbench.executors.heartbeat import Heartbeat
from codingbench.runtime.devices import conditions, keep_freed_memory
from codingbench.store.folder import Store
from codingbench.training.budget import Allowance, OutOfTime, TimeBudget
from codingbench.training.checkpoint import CHECKPOINTS, Checkpoints
from codingbench.training.loop import Interrupted


class Worker:
    """Runs cells of one grid; images that several of them need are loaded once.

    Args:
        config: the grid and how to run it.
        jobs: the jobs of the cells, by key.
    """

    def __init__(self, config: RunConfig, jobs: Mapping[str, Job]) -> None:
        keep_freed_memory()
        self.config, self.jobs = config, jobs
        self.store = Store(config.results)
        self._estimates: dict[object, float] = {}  # seconds of an epoch, by kind of cell
        self._data = DataCache(
            jobs=list(jobs.values()),
            data_dir=config.grid.data_dir,
            device=torch.device(config.device),
            decoders=config.decoders,
            threads=config.threads,
        )

    def run(
        self,
        key: str,
        listener: CellListener,
        should_stop: Callable[[], bool] = lambda: False,
        allowance: Allowance | None = None,
    ) -> CellOutcome:
        """Run a cell, unless it is finished or another process runs it.

        Its result, or the reason of its failure, is then in the store. With an allowance, the cell
        may also be paused, with its progress in its checkpoints.

        Raises:
            CodingbenchError: a data set is broken, or the store cannot be written.
            Interrupted: ``should_stop`` returned true.
        """
        with self.store.claim(key) as is_mine:
            if not is_mine:
                return CellOutcome("held elsewhere")
            if not self.config.force and self.store.is_finished(key):
                return CellOutcome("finished before")
            checkpoints = Checkpoints(self.config.results / CHECKPOINTS, key)
            if self.config.force:
                checkpoints.clear()
            job, names_host = self.jobs[key], self.config.names_host
            with Heartbeat(listener, self.store.folder, key, job, names_host) as heard:
                outcome = self._run(key, heard, checkpoints, should_stop, allowance)
            if outcome.ending == "done":
                checkpoints.clear()
            return outcome

    def _run(
        self,
        key: str,
        listener: CellListener,
        checkpoints: Checkpoints,
        should_stop: Callable[[], bool],
        allowance: Allowance | None,
    ) -> CellOutcome:
        job, config = self.jobs[key], self.config
        data = self._data.load(job)
        budget = self._budget(job, checkpoints, allowance)
        gc.freeze()  # the collection below then looks only at the objects of this cell
        try:
            with conditions(config.threads, config.is_deterministic):
                tables, weights = run_job(
                    job,
                    key,
                    data,
                    config,
                    listener,
                    checkpoints=checkpoints,
                    should_stop=should_stop,
                    train_elsewhere=self._distributed(key, listener, should_stop),
                    budget=budget,
                )
        except (CodingbenchError, Interrupted):
            raise
        except OutOfTime as late:
            return CellOutcome("paused", reason=str(late))
        except Exception as error:
            return record_failure(self.store, job, key, one_line(error), traceback.format_exc())
        finally:
            gc.collect()  # networks hold reference cycles: each would stay beside the next
            gc.unfreeze()
        kept = kept_weights(self.store, key)
        kept.clear()
        if config.keeps_weights:
            kept.save({"weights": asdict(weights)})
        self.store.commit(key, tables)
        return CellOutcome("done", tables["cells"][0])

    def _budget(
        self, job: Job, checkpoints: Checkpoints, allowance: Allowance | None
    ) -> TimeBudget | None:
        """Return the time of a cell; its first epoch is estimated if nothing else is known."""
        if allowance is None:
            return None
        if allowance.epoch_s is None and not checkpoints.exist():
            kind = job.encoder, job.backbone, job.neuron, replace(job.cell, seed=0)
            if kind not in self._estimates:
                device, threads = torch.device(self.config.device), self.config.threads
                with (
                    suppress(Exception),  # of the plug-in: the training will report it
                    conditions(threads, self.config.is_deterministic),
                ):
                    self._estimates[kind] = epoch_seconds(job, device)
            allowance = replace(allowance, epoch_s=self._estimates.get(kind))
        return TimeBudget(allowance)

    def _distributed(
        self, key: str, listener: CellListener, should_stop: Callable[[], bool]
    ) -> Callable[[], DistributedTraining] | None:
        if self.config.devices == 1:
            return None
        return partial(train_on_devices, self.config, key, listener, should_stop)
