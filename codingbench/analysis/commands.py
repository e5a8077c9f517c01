"""The command lines that run the cells of a row again, and remarks about them."""

import os
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from codingbench.datasets import catalogue
from codingbench.errors import StoreError
from codingbench.plugins import kept
from codingbench.plugins.specs import plain_name
from codingbench.recipes import recipe_names
from codingbench.registry import BACKBONES, DEFAULT_NEURON, ENCODERS, NEURONS, Registry
from codingbench.runtime.paths import as_typed

_OPTIONS: Final = {
    "encoders": "encoder",
    "backbones": "backbone",
    "neurons": "neuron",
    "dataset": "dataset",
    "T": "num_steps",
    "seeds": "seed",
    "recipe": "recipe",
    "epochs": "epochs",
    "batch-size": "batch_size",
    "micro-batch": "micro_batch",
    "train-samples": "train_samples",
    "test-samples": "test_samples",
    "precision": "precision",
}
"""The options of ``codingbench run`` and the column of ``cells`` that each sets."""

_AXES: Final = ((ENCODERS, "encoders"), (BACKBONES, "backbones"), (NEURONS, "neurons"))
_CIRCUMSTANCES: Final = ["device", "devices", "threads", "neuron_backend", "deterministic"]
"""The columns that decide the last bits of a result but are not coordinates."""

_SOFTWARE: Final = ["codingbench_version", "git_commit", "git_dirty", "torch_version"]
_NEURONS: Final = {"compiled": "--compile", "fused": "--compile", "eager": "--no-compile"}
_PLUGIN_PLACE: Final = (
    "replace the name by its file, ./FILE.py:Class, unless an installed package publishes it"
)
_KEPT_PLACE: Final = (
    "the commands run the source that is kept with the results: if it is not yours, read it first"
)
_RECIPE_PLACE: Final = "replace the name by its file, ./NAME.toml"
_DATA_PLACE: Final = "give its folder by --data-dir, unless an installed package publishes it"


def commands(cells: Iterable[Mapping[Any, Any]], results: Sequence[Path] = ()) -> list[str]:
    """Return the command lines that run the cells of one row again, with every option explicit.

    There is one command for all seeds that were run in the same circumstances: devices, threads,
    backend of the neurons and deterministic algorithms, as far as they are known. With the same
    code, data, versions and kind of machine, the numbers are the same to the last bit.

    Args:
        cells: rows of the table ``cells``, at least one, whose coordinates differ only in the seed.
        results: folders of the stores. Plug-ins whose source is kept there are named by its file.
    """
    together: dict[tuple[str, ...], list[Mapping[Any, Any]]] = {}
    for cell in sorted(cells, key=lambda cell: int(cell["seed"])):
        together.setdefault(tuple(_circumstances(cell)), []).append(cell)
    return [_command(alike, circumstances, results) for circumstances, alike in together.items()]


def more_seeds(rows: pd.DataFrame, seeds: int) -> list[str]:
    """Return the command lines that run codings with several seeds and all else as before.

    There is one command for all codings of the same T.

    Args:
        rows: rows of one group of the leaderboard.
        seeds: the number of seeds.
    """
    by_steps: dict[str, list[str]] = {}
    for encoder, steps in rows.groupby("encoder", sort=False)["num_steps"]:
        by_steps.setdefault(",".join(map(str, sorted(steps))), []).append(str(encoder))
    return [_more_seeds(rows, ",".join(names), T, seeds) for T, names in by_steps.items()]


def _more_seeds(rows: pd.DataFrame, encoders: str, num_steps: str, seeds: int) -> str:
    own = {"encoder": encoders, "num_steps": num_steps, "seed": seeds}
    first: dict[Any, Any] = rows.iloc[0].to_dict() | own
    return _run({option: first[column] for option, column in _OPTIONS.items()})


def remarks(cells: pd.DataFrame, results: Sequence[Path] = ()) -> list[str]:
    """Return remarks that a reader of :func:`commands` needs, one line each.

    They name what does not ship with codingbench, what was not recorded, and the versions that made
    the numbers.

    Args:
        cells: rows of the table ``cells``, of one row of the leaderboard or of many.
        results: folders of the stores, as in :func:`commands`.
    """
    return [
        *_own_plugins(cells, ENCODERS, results),
        *_own_plugins(cells, BACKBONES, results),
        *_own_plugins(cells[cells["neuron"] != DEFAULT_NEURON], NEURONS, results),
        *_foreign(cells, "recipe", "recipe_hash", recipe_names(), _RECIPE_PLACE),
        *_foreign(cells, "dataset", "dataset_fingerprint", catalogue(), _DATA_PLACE),
        *_unknown_threads(cells),
        *_versions(cells),
    ]


