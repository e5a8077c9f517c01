"""Draw codings: images, their code over time, its rate, its patterns and the reconstruction."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from codingbench.datasets.pixels import to_unit
from codingbench.errors import SpecError
from codingbench.inspection.coding import Conditions, InspectedCoding
from codingbench.inspection.observe import Observation
from codingbench.inspection.remarks import emission
from codingbench.views.glyphs import beads

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

SUFFIXES: Final = (".png", ".pdf", ".svg")

_MAX_STEPS: Final = 8  # largest number of steps drawn
_IMAGES: Final = (5, 3)  # number of images for one coding, and for each of several
_MANY: Final = 6  # more codings get a strip each: one image, and everything in one row
_DPI, _STRIP_DPI = 200, 120
_PATTERNS: Final = 6
_CELL_INCHES: Final = 0.92
_INK, _GREY = "#1f4e79", "#c4c8cc"
STYLE: Final[dict[Any, Any]] = {  # of matplotlib
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


def check_target(path: Path) -> None:
    """Check that a picture can be written, before the work starts.

    Raises:
        SpecError: the suffix is unknown, the file cannot be written, or matplotlib is not
            installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise SpecError(f"the picture's name must end in {', '.join(SUFFIXES)}, got {str(path)!r}")
    if importlib.util.find_spec("matplotlib") is None:
        raise SpecError("--plot needs matplotlib: pip install matplotlib")
    is_new = not path.exists()
    try:
        path.open("ab").close()
        if is_new:
            path.unlink()
    except OSError as error:
        raise SpecError(f"cannot write {str(path)!r}: {error.strerror}") from error


def draw(
    path: Path,
    conditions: Conditions,
    codings: Sequence[InspectedCoding],
    observations: Sequence[Observation],
) -> None:
    """Draw one block per coding: images, their code over time, its rate, R² and patterns.

    Many codings get one image each, so that all fit into one picture.
    """
    import matplotlib
    from matplotlib.figure import Figure

    is_strip = len(codings) > _MANY
    number = 1 if is_strip else _IMAGES[len(codings) > 1]
    steps = _steps_drawn(conditions.num_steps)
    width = sum(_widths(steps, number)) * _CELL_INCHES
    block_inches = number * _CELL_INCHES + 0.9
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, len(codings) * block_inches + 0.4), layout="constrained")
        figure.suptitle(_title(conditions), fontsize=9, x=0.01, ha="left")
        blocks = figure.subfigures(len(codings), 1, squeeze=False)[:, 0]
        for block, coding, observation in zip(blocks, codings, observations, strict=True):
            _draw_block(block, coding, observation, observations, number, steps)
        figure.savefig(path, dpi=_STRIP_DPI if is_strip else _DPI)


def _title(conditions: Conditions) -> str:
    return (
        f"{conditions.dataset}, T = {conditions.num_steps}, {conditions.images:,} training images, "
        f"untrained stem of {conditions.backbone}, seed {conditions.seed}"
    )


def _steps_drawn(num_steps: int) -> list[int]:
    """Return at most :data:`_MAX_STEPS` steps, evenly spaced, including the first and the last."""
    number = min(num_steps, _MAX_STEPS)
    return [round(step) for step in torch.linspace(0, num_steps - 1, number).tolist()]


def _widths(steps: Sequence[int], number: int) -> list[float]:
    """Return the relative widths of a block: images, steps, rate, R² and patterns."""
    return [1.0] * (1 + len(steps)) + [1.4, 3.6 if number > 1 else 6.4]


def _draw_block(
    block: "SubFigure",
    coding: InspectedCoding,
    observation: Observation,
    all_observations: Sequence[Observation],
    number: int,
    steps: Sequence[int],
) -> None:
    images = to_unit(coding.images[:number])
    code = coding.code(images, coding.generator())
    pixels, options, meaning = _as_pictures(code, observation)
    block.suptitle(f"{observation.encoder}: {meaning}", fontsize=8.5, x=0.01, ha="left")
    widths = _widths(steps, number)
    grid = block.add_gridspec(number, len(widths), width_ratios=widths)
    rates = (code != 0).double().mean((2, 3, 4)) * 100  # (time, image)
    rows = [[block.add_subplot(grid[i, j]) for j in range(len(steps) + 2)] for i in range(number)]
    for i, (image, *over_time, rate) in enumerate(rows):
        _show(image, channels_last(images[i]), {"cmap": "gray", "vmin": 0, "vmax": 1})
        for axis, step in zip(over_time, steps, strict=True):
            _show(axis, pixels[step][i], options)
        _draw_rate(rate, rates[:, i], float(rates.max()), is_last=i == number - 1)
    noun = "rate" if emission(observation) == "spike" else "not 0"
    titles = ["image", *(f"t = {step + 1}" for step in steps), f"{noun} (%)"]
    for axis, title in zip(rows[0], titles, strict=True):
        axis.set_title(title)
    beside = grid[:, -1].subgridspec(*((2, 1) if number > 1 else (1, 2)))
    _draw_reconstruction(block.add_subplot(beside[0]), observation, all_observations)
    _draw_patterns(block.add_subplot(beside[1]), observation)


