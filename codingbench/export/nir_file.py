"""Write a NIR file, and check that it reproduces the network."""

import copy
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import nir
import numpy as np
from torch import Tensor

import codingbench
from codingbench.backbone import Network
from codingbench.cells.data import find_sources
from codingbench.datasets import load
from codingbench.datasets.pixels import to_unit
from codingbench.errors import SpecError, one_line
from codingbench.export.agreement import TOLERANCE, check, compare
from codingbench.export.graph import graph_of
from codingbench.export.model import Model
from codingbench.export.signals import Refused
from codingbench.export.tracing import trace
from codingbench.training.evaluation import stream

CHECK_IMAGES: Final = 16
"""Number of test images on which the graph must reproduce the network."""


def nir_bytes(network: Network, model: Model, data_dir: Path | None) -> bytes:
    """Return the graph of the network as the bytes of an HDF5 file.

    Raises:
        SpecError: NIR cannot express the network.
    """
    images = _images(model, data_dir)[:1]
    double = copy.deepcopy(network).double()
    try:
        run = trace(double, images.double(), stream(model.job.cell.seed, "export"))
        graph = graph_of(run, _about(model))
    except (Refused, RuntimeError) as refusal:  # from torch, if a part is not in double precision
        raise _refused(model, refusal) from refusal
    buffer = io.BytesIO()
    nir.write(buffer, graph)
    return buffer.getvalue()


def checked_by_running(
    network: Network, model: Model, data_dir: Path | None
) -> Callable[[Path], tuple[str, ...]]:
    """Return a check that reads a file back and compares it with the network on test images.

    The check raises SpecError if they differ, and returns sentences about the agreement otherwise.
    """

    def run(written: Path) -> tuple[str, ...]:
        images, seed = _images(model, data_dir), model.job.cell.seed
        graph = nir.read(written)
        try:
            found = check(graph, copy.deepcopy(network).double(), images, seed)
        except Refused as refusal:
            raise _refused(model, refusal) from refusal
        single = compare(graph, network, images, seed)
        moved = sum(single.different.values())
        return (
            f"The file was read back and run on {found.images} test images in double precision. "
            f"All {found.values:,} neuron outputs ({found.spikes:,} of them spikes) equal those of "
            f"the network, and logits differ by at most {found.logits:.1g} of the largest "
            f"(allowed: {TOLERANCE:.0e}).",
            f"In single precision, {moved:,} of these outputs differ because of rounding, and "
            f"{single.predictions} of {single.images} predictions are the same.",
        )

    return run


def _images(model: Model, data_dir: Path | None) -> Tensor:
    source = find_sources([model.job], data_dir)[model.job.cell.dataset]
    count = min(CHECK_IMAGES, model.job.info.test_size)
    return to_unit(load(source, "test", count).images)


def _refused(model: Model, refusal: Exception) -> SpecError:
    cell = model.job.cell
    name = f"{model.row['key']} ({cell.encoder} on {cell.network})"
    reason = str(refusal) if isinstance(refusal, Refused) else one_line(refusal)
    return SpecError(f"{name} cannot be exported to NIR: {reason}")


def _about(model: Model) -> dict[str, Any]:
    """Return the origin of the graph and the standardisation of its input, for the metadata."""
    cell, info = model.job.cell, model.job.info
    return {
        "made_by": f"codingbench {codingbench.__version__}",
        "key": model.row["key"],
        "dataset": cell.dataset,
        "encoder": cell.encoder,
        "backbone": cell.backbone,
        **({} if model.job.neuron is None else {"neuron": cell.neuron}),
        "recipe": cell.recipe,
        "epochs": cell.epochs,
        "seed": cell.seed,
        "weights": model.weights,
        "accuracy": model.accuracy,
        "mean": np.array(info.mean),
        "std": np.array(info.std),
    }