def _command(
    cells: Sequence[Mapping[Any, Any]], circumstances: Sequence[str], results: Sequence[Path]
) -> str:
    seeds = [str(cell["seed"]) for cell in cells]
    said = {option: cells[0][column] for option, column in _OPTIONS.items()}
    # --seeds 3 would mean three seeds
    said["seeds"] = ",".join(seeds) if len(seeds) > 1 else f"{seeds[0]},"
    roots = []
    for registry, option in _AXES:
        if found := _kept_place(registry, cells[0], results):
            said[option], root = found
            roots += [root] if root else []
    path = f"PYTHONPATH={shlex.quote(os.pathsep.join(roots))} " if roots else ""
    return f"{path}{_run(said, circumstances)}"


def _kept_place(
    registry: Registry, cell: Mapping[Any, Any], results: Sequence[Path]
) -> tuple[str, str] | None:
    """Return the text that names the kept source of a cell's plug-in, and its search path.

    The path is "" if the source is a single file. None: the plug-in ships, or is not kept there.
    """
    label, code = str(cell[registry.kind]), cell[f"{registry.kind}_code"]
    name, bracket, params = label.partition("[")
    found = (kept.folder_of(folder, code) for folder in results)
    folder = next(filter(None, found), None)
    if folder is None or name in registry.shipped() or set("[],|") & set(str(folder)):
        return None
    try:
        source = kept.read(folder)
    except StoreError:
        return None
    is_file = source.place in source.files
    place = str(folder / source.place) if is_file else source.place
    root = "" if is_file and len(source.files) == 1 else as_typed(str(folder))
    return f"{as_typed(place)}:{source.class_name}{bracket}{params}", root


def _run(said: Mapping[str, Any], circumstances: Sequence[str] = ()) -> str:
    """Return the command with these values of its options."""
    pairs = [(o, v) for o, v in said.items() if (o, v) != ("neurons", DEFAULT_NEURON)]
    words = [word for option, value in pairs for word in (f"--{option}", str(value))]
    return shlex.join(["codingbench", "run", *words, *circumstances])


def _circumstances(cell: Mapping[Any, Any]) -> Iterator[str]:
    """Yield the options that repeat the circumstances of a run, as far as they are known."""
    known = {name: cell[name] for name in _CIRCUMSTANCES if pd.notna(cell[name])}
    device = str(known.get("device", ""))
    if device:
        yield from ("--device", device)
    if known.get("devices", 1) > 1:
        yield from ("--devices", str(int(known["devices"])))
    if "threads" in known:
        yield from ("--threads", str(int(known["threads"])))
    if known.get("neuron_backend") in _NEURONS:
        yield _NEURONS[known["neuron_backend"]]
    by_default = device.startswith("cpu")
    if known.get("deterministic", by_default) != by_default:
        yield "--no-deterministic" if by_default else "--deterministic"


def _own_plugins(cells: pd.DataFrame, registry: Registry, results: Sequence[Path]) -> Iterator[str]:
    """Yield lines about plug-ins that do not ship: those kept with the results, and the others."""
    kind, code = registry.kind, f"{registry.kind}_code"
    pairs = cells[[kind, code]].drop_duplicates()
    if pairs.empty:
        return
    is_kept = [
        _kept_place(registry, pair, results) is not None for pair in pairs.to_dict("records")
    ]
    for place, these in (
        (_KEPT_PLACE, pairs[is_kept]),
        (_PLUGIN_PLACE, pairs[[not kept_there for kept_there in is_kept]]),
    ):
        yield from _foreign(these, kind, code, registry.shipped(), place)


def _foreign(
    cells: pd.DataFrame, column: str, code: str, shipped: Collection[str], place: str
) -> Iterator[str]:
    """Yield a line with the names that do not ship, each with the hash of its content."""
    pairs = cells[[column, code]].drop_duplicates().itertuples(index=False, name=None)
    named = ((plain_name(label), content) for label, content in pairs)
    found = sorted({_hashed(name, content) for name, content in named if name not in shipped})
    if found:
        yield f"not part of codingbench: {column} {', '.join(found)}; {place}"


def _hashed(name: str, content: Any) -> str:
    return name if pd.isna(content) else f"{name} (hash {content})"


def _unknown_threads(cells: pd.DataFrame) -> Iterator[str]:
    if (cells["device"].eq("cpu") & cells["threads"].isna()).any():
        yield "the number of threads of some cells was not recorded: their last bits may differ"


def _versions(cells: pd.DataFrame) -> Iterator[str]:
    made = cells[_SOFTWARE].drop_duplicates().to_dict("records")
    texts = sorted({", ".join(_software(cell)) for cell in made} - {""})
    if texts:
        yield f"run with {'; '.join(texts)}"


def _software(cell: Mapping[Any, Any]) -> Iterator[str]:
    version, commit, is_dirty, torch_version = (
        cell[name] if pd.notna(cell[name]) else None for name in _SOFTWARE
    )
    if version:
        yield f"codingbench {version}"
    if commit:
        yield f"commit {commit[:12]}{' with changes' if is_dirty else ''}"
    if torch_version:
        yield f"torch {torch_version}"
