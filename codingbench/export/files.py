"""One finished cell as files for other tools."""

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
from codingbench.runtime.formatting import records
from codingbench.store.durable import discard, sync_folder, temporary_beside, write_through
from codingbench.store.folder import Store
from codingbench.store.lookup import find
from codingbench.store.plausible import read

Check = Callable[[Path], tuple[str, ...]]
"""Reads a file that was written: what is known of it then, a sentence each."""


@dataclass(frozen=True)
class Exported:
    """What was written, and what reading it back has shown, a sentence each."""

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
) -> Exported:
    """Write the network of a finished cell, and beside it a model card.

    The file gets its name once it is whole and was read back: a torch file must hold the same
    tensors, a NIR graph must give the same spikes and logits (:mod:`codingbench.export.agreement`).

    Args:
        store: where the cell is.
        cell: its key, or the beginning of it.
        form: ``state_dict`` or ``nir``.
        output: the file; None: the key with ``.pt`` or ``.nir``, in the working folder.
        is_selected: weights of the epoch with the best validation accuracy, not of the last.
        data_dir: where its data set is.
        force: files that are there already are replaced.

    Raises:
        SpecError: no such format or cell, a file is there already, NIR cannot say what the network
            does, or its plug-ins, recipe or data are not what they were.
        CodingbenchError: its weights were not kept, or a file cannot be written.
        DatasetError: its data set is not to be had.
    """
    if form not in FORMATS:
        raise SpecError(unknown("format", form, FORMATS))
    if form == "nir" and importlib.util.find_spec("nir") is None:
        raise SpecError("--format nir needs the package nir: pip install 'codingbench[nir]'")
    key = find(store, cell)
    path = output or Path(f"{key}{'-selected' if is_selected else ''}.{_SUFFIXES[form]}")
    card = path.with_name(f"{path.name}.MODEL_CARD.md")
    _check_targets([path, card], force)
    kept = restore(store, key, data_dir)
    network = kept.network(is_selected)
    (row,) = records(read(store, "cells", [key]))
    model = Model(row, kept.job, is_selected, path.name)
    data, check = FORMATS[form](network, model, data_dir)
    try:
        shown = _write(path, data, check)
        _write(card, model_card(form, model, shown).encode(), lambda written: ())
    except OSError as error:
        reason = error.strerror or str(error)
        raise StoreError(f"cannot write into {str(path.parent)!r}: {reason}") from error
    return Exported(path, card, shown)


def _check_targets(paths: list[Path], force: bool) -> None:
    folder = paths[0].parent
    if not folder.is_dir():
        raise SpecError(f"no folder {str(folder)!r} to write {paths[0].name!r} into")
    for path in paths:
        if path.is_dir():
            raise SpecError(f"{str(path)!r} is a folder, expected the name of a file")
        if path.exists() and not force:
            raise SpecError(f"{str(path)!r} is there already; --force replaces it")


def _write(path: Path, data: bytes, check: Check) -> tuple[str, ...]:
    """Beside its place, then renamed there if it passes the check."""
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
            raise StoreError(f"{model.file} does not hold, read back, what was written")
        return (f"Read back, its {len(state)} tensors are those of the network.",)

    return buffer.getvalue(), check


def _nir(network: Network, model: Model, data_dir: Path | None) -> tuple[bytes, Check]:
    from codingbench.export.nir_file import checked_by_running, nir_bytes

    return nir_bytes(network, model, data_dir), checked_by_running(network, model, data_dir)


FORMATS: Final[dict[str, Callable[[Network, Model, Path | None], tuple[bytes, Check]]]] = {
    "nir": _nir,
    "state_dict": _state_dict,
}
"""What ``--format`` takes -> the file's bytes, and what looks at it once it is written."""

_SUFFIXES: Final = {"nir": "nir", "state_dict": "pt"}
