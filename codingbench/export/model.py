"""What is exported: a trained network with its row and its job."""

from dataclasses import dataclass
from typing import Any

from codingbench.cells.grid import Job


@dataclass(frozen=True)
class Model:
    """A finished cell's network on its way into a file.

    Args:
        row: of table ``cells``, None for what is not known.
        job: that made it.
        is_selected: it has the weights of the selected epoch, not those after the last.
        file: the name of its file.
    """

    row: dict[str, Any]
    job: Job
    is_selected: bool
    file: str

    @property
    def weights(self) -> str:
        """Which of the training's weights these are."""
        epochs = self.row["epochs"]
        if self.is_selected:
            return f"of epoch {self.row['selected_epoch']} of {epochs}, the best in validation"
        return f"after the last of {epochs} epochs"

    @property
    def accuracy(self) -> float:
        """Of test images, with these weights."""
        return float(self.row["selected_accuracy" if self.is_selected else "accuracy"])
