"""The code that runs one cell after another, in whatever process it is created."""

import gc
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial

import torch

from codingbench.cells.data import DataCache
from codingbench.cells.grid import Job
from codingbench.cells.run import CellListener, DistributedTraining, RunConfig, run_job
from codingbench.cells.weights import kept_weights
from codingbench.errors import CodingbenchError, one_line
from codingbench.executors.base import CellOutcome, record_failure
from codingbench.executors.devices import train_on_devices
from codingbench.runtime.devices import conditions, keep_freed_memory
from codingbench.store.folder import Store
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
        self._data = DataCache(
            jobs=list(jobs.values()),
            data_dir=config.grid.data_dir,
            device=torch.device(config.device),
            decoders=config.decoders,
            threads=config.threads,
        )

    def run(
        self, key: str, listener: CellListener, should_stop: Callable[[], bool] = lambda: False
    ) -> CellOutcome:
        """Run a cell, unless it is finished or another process runs it.

        Its result, or the reason of its failure, is then in the store.

        Raises:
            CodingbenchError: a data set is broken, or the store cannot be written.
            Interrupted: ``should_stop`` returned true.
        """
        with self.store.claim(key) as is_mine:
            if not is_mine:
                return CellOutcome("held elsewhere")
            if not self.config.force and self.store.is_finished(key):
                return CellOutcome("finished before")
            return self._run(key, listener, should_stop)

    def _run(
        self, key: str, listener: CellListener, should_stop: Callable[[], bool]
    ) -> CellOutcome:
        job, config = self.jobs[key], self.config
        data = self._data.load(job)
        checkpoints = Checkpoints(config.results / CHECKPOINTS, key)
        if config.force:
            checkpoints.clear()
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
                )
        except (CodingbenchError, Interrupted):
            raise
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
        checkpoints.clear()
        return CellOutcome("done", tables["cells"][0])

    def _distributed(
        self, key: str, listener: CellListener, should_stop: Callable[[], bool]
    ) -> Callable[[], DistributedTraining] | None:
        if self.config.devices == 1:
            return None
        return partial(train_on_devices, self.config, key, listener, should_stop)
