"""Compare variants of a recipe on validation images, in one process.

    python tests/benchmarks/tune_recipe.py VARIANTS.toml --out DIR [--data-dir DIR] [--minutes 4]

The file names what all variants share and, for each variant, what it changes::

    [shared]                      # settings of ``codingbench run``; one value each
    encoders = "direct"
    backbones = "ms_resnet9"
    dataset = "cifar100"
    T = 4
    recipe = "sprint"

    [[variant]]
    name = "rate 0.2"
    "optimizer.lr" = 0.2          # a setting of the recipe
    run = { T = 2 }               # optional: a setting of the run

No test image is evaluated. ``DIR/tuning.json`` holds each variant with its epochs, written after
every variant. A variant for which the time does not suffice is not started.
"""

import argparse
import json
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from graph_checks import Silent

from codingbench.backbone import move_network
from codingbench.cells.data import DataCache
from codingbench.cells.footprint import chosen_backend
from codingbench.cells.grid import Job
from codingbench.cells.network import network_of
from codingbench.cells.settings import parse_settings
from codingbench.neurons.backends import use_backend
from codingbench.recipes import FOLDER
from codingbench.runtime.devices import conditions, keep_freed_memory, resolve_device
from codingbench.runtime.provenance import provenance
from codingbench.training.loop import train
from codingbench.training.meter import TrainingError

Row = dict[str, Any]


def merged(base: Row, changes: Row) -> Row:
    """Return the recipe with the dotted settings of ``changes``; a value of "none" removes one."""
    recipe: Row = json.loads(json.dumps(base))
    for place, value in changes.items():
        *sections, name = place.split(".")
        table = recipe
        for section in sections:
            table = table.setdefault(section, {})
        if value == "none":
            table.pop(name, None)
        else:
            table[name] = value
    return recipe


def toml_lines(table: Row, section: str = "") -> Iterator[str]:
    """Yield a recipe's nested settings as lines of TOML."""
    for name, value in table.items():
        if not isinstance(value, dict):
            yield f"{name} = {json.dumps(value)}"
    for name, value in table.items():
        if isinstance(value, dict):
            yield f"[{section}{name}]"
            yield from toml_lines(value, f"{section}{name}.")


def job_of(shared: Row, variant: Row, folder: Path, data_dir: Path | None) -> Job:
    """Return the only cell of a variant, with its recipe in a file of its own."""
    settings = shared | variant.get("run", {}) | {"data_dir": data_dir and str(data_dir)}
    base = tomllib.loads((FOLDER / f"{settings['recipe']}.toml").read_text())
    changes = {name: value for name, value in variant.items() if name not in ("name", "run")}
    path = folder / f"{settings['recipe']}.toml"
    path.write_text("\n".join(toml_lines(merged(base, changes))) + "\n")
    (job,) = parse_settings(settings | {"recipe": str(path)}).grid.expand()
    return job


def measure(job: Job, data: DataCache, device: torch.device) -> Row:
    """Train one cell and return its epochs, and the seconds that training and validation took."""
    listener, cell = Silent(), job.cell
    images = data.load(job)
    started = time.perf_counter()
    network = move_network(network_of(job), device, cell.precision)
    try:
        with use_backend(chosen_backend(network, job)):
            train(
                network,
                images,
                job.recipe,
                cell.seed,
                cell.precision,
                listener,
                micro_batch=cell.micro_batch,
            )
        problem = {}
    except TrainingError as error:
        problem = {"problem": str(error)}
    last: Row = listener.epochs[-1] if listener.epochs else {}
    kept = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "images_per_s")
    return problem | {
        "wall_s": round(time.perf_counter() - started, 2),
        **{name: last.get(name) for name in kept},
        "val_accuracy_by_epoch": [round(row["val_accuracy"], 4) for row in listener.epochs],
    }


def main() -> None:
    """Parse the command line and measure the variants in their order."""
    known = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known.add_argument("variants", type=Path)
    known.add_argument("--out", type=Path, required=True, help="folder of tuning.json")
    known.add_argument("--data-dir", type=Path)
    known.add_argument("--device", default="auto")
    known.add_argument("--minutes", type=float, default=4.0)
    options = known.parse_args()
    started, device = time.perf_counter(), resolve_device(options.device)
    content = tomllib.loads(options.variants.read_text())
    shared, rows = content["shared"], []
    options.out.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    with TemporaryDirectory() as folder, conditions(torch.get_num_threads(), False):
        cache: DataCache | None = None
        longest = 0.0
        for variant in content["variant"]:
            if time.perf_counter() - started + longest > 60 * options.minutes:
                print(f"{variant['name']}: not started, the time is up", flush=True)
                continue
            job = job_of(shared, variant, Path(folder), options.data_dir)
            cache = cache or DataCache(
                jobs=[job], data_dir=options.data_dir, device=device, decoders=None, threads=1
            )
            row = {**variant, **measure(job, cache, device)}
            longest = max(longest, row["wall_s"])
            rows.append(row)
            log = {"facts": provenance(device, names_host=False), "shared": shared, "rows": rows}
            (options.out / "tuning.json").write_text(json.dumps(log, indent=1, default=str) + "\n")
            print(
                f"{variant['name']:40} val {100 * (row['val_accuracy'] or 0):.2f} % "
                f"loss {row['val_loss'] or 0:.3f} train {100 * (row['train_accuracy'] or 0):.1f} % "
                f"{row['images_per_s'] or 0:,.0f} images/s, {row['wall_s']:.1f} s "
                f"{row.get('problem', '')}",
                flush=True,
            )


if __name__ == "__main__":
    main()
