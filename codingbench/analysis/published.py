"""Measured rows and published results on the same data sets in one table.

The two are never ranked against each other, because networks, recipes and energy formulas differ.
"""

from typing import Any, Final

import pandas as pd

from codingbench.analysis.learning import SIGN_COLUMNS
from codingbench.analysis.lower_bounds import UNCOUNTED_COLUMNS
from codingbench.literature.published import Published, published
from codingbench.registry import network_name
from codingbench.runtime.formatting import counted

MEASURED: Final = "measured"
REPORTED: Final = "reported"

PUBLISHED_COLUMNS: Final[dict[str, str]] = {
    "dataset": "name of the data set",
    "dataset_fingerprint": "hash of the data files; null for reported results",
    "origin": f"{MEASURED}: by codingbench; {REPORTED}: in the source",
    "coding": "the encoder's name here, or the name of the method in the source",
    "encoder": "the encoder's name here; null where there is none",
    "num_steps": "T; null where the source does not say or sources disagree",
    "seeds": "number of seeds that the row averages; null for reported results",
    "accuracy": "test accuracy in [0, 1]",
    "images": "test images of each seed; null for reported results",
    "accuracy_std": "sample standard deviation over seeds; null for one seed or reported results",
    "energy_uj": "microjoules per image by energy_convention",
    "energy_convention": "name of the convention; null without an energy",
    **UNCOUNTED_COLUMNS,
    "parameters": "trained parameters",
    "network": "backbone here, network there",
    "recipe": "how it was trained",
    "source": "short name of the source; null for measured rows",
    "where": "paper and table",
    "note": "what the source leaves open",
    "chance": "1 / number of classes; null for reported results, as are the next columns",
    "above_chance": "as in the leaderboard",
    **SIGN_COLUMNS,
    "keys": "keys of the cells averaged; empty for reported results",
}
"""The columns of :func:`with_published`, in order: the keys of the JSON and CSV output."""


def with_published(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a leaderboard and the published results on their data sets.

    Args:
        table: from :func:`codingbench.analysis.leaderboard.rows`.

    Returns:
        The columns of ``PUBLISHED_COLUMNS``, sorted by data set, then by accuracy, highest first.
    """
    datasets = set(table["dataset"])
    reported = [_reported(result) for result in published() if result.dataset in datasets]
    measured = [_measured(row) for row in table.itertuples()]
    frame = pd.DataFrame(measured + reported, columns=list(PUBLISHED_COLUMNS))
    whole = {
        name: frame[name].astype("Int64")
        for name in ("num_steps", "seeds", "images", "parameters", "at_chance", "loss_not_fallen")
    }
    return frame.assign(**whole).sort_values(
        ["dataset", "accuracy"], ascending=[True, False], ignore_index=True, kind="stable"
    )


def _measured(row: Any) -> dict[str, Any]:
    images = f"{row.train_samples:,} images"
    return {
        **{name: getattr(row, name) for name in PUBLISHED_COLUMNS if hasattr(row, name)},
        "origin": MEASURED,
        "coding": row.encoder,
        "network": network_name(row.backbone, row.neuron),
        "recipe": f"{row.recipe}, {counted(row.epochs, 'epoch')}, {images}",
    }


def _reported(result: Published) -> dict[str, Any]:
    return {
        **{name: getattr(result, name) for name in PUBLISHED_COLUMNS if hasattr(result, name)},
        "origin": REPORTED,
        "coding": result.encoder or result.method,
        "silent_layers": [],
        "collapsed_seeds": [],
        "uncounted": [],
        "energy_is_lower_bound": False,
        "keys": [],
    }
