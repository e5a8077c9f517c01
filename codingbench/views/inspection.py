"""Codings looked at, as tables to read or as JSON, and as a picture."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from rich.console import Group

from codingbench.errors import SpecError, unknown
from codingbench.inspection.coding import DEFAULT_SAMPLES, Conditions
from codingbench.inspection.observe import Observation
from codingbench.inspection.remarks import remarks
from codingbench.inspection.session import inspect_codings
from codingbench.views.inspection_text import render


def present(
    encoders: Sequence[str],
    dataset: str,
    num_steps: int,
    samples: int = DEFAULT_SAMPLES,
    backbone: str = "csnn",
    seed: int = 0,
    data_dir: Path | None = None,
    energy: str = "exact",
    plot: Path | None = None,
    form: str = "table",
) -> str | Group:
    """What the codings do with the same images, as JSON text or for ``table`` to be printed.

    Args:
        encoders: ``name[param=value,...]`` or ``file.py:Class``.
        dataset: the name of a data set, found in ``data_dir`` or the cache folder.
        num_steps: T.
        samples: images of the training split.
        backbone: whose stem and neuron the codings get.
        seed: of the weights and of random codes.
        energy: the convention that the cost is priced by.
        plot: where to draw a picture, PNG, PDF or SVG by its suffix.
        form: ``table`` or ``json``.

    Raises:
        SpecError: a name, number or path is not valid; a plug-in refuses or fails.
        DatasetError: the data set is not there and not to be had.
    """
    if form not in FORMATS:
        raise SpecError(unknown("format", form, FORMATS))
    found = inspect_codings(
        encoders, dataset, num_steps, samples, backbone, seed, data_dir, energy, plot
    )
    return FORMATS[form](found.conditions, found.observations)


def _json(conditions: Conditions, observations: Sequence[Observation]) -> str:
    described = {
        "conditions": asdict(conditions),
        "codings": [asdict(seen) | {"remarks": remarks(seen)} for seen in observations],
    }
    return json.dumps(described, indent=2, allow_nan=False) + "\n"


FORMATS: Final[dict[str, Callable[[Conditions, Sequence[Observation]], str | Group]]] = {
    "table": render,
    "json": _json,
}
"""What ``--format`` takes. JSON has ``conditions`` (:class:`Conditions`) and ``codings``, for each
the fields of :class:`Observation` and ``remarks``."""
