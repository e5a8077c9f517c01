"""Draw the picture at the top of README.md: three codes over time, accuracy over energy.

    python tests/benchmarks/readme_picture.py [FILE.png]

Left: one image of the embedded data set in three codings, as ``codingbench inspect --plot`` shows
them; ``retina`` is the example of ``encoders/README.md``. Right: codings of the reference store
``results/reference/fashion``, with 95 % confidence intervals over seeds.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator
from refresh_docs import blocks
from torch import Tensor
from typer.testing import CliRunner

from codingbench.backbone import build_network
from codingbench.cells.network import task_of
from codingbench.cli.main import app
from codingbench.datasets import get_info, load, locate
from codingbench.encoder import Task
from codingbench.registry import BACKBONES, ENCODERS

ROOT: Final = Path(__file__).parents[2]
TARGET: Final = ROOT / "results" / "reference" / "figures" / "overview.png"

NUM_STEPS: Final = 4
IMAGE: Final = 2
CALIBRATION: Final = 200
"""Images whose statistics normalise the untrained stem, as at the start of a training."""

INK, SOFT, GRID, ACCENT = "#20242a", "#5a616b", "#d9dce1", "#aa4400"

LABELS: Final = {
    "direct[spiking=false]": ("direct, without spikes", (9, -3)),
    "direct": ("direct", (0, 9)),
    "gac": ("GAC", (0, 9)),
    "rate": ("rate", (9, -3)),
    "phase": ("phase", (9, -3)),
    "latency": ("latency", (9, -3)),
}
"""Coding -> its label, and the label's offset from the point."""


def code_of(name: str, images: Tensor, task: Task) -> Tensor:
    """Return the code [time, row, column] of one image, as the mean over channels."""
    plugin, backbone = ENCODERS.resolve(name), BACKBONES.resolve("csnn")
    encoder: Any = build_network(plugin, backbone, task, seed=0).encoder
    seen: list[Tensor] = []
    encoder.code.register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        encoder.train()(images, torch.Generator())
    return seen[0][:, IMAGE].mean(1)


def draw_codes(area: Any, codes: dict[str, Tensor], image: Tensor) -> None:
    """Draw a row for each coding: the image and its code at every step."""
    grid = area.subplots(len(codes), 1 + NUM_STEPS)
    for axes, (name, code) in zip(grid, codes.items(), strict=True):
        top = float(code.abs().max())
        low, colours = (-top, "RdBu_r") if code.min() < 0 else (0.0, "Greys")
        axes[0].imshow(image.numpy(), cmap="gray", vmin=0, vmax=1)
        for axis, values in zip(axes[1:], code, strict=True):
            axis.imshow(values.numpy(), cmap=colours, vmin=low, vmax=top)
        for axis in axes:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_color(GRID)
        axes[0].set_ylabel(name, fontsize=12, color=INK, labelpad=8)
    titles = ["image", *(f"t = {t + 1}" for t in range(NUM_STEPS))]
    for axis, title in zip(grid[0], titles, strict=True):
        axis.set_title(title, fontsize=11, color=SOFT, pad=6)
    area.suptitle("What the network sees: three codes over time", fontsize=13, color=INK)


def leaderboard(store: Path) -> dict[str, dict[str, Any]]:
    """Return the rows of the leaderboard by coding."""
    words = ["leaderboard", "--results", str(store), "--format", "json"]
    printed = CliRunner().invoke(app, words, catch_exceptions=False).stdout
    return {row["encoder"]: row for row in json.loads(printed)}


def draw_points(axis: Any, rows: dict[str, dict[str, Any]]) -> None:
    """Draw accuracy over energy per image, with a label at each point."""
    for name, (label, offset) in LABELS.items():
        row = rows[name]
        low, mean, high = (100 * row[c] for c in ("accuracy_low", "accuracy", "accuracy_high"))
        colour = ACCENT if name == "gac" else "#4466aa"
        bars = {"yerr": [[mean - low], [high - mean]], "elinewidth": 1.2, "capsize": 3}
        axis.errorbar(row["energy_uj"], mean, fmt="o", color=colour, markersize=7, **bars)
        place = "left" if offset[0] > 0 else "right" if offset[0] < 0 else "center"
        where = {"xytext": offset, "textcoords": "offset points", "ha": place}
        # a centred label goes above the interval
        at = (row["energy_uj"], mean if offset[0] else high)
        axis.annotate(label, at, fontsize=12, color=colour, **where)
    axis.set_xscale("log")
    axis.set_xlim(5.5, 35)
    axis.xaxis.set_major_locator(FixedLocator([6, 8, 10, 15, 20, 30]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlabel("energy per image, µJ (convention: exact)", fontsize=11, color=SOFT)
    axis.set_ylabel("test accuracy, %", fontsize=11, color=SOFT)
    axis.tick_params(colors=SOFT, labelsize=10)
    axis.grid(color=GRID, linewidth=0.7)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(GRID)
    title = "What it costs: accuracy over energy\n(all of Fashion-MNIST, 8 epochs, T = 4)"
    axis.set_title(title, fontsize=13, color=INK, pad=10)


def retina_file(folder: Path) -> Path:
    """Write the example coding of ``encoders/README.md`` and return its path."""
    found = blocks((ROOT / "encoders" / "README.md").read_text())
    (source,) = (block.body for block in found if block.options.get("file") == "retina.py")
    path = folder / "retina.py"
    path.write_text(source)
    return path


def main(target: Path) -> None:
    """Draw the picture into a PNG file."""
    images = load(locate("fashion_mini", None), "train", CALIBRATION).images.float() / 255
    task = task_of(get_info("fashion_mini"), NUM_STEPS)
    with tempfile.TemporaryDirectory() as folder:
        names = {
            "retina\n(your own)": f"{retina_file(Path(folder))}:Retina",
            "direct": "direct",
            "latency\n(log)": "latency[scale=log]",
        }
        codes = {label: code_of(name, images, task) for label, name in names.items()}
    figure = Figure(figsize=(12, 4.6), layout="constrained", facecolor="white")
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=[1.12, 1], wspace=0.04)[0]
    draw_codes(left, codes, images[IMAGE, 0])
    draw_points(right.subplots(), leaderboard(ROOT / "results" / "reference" / "fashion"))
    figure.savefig(target, dpi=150)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET)
