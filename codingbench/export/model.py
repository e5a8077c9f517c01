"""The description of an exported network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codingbench.cells.grid import Job
from codingbench.runtime.formatting import counted


@dataclass(frozen=True)
class Model:
    """The network of a finished cell that is being exported.

    Args:
        row: the cell's row of table ``cells``; unknown values are None.
        job: the job that trained it.
        is_selected: the weights are those of the epoch with the best validation accuracy, not those
            after the last epoch.
        file: name of the exported file.
        results: folder of the store.
    """

    row: dict[str, Any]
    job: Job
    is_selected: bool
    file: str
    results: Path | None = None

    @property
    def weights(self) -> str:
        """A description of the epoch that the weights come from, and of their mean."""
        epochs, is_mean = self.row["epochs"], self.row["evaluated_weights"] == "mean"
        mean = ", the exponential mean over training steps" if is_mean else ""
        if self.is_selected:
            epoch = self.row["selected_epoch"]
            return f"of epoch {epoch} of {epochs}, the best in validation{mean}"
        return f"after the last of {counted(epochs, 'epoch')}{mean}"

    @property
    def accuracy(self) -> float:
        """Accuracy on test images with these weights, in [0, 1]."""
        return float(self.row["selected_accuracy" if self.is_selected else "accuracy"])
