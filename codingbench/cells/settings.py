"""Settings of a run, from a TOML file and from options: read, parsed and checked.

Names are those of the command's options, with ``_`` for ``-``. Options win over the file.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from codingbench.cells.grid import Grid
from codingbench.errors import SpecError, unknown
from codingbench.plugins.specs import split_list
from codingbench.runtime.paths import data_folder, user_path
from codingbench.runtime.toml_files import read_toml
from codingbench.store.folder import DEFAULT_FOLDER

GRID_FIELDS = {
    "encoders": "encoders",
    "backbones": "backbones",
    "neurons": "neurons",
    "dataset": "datasets",
    "T": "num_steps",
    "recipe": "recipes",
    "seeds": "seeds",
    "epochs": "epochs",
    "batch_size": "batch_size",
    "micro_batch": "micro_batch",
    "train_samples": "train_samples",
    "test_samples": "test_samples",
    "precision": "precision",
    "data_dir": "data_dir",
}
"""Name of a setting on the command line or in the file -> field of :class:`Grid`."""

OTHER_SETTINGS = (
    "results",
    "device",
    "devices",
    "workers",
    "threads",
    "decoders",
    "time_limit",
)
MOST_SEEDS = 1000
_AMOUNT = r"(\d{1,9}(?:\.\d{1,9})?)"
_DURATION = re.compile(rf"(?:{_AMOUNT}h)?(?:{_AMOUNT}m)?(?:{_AMOUNT}s?)?", re.ASCII)
_NUMBERS = 2**63  # the tables hold whole numbers below this
_LISTS = {"encoders", "backbones", "neurons", "dataset", "recipe"}
_NUMERIC = {"T", "seeds"}
_BOUNDS = {"epochs", "batch_size", "micro_batch", "train_samples", "test_samples"}


def read_config(path: Path | None) -> dict[str, Any]:
    """Read the settings of a TOML file; without a file there are none.

    Raises:
        SpecError: the file cannot be read, names a setting that does not exist, or has a value that
            cannot be parsed.
    """
    if path is None:
        return {}
    _, settings = read_toml(path, "configuration")
    known = (*GRID_FIELDS, *OTHER_SETTINGS)
    for name in settings:
        if name not in known:
            raise SpecError(unknown(f"setting in {path}:", name, known))
    try:
        parse_settings(settings)
    except SpecError as error:
        raise SpecError(f"in {path}: {error}") from None
    return settings


@dataclass(frozen=True)
class RunSettings:
    """A grid, the folder of its results, and the resources that its cells get.

    Args:
        grid: the cells to run.
        results: folder of the store.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        devices: number of devices that train each cell.
        workers: cells that run at the same time; None: chosen for speed.
        threads: CPU threads of each cell; None: chosen from the number of cells.
        decoders: processes of each cell that decode photographs; 0: the cell's own process; None:
            chosen from the number of cores.
        time_limit_s: seconds after which the run ends, at an epoch's end; None: no limit.
    """

    grid: Grid = field(default_factory=Grid)
    results: Path = field(default_factory=lambda: user_path(DEFAULT_FOLDER))
    device: str = "auto"
    devices: int = 1
    workers: int | None = None
    threads: int | None = None
    decoders: int | None = None
    time_limit_s: float | None = None


def parse_settings(settings: Mapping[str, Any]) -> RunSettings:
    """Parse settings by name, each given as text ("2,4"), as a number or as a list.

    Names are those of the command's options and of the configuration file. A setting that is
    missing or None has its default.

    Raises:
        SpecError: a value cannot be parsed, or is out of its range.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    return RunSettings(
        grid=make_grid(given),
        results=user_path(text_setting(given, "results", str(DEFAULT_FOLDER))),
        device=text_setting(given, "device", "auto"),
        devices=count_setting(given, "devices") or 1,
        workers=count_setting(given, "workers"),
        threads=count_setting(given, "threads"),
        decoders=count_setting(given, "decoders", least=0),
        time_limit_s=duration_setting(given, "time_limit"),
    )


def make_grid(settings: Mapping[str, Any]) -> Grid:
    """Parse the grid of the settings, each given as text ("2,4"), as a number, or as a list.

    Raises:
        SpecError: a value cannot be parsed.
    """
    given = {
        GRID_FIELDS[name]: _read(name, value)
        for name, value in settings.items()
        if name in GRID_FIELDS and value is not None
    }
    if folder := data_folder(given.get("data_dir")):
        given["data_dir"] = folder  # also for processes on other machines
    return Grid(**given)


