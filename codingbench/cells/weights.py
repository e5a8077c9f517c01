"""The weights of finished cells: where they are kept, and cells restored from them."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from codingbench.backbone import Network, move_network
from codingbench.cells.data import find_sources
from codingbench.cells.grid import Grid, Job
from codingbench.cells.network import network_of
from codingbench.datasets.own import is_python
from codingbench.errors import CodingbenchError, SpecError
from codingbench.plugins.adapter import is_of_library
from codingbench.plugins.loading import NOTHING_SAID, OwnCode, plugin_text
from codingbench.plugins.specs import ALTERNATIVES
from codingbench.registry import BACKBONES, DEFAULT_NEURON, ENCODERS, NEURONS
from codingbench.runtime.devices import conditions
from codingbench.runtime.paths import data_folder
from codingbench.store.folder import Store
from codingbench.store.layout import WEIGHTS as WEIGHTS
from codingbench.training.checkpoint import Checkpoints


@dataclass(frozen=True)
class Weights:
    """State of a trained network after the last epoch, and after the selected one.

    ``selected`` is None if the last epoch has the best validation accuracy.
    """

    last: dict[str, Tensor]
    selected: dict[str, Tensor] | None


@dataclass(frozen=True)
class LoadedCell:
    """A finished cell: its row of table ``cells``, its job, and its weights."""

    row: dict[str, Any]
    job: Job
    weights: Weights
    changed: tuple[str, ...] = ()
    """Plug-ins given by the user whose code is not the one that trained the cell, one line each."""

    def conditions(self) -> AbstractContextManager[None]:
        """Return a context in which torch has the threads and algorithms of the original run."""
        threads = self.row["threads"]
        return conditions(
            int(threads) if pd.notna(threads) else torch.get_num_threads(),
            bool(self.row["deterministic"]),
        )

    def network(self, is_selected: bool = False) -> Network:
        """Build the cell's network with its trained weights, on the CPU.

        Args:
            is_selected: load the weights of the epoch with the best validation accuracy, which
                may be the last one, instead of those of the last epoch.
        """
        network = network_of(self.job)
        selected = self.weights.selected if is_selected else None
        network.load_state_dict(selected or self.weights.last)
        return network

    def network_on(self, device: torch.device) -> Network:
        """Build the network after the last epoch, on a device, as it was trained and tested."""
        return move_network(self.network(), device, self.job.cell.precision)


def kept_weights(store: Store, key: str) -> Checkpoints:
    """Return the checkpoint that holds the weights of a finished cell, or would hold them."""
    return Checkpoints(store.folder / WEIGHTS, key)


def restore(
    store: Store, key: str, data_dir: Path | None, own: OwnCode = NOTHING_SAID
) -> LoadedCell:
    """Load a finished cell with its weights, if its plug-ins, recipe and data are unchanged.

    A plug-in that does not ship with codingbench is imported from the source that is kept with the
    results, if the user has run it on this machine or trusts it
    (:mod:`codingbench.plugins.loading`). One that the user gives may have other code than the one
    that trained the cell, as ``changed`` then says.

    Raises:
        SpecError: no such cell is finished, its plug-ins, recipe or data have changed, or the
            source of a plug-in is missing or not trusted.
        CodingbenchError: its weights were not kept.
        DatasetError: its data set is missing and cannot be downloaded.
    """
    cells = store.read("cells", [key])
    if cells.empty:
        raise SpecError(f"no finished cell {key!r} in {str(store.folder)!r}")
    row = {str(name): value for name, value in cells.iloc[0].items()}
    state = kept_weights(store, key).load()
    if state is None:
        raise CodingbenchError(f"the weights of {key} were not kept in {str(store.folder)!r}")
    job, changed = _job_of(row, data_dir, store.folder, own)
    return LoadedCell(row, job, Weights(**state["weights"]), changed)


def _job_of(
    row: Mapping[str, Any], data_dir: Path | None, results: Path, own: OwnCode
) -> tuple[Job, tuple[str, ...]]:
    """Make the job that gave the row, and check that it still has the row's key.

    Also return one line for each plug-in that the user gave and whose code is another one.
    """
    _refuse_foreign_names(row)
    if is_python(row["dataset"]) and data_folder(data_dir) is None:
        raise SpecError(
            f"{row['key']}: its data set {row['dataset']!r} is made by running a file: name the"
            " folder of your copy by --data-dir"
        )
    with (
        plugin_text(ENCODERS, row, results, own) as encoder,
        plugin_text(BACKBONES, row, results, own) as backbone,
        _neuron_text(row, results, own) as neuron,
    ):
        (job,) = _grid_of(row, encoder, backbone, neuron, data_dir).expand()
    fingerprint = find_sources([job], data_dir)[job.cell.dataset].fingerprint()
    key = job.key(fingerprint)
    if key == row["key"]:
        return job, ()
    if own.plugins and _with_code_of(row, job).key(fingerprint) == row["key"]:
        return job, tuple(_changed(row, job))
    raise SpecError(
        f"{row['key']} cannot be measured again: its plug-ins, recipe, data or the engine have "
        f"changed since (the same cell would now have the key {key})"
    )


def _with_code_of(row: Mapping[str, Any], job: Job) -> Job:
    """Return the job as if its plug-ins had the code that trained the cell."""
    kinds = ("encoder", "backbone", *(["neuron"] if job.neuron else []))
    return replace(
        job, **{kind: replace(getattr(job, kind), code=row[f"{kind}_code"]) for kind in kinds}
    )


def _changed(row: Mapping[str, Any], job: Job) -> Iterator[str]:
    for kind, plugin in zip(("encoder", "backbone", "neuron"), job.plugins(), strict=False):
        if plugin.code != (before := row[f"{kind}_code"]):
            yield (
                f"{row['key']}: the {kind} {plugin.label!r} has the hash {plugin.code}, and "
                f"{before} trained the cell; codingbench run trains a cell with the new code"
            )


def _refuse_foreign_names(row: Mapping[str, Any]) -> None:
    """Refuse names that would import a file or module: stores may come from strangers."""
    for axis in ("encoder", "backbone", "neuron"):
        names_place = ":" in row[axis].partition("[")[0] and not is_of_library(row[axis])
        if names_place or ALTERNATIVES in row[axis]:
            raise SpecError(f"{row['key']}: {row[axis]!r} is not the label of a single {axis}")
    if ALTERNATIVES in row["dataset"] or "/" in row["dataset"]:
        raise SpecError(f"{row['key']}: {row['dataset']!r} is not the name of a data set")


def _neuron_text(
    row: Mapping[str, Any], results: Path, own: OwnCode
) -> AbstractContextManager[str]:
    if row["neuron"] == DEFAULT_NEURON:
        return nullcontext(DEFAULT_NEURON)
    return plugin_text(NEURONS, row, results, own)


def _grid_of(
    row: Mapping[str, Any], encoder: str, backbone: str, neuron: str, data_dir: Path | None
) -> Grid:
    return Grid(
        encoders=(encoder,),
        backbones=(backbone,),
        neurons=(neuron,),
        datasets=(row["dataset"],),
        num_steps=(int(row["num_steps"]),),
        recipes=(row["recipe"],),
        seeds=(int(row["seed"]),),
        epochs=int(row["epochs"]),
        batch_size=int(row["batch_size"]),
        micro_batch=int(row["micro_batch"]),
        train_samples=int(row["train_samples"]),
        test_samples=int(row["test_samples"]),
        precision=row["precision"],
        data_dir=data_dir,
    )
