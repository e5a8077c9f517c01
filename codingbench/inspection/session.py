"""Inspect codings: measure all of them on the same images, and draw a picture of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codingbench.energy import DEFAULT_PRICING, Pricing
from codingbench.inspection.coding import Conditions, prepare_codings
from codingbench.inspection.observe import Observation, observe
from codingbench.inspection.picture import check_target, draw
from codingbench.inspection.remarks import remarks


@dataclass(frozen=True)
class Inspection:
    """The observations of several codings under the same conditions."""

    conditions: Conditions
    observations: list[Observation]

    def described(self) -> dict[str, Any]:
        """Return the content of ``codingbench inspect --format json``.

        ``conditions`` has the fields of :class:`Conditions`. ``codings`` has, for each coding, the
        fields of :class:`Observation` and the ``remarks``.
        """
        codings = [asdict(seen) | {"remarks": remarks(seen)} for seen in self.observations]
        return {"conditions": asdict(self.conditions), "codings": codings}


def inspect_codings(
    encoders: Sequence[str],
    dataset: str,
    num_steps: int,
    samples: int | None = None,
    backbone: str = "csnn",
    seed: int = 0,
    data_dir: Path | None = None,
    pricing: Pricing = DEFAULT_PRICING,
    plot: Path | None = None,
) -> Inspection:
    """Measure what codings do with the same images, before any training.

    Args:
        encoders: codings as ``name[param=value,...]`` or ``file.py:Class``.
        dataset: name of a data set.
        num_steps: T, from 1 to 62.
        samples: number of images of the training split, at least 4; by default 400, or all
            if there are fewer. One half is used to fit statistics, the other to score them.
        backbone: backbone whose stem and neurons the codings use.
        seed: seed of the initial weights and of random codes.
        data_dir: folder of the data sets; None for the default.
        pricing: energy convention and technology for the cost.
        plot: file for a picture, PNG, PDF or SVG by its suffix; None for no picture.

    Raises:
        SpecError: a name, number or path is not valid, or a plug-in refuses it or fails.
        DatasetError: the data set cannot be found or downloaded.
    """
    if plot is not None:
        check_target(plot)
    codings = prepare_codings(
        tuple(encoders), dataset, num_steps, samples, backbone, seed, data_dir
    )
    conditions = codings[0].conditions()
    observations = [observe(coding, pricing) for coding in codings]
    if plot is not None:
        draw(plot, conditions, codings, observations)
    return Inspection(conditions, observations)
