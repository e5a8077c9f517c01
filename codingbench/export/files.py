"""Export one finished cell as files for other tools."""

import importlib.util
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from codingbench.backbone import Network
from codingbench.cells.weights import restore
from codingbench.errors import SpecError, StoreError, unknown
from codingbench.export.card import model_card
from codingbench.export.model import Model
from codingbench.plugins.loading import NOTHING_SAID, OwnCode
from codingbench.runtime.formatting import records
from codingbench.store.durable import discard, sync_folder, temporary_beside, write_through
from codingbench.store.folder import Store
from codingbench.store.lookup import find
from codingbench.store.plausible import read
from codingbench.training.graphs import tell_once

Check = Callable[[Path], tuple[str, ...]]
"""Reads a written file back, and returns sentences about what this has verified."""


@dataclass(frozen=True)
class Exported:
    """The exported file, its model card, and sentences about what reading it back has verified."""

    path: Path
    card: Path
    shown: tuple[str, ...]


def export(
    store: Store,
    cell: str,
    form: str,
    output: Path | None = None,
    is_selected: bool = False,
    data_dir: Path | None = None,
    force: bool = False,
    own: OwnCode = NOTHING_SAID,
) -> Exported:
    """Write the network of a finished cell to a file, with a model card beside it.

    The file is read back before it gets its name: a torch file must hold the same tensors, and a
    NIR graph must give the same spikes and logits (:mod:`codingbench.export.agreement`).

    Args:
        store: results folder that holds the cell.
        cell: key of the cell, or its first 4 or more characters.
        form: ``state_dict`` or ``nir``.
        output: path of the file; by default the key with ``.pt`` or ``.nir``, in the working
            folder.
        is_selected: export the weights of the epoch with the best validation accuracy instead of
            those after the last epoch.
        data_dir: folder of the data sets; None for the default.
        force: replace existing files.
        own: what the user says about plug-ins that do not ship with codingbench.

    Raises:
        SpecError: the format or cell is unknown, a file exists already, NIR cannot express the
            network, or the cell's plug-ins, recipe or data have changed.
        CodingbenchError: the weights of the cell were not kept, or a file cannot be written.
        DatasetError: the data set cannot be found or downloaded.
    """
    if form not in FORMATS:
        raise SpecError(unknown("format", form, FORMATS))
    if form == "nir" and importlib.util.find_spec("nir") is None:
        raise SpecError("--format nir needs the package nir: pip install 'codingbench[nir]'")
    key = find(store, cell)
    path = output or Path(f"{key}{'-selected' if is_selected else ''}.{_SUFFIXES[form]}")
    card = path.with_name(f"{path.name}.MODEL_CARD.md")
    _check_targets([path, card], force)
    kept = restore(store, key, data_dir, own)
    for line in kept.changed:
        tell_once(line)
    network = kept.network(is_selected)
    (row,) = records(read(store, "cells", [key]))
    model = Model(row, kept.job, is_selected, path.name, store.folder)
    data, check = FORMATS[form](network, model, data_dir)
    try:
        shown = _write(path, data, check)
        _write(card, model_card(form, model, shown).encode(), lambda written: ())
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"cannot write to the folder {str(path.parent)!r}: {reason}") from error
    return Exported(path, card, shown)


def _check_targets(paths: list[Path], force: bool) -> None:
    folder = paths[0].parent
    if not folder.is_dir():
        raise SpecError(f"cannot write {paths[0].name!r}: there is no folder {str(folder)!r}")
    for path in paths:
        if path.is_dir():
            raise SpecError(f"the output must be a file, but {str(path)!r} is a folder")
        if path.exists() and not force:
            raise SpecError(f"{str(path)!r} exists already; use --force to replace it")


def _write(path: Path, data: bytes, check: Check) -> tuple[str, ...]:
    """Write to a temporary file beside ``path``, check it, and rename it."""
    temporary = temporary_beside(path)
    try:
        write_through(temporary, data)
        shown = check(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        discard(temporary)
    return shown


def _state_dict(network: Network, model: Model, data_dir: Path | None) -> tuple[bytes, Check]:
    state, buffer = dict(network.state_dict()), io.BytesIO()
    torch.save(state, buffer)

    def check(written: Path) -> tuple[str, ...]:
        again: dict[str, Any] = torch.load(written, weights_only=True)
        same = [name for name in state if name in again and torch.equal(again[name], state[name])]
        if not len(same) == len(state) == len(again):
            raise StoreError(f"{model.file} was read back and does not hold what was written")
        return (f"The file was read back: its {len(state)} tensors equal those of the network.",)

    return buffer.getvalue(), check


def _nir(network: Network, model: Model, data_dir: Path | None) -> tuple[bytes, Check]:
    from codingbench.export.nir_file import checked_by_running, nir_bytes

    return nir_bytes(network, model, data_dir), checked_by_running(network, model, data_dir)


FORMATS: Final[dict[str, Callable[[Network, Model, Path | None], tuple[bytes, Check]]]] = {
    "nir": _nir,
    "state_dict": _state_dict,
}
"""Values of ``--format``, with the function that returns the file's bytes and its check."""

_SUFFIXES: Final = {"nir": "nir", "state_dict": "pt"}
