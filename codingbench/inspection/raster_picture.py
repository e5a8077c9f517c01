"""Draw the spikes of a network by layer and step, beside the image and the logits over time."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from codingbench.inspection.picture import STYLE, channels_last
from codingbench.inspection.raster import LayerSpikes, Raster

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_NEURONS: Final = 160  # rows of a panel; of larger layers, evenly spaced neurons
_PER_ROW: Final = 7  # panels
_MOST_NAMED: Final = 10  # classes with a line of their own
_INK, _GREY, _RED = "#1f4e79", "#c4c8cc", "#b3261e"
_DPI: Final = 160


def draw_raster(path: Path, raster: Raster) -> None:
    """Draw the raster into a file: PNG, PDF or SVG by its suffix."""
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(len(raster.layers), _PER_ROW)
    rows = -(-len(raster.layers) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.0 + 1.25 * columns, 0.5 + 3.6 * rows), layout="constrained")
        figure.suptitle(raster.cell, fontsize=9, x=0.01, ha="left")
        widths = [3.0, 1.25 * columns]
        beside, panels = figure.subfigures(1, 2, squeeze=False, width_ratios=widths)[0]
        image, logits = beside.subplots(2, 1)
        _draw_image(image, raster)
        _draw_logits(logits, raster)
        grid = panels.subplots(rows, columns, squeeze=False).flatten()
        for axis, layer in zip(grid, raster.layers, strict=False):
            _draw_layer(axis, layer)
        for axis in grid[len(raster.layers) :]:
            axis.set_axis_off()
        figure.savefig(path, dpi=_DPI)


def _draw_image(axis: "Axes", raster: Raster) -> None:
    axis.imshow(channels_last(raster.image).numpy(), cmap="gray", vmin=0, vmax=1)
    axis.set_axis_off()
    answer = int(raster.mean_logits[-1].argmax())
    axis.set_title(f"test image {raster.number}: class {raster.label}, answer {answer}")


def _draw_logits(axis: "Axes", raster: Raster) -> None:
    """Draw a line for each class; that of the label is blue, that of a wrong answer is red."""
    from matplotlib.ticker import MaxNLocator

    curves, label = raster.mean_logits, raster.label
    answer = int(curves[-1].argmax())
    steps = range(1, len(curves) + 1)
    colours = {answer: _RED} | {label: _INK}
    for number in sorted(range(curves.shape[1]), key=lambda number: number in colours):
        colour = colours.get(number, _GREY)
        axis.plot(steps, curves[:, number].tolist(), color=colour, marker="o", markersize=2.5)
    named = range(curves.shape[1]) if curves.shape[1] <= _MOST_NAMED else colours
    for number, height in _apart(axis, {n: float(curves[-1, n]) for n in named}).items():
        colour = colours.get(number, "#767b80")
        axis.annotate(
            str(number), (1.02, height), xycoords=("axes fraction", "data"), color=colour,
            fontsize=6, va="center", annotation_clip=False,
        )  # fmt: skip
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("after step t", labelpad=1)
    axis.set_title("mean of the logits so far, by class", loc="left")


def _apart(axis: "Axes", heights: dict[int, float]) -> dict[int, float]:
    """Move labels up where they would cover each other."""
    low, high = axis.get_ylim()
    least = (high - low) / 16
    moved: dict[int, float] = {}
    below = low - least
    for number, height in sorted(heights.items(), key=lambda item: item[1]):
        below = moved[number] = max(height, below + least)
    return moved


def _draw_layer(axis: "Axes", layer: LayerSpikes) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    shown = evenly_spaced(layer.spikes, _MOST_NEURONS)
    steps, neurons = shown.shape
    top = float(shown.abs().max()) or 1.0
    colours = LinearSegmentedColormap.from_list("spikes", [_RED, "white", _INK])
    axis.imshow(
        shown.T.numpy(), cmap=colours, vmin=-top, vmax=top, aspect="auto", interpolation="nearest",
        extent=(0.5, steps + 0.5, neurons, 0),
    )  # fmt: skip
    for border in range(1, steps):
        axis.axvline(border + 0.5, color=_GREY, linewidth=0.4)
    ticks = range(1, steps + 1) if steps <= 8 else [1, steps]
    axis.set_xticks(list(ticks))
    axis.set_yticks([])
    axis.spines[["top", "right"]].set_visible(True)
    axis.set_title(_short(layer.name), fontsize=6.5)
    axis.set_xlabel(_below(layer, neurons), fontsize=6, labelpad=1)


def evenly_spaced(spikes: Tensor, most: int) -> Tensor:
    """Return at most ``most`` of the neurons of ``spikes`` [T, N], evenly spaced."""
    count = spikes.shape[1]
    if count <= most:
        return spikes
    return spikes[:, torch.linspace(0, count - 1, most).round().long()]


def _short(name: str) -> str:
    """Return a name in lines of its last and its other parts.

    >>> _short("backbone.blocks.0.neurons.0")
    'blocks.0\\nneurons.0'
    """
    parts = name.split(".")
    parts = parts[1:] if len(parts) > 2 else parts
    half = -(-len(parts) // 2)
    lines: Sequence[str] = [".".join(parts[:half]), ".".join(parts[half:])]
    return "\n".join(line for line in lines if line)


def _below(layer: LayerSpikes, shown: int) -> str:
    count, noun = layer.spikes.shape[1], "values" if layer.is_code else "neurons"
    which = f"{shown} of {count:,}" if shown < count else f"{count:,}"
    mean = 100 * sum(layer.rate) / len(layer.rate)
    return f"step t\n{which} {noun}\n{mean:.1f} % not 0"