def _read(name: str, value: Any) -> Any:
    if name in _LISTS:
        return tuple(_texts(name, value))
    if name == "T":
        return tuple(_whole(name, text) for text in _texts(name, value))
    if name == "seeds":
        return _seeds(value)
    if name in _BOUNDS:
        return _whole(name, value)
    return user_path(_text(name, value)) if name == "data_dir" else _text(name, value)


def text_setting(settings: Mapping[str, Any], name: str, default: str) -> str:
    """Return a setting that is text, or ``default`` if it is missing.

    Raises:
        SpecError: the value is not text, or is empty.
    """
    return _text(name, settings.get(name, default))


def count_setting(settings: Mapping[str, Any], name: str, least: int = 1) -> int | None:
    """Return a setting that is a whole number, or None if it is missing.

    Raises:
        SpecError: the value is not a whole number of at least ``least``.
    """
    if name not in settings:
        return None
    count = _whole(name, settings[name])
    if count < least:
        raise SpecError(f"{name} must be at least {least}, got {count}")
    return count


def number_setting(settings: Mapping[str, Any], name: str, least: float = 0) -> float | None:
    """Return a setting that is a finite number, or None if it is missing.

    Raises:
        SpecError: the value is not a finite number of at least ``least``.
    """
    if name not in settings:
        return None
    try:
        value = float(settings[name])
    except ValueError:
        value = math.nan
    if not least <= value < math.inf:
        raise SpecError(f"{name} must be a number of at least {least:g}, got {settings[name]!r}")
    return value


def duration_setting(settings: Mapping[str, Any], name: str) -> float | None:
    """Return a time in seconds, given as a number of seconds or as text; None if it is missing.

    >>> [duration_setting({"t": text}, "t") for text in ("90s", "12m", "1h30m", "45", 2.5)]
    [90.0, 720.0, 5400.0, 45.0, 2.5]

    Raises:
        SpecError: the value is not a time of at least one second.
    """
    if name not in settings:
        return None
    value = settings[name]
    text = "" if isinstance(value, bool) else str(value).strip()
    parts = _DURATION.fullmatch(text)
    hours, minutes, seconds = (float(part or 0) for part in parts.groups()) if parts else (0, 0, 0)
    total = 3600 * hours + 60 * minutes + seconds
    if not 1 <= total < math.inf:
        raise SpecError(f"{name} expects a time such as 90s, 12m or 1h30m, got {value!r}")
    return total


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise SpecError(f"{name} expects text, got {value!r}")
    if "\0" in value:
        raise SpecError(f"{name} must not contain a NUL character, got {value!r}")
    return value


def _seeds(value: Any) -> tuple[int, ...]:
    """Parse a list of seeds, or a number n, which stands for the seeds 0 to n - 1."""
    if isinstance(value, list) or "," in str(value):
        texts = _texts("seeds", value[:-1] if str(value).endswith(",") else value)
        seeds = tuple(_whole("seeds", text) for text in texts)
    else:
        count = _whole("seeds", value)
        if not 1 <= count <= MOST_SEEDS:
            raise SpecError(
                f"the number of seeds must be from 1 to {MOST_SEEDS}, got {value!r}; "
                f"write a comma to give a list of seeds: '{abs(count)},'"
            )
        seeds = tuple(range(count))
    return seeds


def _texts(name: str, value: Any) -> list[str]:
    if isinstance(value, list):
        if not value:
            raise SpecError(f"{name} is an empty list: expected at least one entry")
        return [str(entry) for entry in value]
    if not isinstance(value, str if name in _LISTS else str | int):
        expected = "whole numbers" if name in _NUMERIC else "text or a list"
        raise SpecError(f"{name} expects {expected}, got {value!r}")
    if not str(value).strip():
        raise SpecError(f"{name} is empty: expected at least one entry")
    return split_list(str(value))


def _whole(name: str, value: Any) -> int:
    try:
        if isinstance(value, bool | float):
            raise ValueError
        number = int(value)
    except (TypeError, ValueError):
        raise SpecError(f"{name} expects a whole number, got {value!r}") from None
    if abs(number) >= _NUMBERS:
        raise SpecError(f"{name} expects a whole number below 2^63, got {value!r}")
    return number
