"""Photographs decoded per second, in the training process and in worker processes.

    python tests/benchmarks/bench_decoding.py [--short] [--folder DIR] [--json decoding.json]

Every variant decodes all training images of the folder in batches of 32, for evaluation (resize,
centre crop) or for training (random resized crop), and does nothing else. The result is an upper
bound for training. Without ``--folder`` (DIR/train/<class>/*.JPEG and DIR/val) random images with
500x375 pixels are used, about the mean size in ImageNet. Times include starting the decoders, as in
every epoch. The variants run alternately; median, minimum and maximum over rounds are shown.
"""

import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from timing import alternate, parser, write_json

from codingbench.datasets import fetch
from codingbench.datasets.crops import draw_crops
from codingbench.datasets.loading import stream
from codingbench.datasets.streaming import StreamedSplit
from codingbench.recipes.recipe import ResizedCrop

BATCH = 32
DECODERS = (0, 1, 2)
INCEPTION = ResizedCrop(scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))


def make_up(root: Path, images: int) -> Path:
    """Write two classes with a total number of JPEG files, and two test files."""
    draws = np.random.default_rng(0)
    for split, count in (("train", images // 2), ("val", 1)):
        for name in "ab":
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                coarse = Image.fromarray(draws.integers(0, 256, (38, 50, 3), dtype=np.uint8))
                image = coarse.resize((500, 375), Image.Resampling.BICUBIC)
                image.save(root / split / name / f"{number}.JPEG", quality=90)
    return root


def decode(split: StreamedSplit, is_training: bool) -> None:
    """Read all images once."""
    count = len(split.labels)
    crops = draw_crops(INCEPTION if is_training else None, count, torch.Generator())
    seen = sum(len(labels) for _, labels in split.batches(BATCH, torch.arange(count), crops))
    assert seen == count


def measure(folder: Path, size: int, rounds: int) -> dict[str, Any]:
    """Return images per second of each variant, one number per round."""
    source = fetch(f"folder:{folder}[size={size}]", None)
    splits = {n: stream(source, "train", None, n) for n in DECODERS}
    result: dict[str, Any] = {"images": len(splits[0].labels), "size": size, "rounds": rounds}
    for kind in ("evaluation", "training"):
        ways = {
            f"{n} decoders": partial(decode, split, kind == "training")
            for n, split in splits.items()
        }
        wall_s = alternate(ways, rounds)
        result[kind] = {
            way: [result["images"] / seconds for seconds in times] for way, times in wall_s.items()
        }
    return result


def show(result: dict[str, Any]) -> Table:
    """Return a table with one row per number of decoders."""
    size = result["size"]
    table = Table(title=f"images/s of {result['images']} to {size}x{size}: median (least-most)")
    for heading in ("way", "evaluation", "training"):
        table.add_column(heading)
    for way in result["evaluation"]:
        speeds = (result[kind][way] for kind in ("evaluation", "training"))
        shown = (f"{statistics.median(s):.0f} ({min(s):.0f}-{max(s):.0f})" for s in speeds)
        table.add_row(way, *shown)
    return table


def main() -> None:
    """Run the variants, print the table, write the JSON."""
    options = parser(__doc__, "few images, two rounds")
    options.add_argument("--folder", type=Path, help="of train/<class>/*.JPEG [default: made up]")
    options.add_argument("--size", type=int, default=224, help="pixels [default: 224]")
    given = options.parse_args()
    torch.set_num_threads(1)  # like the decoders; no network runs
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or make_up(Path(made) / "photos", 40 if given.short else 1000)
        result = measure(folder, given.size, 2 if given.short else given.rounds)
    Console(width=110).print(show(result))
    write_json(given.json, [result])


if __name__ == "__main__":
    main()