def _as_pictures(
    code: Float[Tensor, "time batch channel row column"], observation: Observation
) -> tuple[list[list[Tensor]], dict[str, Any], str]:
    """Return the pixels of each step and image, how to draw them, and what they mean."""
    channels = code.shape[2]
    is_colour = observation.code_channels == 1 and channels == 3
    if is_colour and observation.calibrated_on is None and code.min() >= 0:
        shown = [[channels_last(image.clamp(0, 1)) for image in step] for step in code]
        return shown, {}, "code, its three channels as colours"
    means = code.mean(2)
    top = float(means.abs().max()) or 1.0
    what = "code" if channels == 1 else f"code, mean of {channels} channels"
    options = {"cmap": "gray" if channels == 1 else "magma", "vmin": 0.0, "vmax": top}
    scale = f"black 0, brightest {top:.2g}"
    if means.min() < 0:
        options |= {"cmap": "RdBu_r", "vmin": -top}
        scale = f"blue {-top:.2g}, red {top:.2g}"
    return [list(step) for step in means], options, f"{what}, {scale}"


def channels_last(image: Float[Tensor, "channel row column"]) -> Tensor:
    """Return an image as matplotlib takes it: grey [H, W] or colours [H, W, C]."""
    return image[0] if len(image) == 1 else image.permute(1, 2, 0)


def _show(axis: "Axes", pixels: Tensor, options: dict[str, Any]) -> None:
    axis.imshow(pixels.numpy(), interpolation="nearest", **options)
    axis.set_axis_off()


def _draw_rate(axis: "Axes", rates: Tensor, top: float, *, is_last: bool) -> None:
    steps = range(1, len(rates) + 1)
    axis.fill_between(steps, rates.tolist(), color=_INK, alpha=0.15, linewidth=0)
    axis.plot(steps, rates.tolist(), color=_INK, linewidth=1, marker="o", markersize=2)
    axis.set_ylim(0, 1.1 * top or 1.0)
    axis.set_xlim(0.7, len(rates) + 0.3)
    axis.locator_params(axis="y", nbins=3)
    axis.set_xticks([1, len(rates)] if len(rates) > 1 else [1])
    axis.tick_params(labelsize=6, labelbottom=is_last, length=2)
    if is_last:
        axis.set_xlabel("step t", fontsize=7, labelpad=1)


def _draw_reconstruction(
    axis: "Axes", observation: Observation, all_observations: Sequence[Observation]
) -> None:
    """Draw the curve of the coding in front of those of the others."""
    from matplotlib.ticker import MaxNLocator

    for other in sorted(all_observations, key=lambda other: other is observation):
        curve = other.reconstruction.r2
        heights = [float("nan") if r2 is None else r2 for r2 in curve]
        colour = _INK if other is observation else _GREY
        axis.plot(range(1, len(curve) + 1), heights, color=colour, marker="o", markersize=3)
    axis.set_ylim(min(0.0, axis.get_ylim()[0]), 1.02)
    axis.set_xlim(0.8, len(observation.reconstruction.r2) + 0.2)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_ylabel("R²")
    axis.set_xlabel("after step t", labelpad=1)
    behind = " (grey: others)" if len(all_observations) > 1 else ""
    axis.set_title(f"linear reconstruction{behind}", loc="left")


def _draw_patterns(axis: "Axes", observation: Observation) -> None:
    patterns = observation.patterns
    shown = dict(list(patterns.most_frequent.items())[:_PATTERNS])
    bars = {beads(pattern): 100 * share for pattern, share in shown.items()}
    if (others := patterns.used - len(shown)) > 0:
        bars[f"{others:,} more"] = 100 * (1 - sum(shown.values()))
    places = range(len(bars))
    axis.barh(places, list(bars.values()), color=_INK, height=0.7)
    axis.set_yticks(places, list(bars), fontsize=7 if observation.shape[0] <= 8 else 4)
    axis.set_ylim(max(len(bars), _PATTERNS) - 0.4, -0.6)
    axis.set_xlabel("share of code positions (%)", labelpad=1)
    axis.set_title(
        f"{patterns.used:,} of {patterns.possible:,} patterns over time, "
        f"{patterns.entropy_bits:.2f} bits",
        loc="left",
    )
