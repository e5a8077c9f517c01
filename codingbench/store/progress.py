"""Notes about running cells and unfinished grids, in small files, for ``codingbench status``.

``checkpoints/<key>/progress.json`` is renewed every few seconds by the process that runs a cell.
``.runs/<id>.json`` names the cells of a grid from the start of a run until all of them have ended.
No result depends on these files: one that cannot be written or read is left out.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from codingbench.runtime.host import host_hash, is_gone
from codingbench.store.durable import discard, temporary_beside
from codingbench.store.layout import CHECKPOINTS
from codingbench.store.parts import is_key

BEAT_S: Final = 3.0
"""Seconds between two writes of a running cell's progress."""

SILENT_S: Final = 60.0
"""Age of a progress from which its process is taken to be gone."""

_MISSED_S: Final = 4 * BEAT_S  # age from which a process of this machine is looked for
_RUNS: Final = ".runs"
_PROGRESS: Final = "progress.json"
_MOST_BYTES: Final = 64 * 2**20  # 100,000 cells take less than half of it

Model = TypeVar("Model", bound=BaseModel)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control characters")
    return text


Key = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$")]
Line = Annotated[str, StringConstraints(max_length=1000), AfterValidator(_printable)]
Count = Annotated[int, Field(ge=0, lt=2**53)]
Number = Annotated[float, Field(ge=0, lt=1e15, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class CellName(_Record):
    """The coordinates of a cell that tell it from the others of a grid."""

    dataset: Line
    encoder: Line
    backbone: Line
    neuron: Line = "default"
    num_steps: Count
    recipe: Line
    epochs: Count
    seed: Count


class CellProgress(_Record):
    """The progress of a cell at one moment; None is what is not known yet."""

    key: Key
    name: CellName
    state: Literal["running", "stopped"]
    phase: Literal["starting", "training", "measuring"] = "starting"
    epoch: Count = 0
    """The running epoch, 1-based; 0 before the first one."""
    done: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the training that is done."""
    loss: Annotated[float, Field(allow_inf_nan=False)] | None = None
    train_accuracy: Annotated[float, Field(ge=0, le=1)] | None = None
    images_per_s: Number | None = None
    left_s: Number | None = None
    """Expected seconds to the end of the cell."""
    updated_at: datetime
    host: Line | None = None
    pid: Count

    def is_running(self, now: datetime) -> bool:
        """Return whether a process is working on the cell, as far as can be told from here."""
        moment = self.updated_at
        age = (now - (moment if moment.tzinfo else moment.replace(tzinfo=UTC))).total_seconds()
        if self.state == "stopped" or age > SILENT_S:
            return False
        return not (age > _MISSED_S and self.host == host_hash() and is_gone(self.pid))


class GridRecord(_Record):
    """The cells of a grid that a run has begun, by key."""

    cells: dict[Key, CellName]


def write_progress(folder: Path, progress: CellProgress) -> None:
    """Write a cell's progress into the store of that folder, whole or not at all."""
    _write(folder / CHECKPOINTS / progress.key / _PROGRESS, progress)


def progress_of(folder: Path, key: str) -> CellProgress | None:
    """Return the last progress of a cell, or None if there is none that can be read."""
    progress = _read(folder / CHECKPOINTS / key / _PROGRESS, CellProgress)
    return progress if progress and progress.key == key else None


def remove_progress(folder: Path, key: str) -> None:
    """Remove a cell's progress, and its folder if that is empty."""
    path = folder / CHECKPOINTS / key / _PROGRESS
    discard(path)
    with contextlib.suppress(OSError):
        path.parent.rmdir()


def read_progress(folder: Path) -> dict[str, CellProgress | None]:
    """Return the progress of each cell that has begun and not ended, by key.

    A cell with checkpoints and without a readable progress has None.
    """
    found: dict[str, CellProgress | None] = {}
    for path in filter(lambda path: is_key(path.name), _listed(folder / CHECKPOINTS)):
        progress = progress_of(folder, path.name)
        if progress or any(path.glob("[0-9]*.ckpt")):
            found[path.name] = progress
    return found


def write_grid(folder: Path, cells: Mapping[str, CellName]) -> None:
    """Note that a run works on these cells; the same cells have one note."""
    _write(_grid_path(folder, cells), GridRecord(cells=dict(cells)))


def remove_grid(folder: Path, cells: Mapping[str, CellName]) -> None:
    """Remove the note about these cells."""
    path = _grid_path(folder, cells)
    discard(path)
    with contextlib.suppress(OSError):
        path.parent.rmdir()


def read_grids(folder: Path) -> list[dict[str, CellName]]:
    """Return the cells of every grid that a run has begun and not completed, by key."""
    paths = [path for path in _listed(folder / _RUNS) if path.suffix == ".json"]
    records = (_read(path, GridRecord) for path in paths)
    return [record.cells for record in records if record]


def _grid_path(folder: Path, cells: Mapping[str, CellName]) -> Path:
    digest = hashlib.sha256(" ".join(sorted(cells)).encode()).hexdigest()
    return folder / _RUNS / f"{digest[:12]}.json"


def _listed(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _write(path: Path, record: BaseModel) -> None:
    """Replace a file; a disk that is full or read-only must not disturb a training."""
    temporary = temporary_beside(path)
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(record.model_dump_json(), encoding="utf-8")
        os.replace(temporary, path)
    discard(temporary)


def _read(path: Path, kind: type[Model]) -> Model | None:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        return kind.model_validate_json(content) if len(content) <= _MOST_BYTES else None
    except (OSError, ValueError, RecursionError):
        return None
