"""What runs the cells of an order, one after another, in whatever process it is made."""

import gc
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property, partial

import torch

from codingbench.cells.grid import Job
from codingbench.cells.reevaluation import kept_weights
from codingbench.cells.rows import failure_row
from codingbench.cells.run import Apart, CellListener, RunConfig, data_of, find_sources, run_job
from codingbench.datasets import Source, load_or_stream
from codingbench.datasets.images import ImageSplit
from codingbench.datasets.streaming import default_decoders
from codingbench.errors import CodingbenchError, one_line
from codingbench.executors.base import CellOutcome
from codingbench.runtime.devices import conditions, keep_freed_memory
from codingbench.store.folder import Store
from codingbench.training.checkpoint import CHECKPOINTS, Checkpoints
from codingbench.training.loop import Data, Interrupted


class Worker:
    """Runs cells of one order; what several of them need is loaded once."""

    def __init__(self, order: RunConfig, jobs: Mapping[str, Job]) -> None:
        keep_freed_memory()
        self.order = order
        self.store = Store(order.results)
        self.jobs = jobs
        self._splits: dict[tuple[str, str, int, bool], ImageSplit] = {}

    def run(
        self, key: str, listener: CellListener, should_stop: Callable[[], bool] = lambda: False
    ) -> CellOutcome:
        """Run a cell unless it is finished or another process runs it; its result, or the reason
        of its failure, is then in the store.

        Raises:
            CodingbenchError: a data set is broken, or the store cannot be written.
            Interrupted: ``should_stop`` said so.
        """
        with self.store.claim(key) as is_mine:
            if not is_mine:
                return CellOutcome("held elsewhere")
            if not self.order.force and self.store.is_finished(key):
                return CellOutcome("finished before")
            return self._run(key, listener, should_stop)

    def _run(
        self, key: str, listener: CellListener, should_stop: Callable[[], bool]
    ) -> CellOutcome:
        job, order, data = self.jobs[key], self.order, self.data(key)
        checkpoints = Checkpoints(order.results / CHECKPOINTS, key)
        if order.force:
            checkpoints.clear()
        try:
            with conditions(order.threads, order.is_deterministic):
                apart = self._apart(key, listener, should_stop)
                tables, weights = run_job(
                    job, key, data, order, listener, checkpoints, should_stop, apart
                )
        except (CodingbenchError, Interrupted):
            raise
        except Exception as error:
            return self.record_failure(key, one_line(error), traceback.format_exc())
        finally:
            gc.collect()  # a network's reference cycles would stay until the next one is as large
        kept = kept_weights(self.store, key)
        kept.clear()
        if order.keeps_weights:
            kept.save({"weights": asdict(weights)})
        self.store.commit(key, tables)
        checkpoints.clear()
        return CellOutcome("done", tables["cells"][0])

    def _apart(
        self, key: str, listener: CellListener, should_stop: Callable[[], bool]
    ) -> Callable[[], Apart] | None:
        """What trains the cell on several devices, if that is asked for."""
        if self.order.devices == 1:
            return None
        from codingbench.executors.devices import train_on_devices  # which has workers itself

        return partial(train_on_devices, self.order, key, listener, should_stop)

    def data(self, key: str) -> Data:
        """The images of a cell, on the device.

        Raises:
            DatasetError: the data set is broken.
        """
        job = self.jobs[key]
        return data_of(job, self._split(job, "train"), self._split(job, "test"), self.device)

    def record_failure(self, key: str, reason: str, trace: str = "") -> CellOutcome:
        """Note in the store why a cell has no result.

        Raises:
            StoreError: the note cannot be written.
        """
        row = failure_row(self.jobs[key], key, reason, trace, datetime.now(UTC))
        self.store.record_failure(key, row)
        return CellOutcome("failed", reason=reason)

    @property
    def device(self) -> torch.device:
        """Where the cells run."""
        return torch.device(self.order.device)

    @cached_property
    def _sources(self) -> dict[str, Source]:
        return find_sources(list(self.jobs.values()), self.order.grid.data_dir)

    def _split(self, job: Job, name: str) -> ImageSplit:
        cell, is_train = job.cell, name == "train"
        crops = is_train and job.recipe.augment.resized_crop is not None
        wanted = cell.dataset, name, cell.train_samples if is_train else cell.test_samples, crops
        if wanted not in self._splits:
            decoders = self.order.decoders
            if decoders is None:
                decoders = default_decoders(self.device, self.order.threads)
            source = self._sources[cell.dataset]
            self._splits[wanted] = load_or_stream(source, *wanted[1:], decoders)
        return self._splits[wanted]
