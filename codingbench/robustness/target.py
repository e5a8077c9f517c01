"""A finished cell prepared for perturbation: its network, test images and adversarial images."""

from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from codingbench.cells.data import find_sources
from codingbench.cells.weights import LoadedCell
from codingbench.datasets import load
from codingbench.datasets.pixels import to_unit
from codingbench.robustness.attacks import BatchAttack
from codingbench.robustness.conditions import Plan
from codingbench.robustness.gradients import ImageGradient, has_gradient
from codingbench.training.evaluation import EVALUATION_BATCH, autocast, stream

Images = Float[Tensor, "image channel height width"]

_PROBED = 16
"""Number of images used to find out whether a coding has a gradient."""


class Target:
    """A trained network with the weights after the last epoch, and its first test images.

    Random codes are drawn as in the cell's own evaluation and are the same under every
    perturbation, so that conditions differ only by the perturbation. Attacks draw their own codes.

    Args:
        loaded: the finished cell.
        plan: what is measured.
        device: device of the network and the images.
        data_dir: folder of the data sets; None for the default.

    Raises:
        DatasetError: the data set cannot be found or downloaded.
    """

    def __init__(
        self, loaded: LoadedCell, plan: Plan, device: torch.device, data_dir: Path | None
    ) -> None:
        cell = self.cell = loaded.job.cell
        self.key: str = loaded.row["key"]
        self.loaded, self.plan, self.device = loaded, plan, device
        self.network = loaded.network_on(device)
        self.network.eval().requires_grad_(False)
        source = find_sources([loaded.job], data_dir)[cell.dataset]
        split = load(source, "test", min(plan.samples, cell.test_samples))
        self.images, self.labels = to_unit(split.images).to(device), split.labels.to(device)
        encoder = self.network.encoder
        self.gradient = ImageGradient(
            self.network,
            draws=1 if encoder.is_deterministic else plan.draws,
            precision=cell.precision,
            is_straight_through=not has_gradient(
                encoder, self.images[:_PROBED], self.stream("probe")
            ),
        )
        self._adversarial: dict[tuple[str, float], Images] = {}

    @property
    def num_steps(self) -> int:
        """T."""
        return self.cell.num_steps

    @property
    def emits(self) -> str:
        """Kind of values that the encoder emits."""
        return self.network.encoder.emits

    @property
    def iterations(self) -> int:
        """Number of steps of an iterated attack."""
        return self.plan.steps

    def stream(self, purpose: str) -> Generator:
        """Return the random numbers of one perturbation, the same for every cell."""
        return stream(self.plan.seed, f"robustness/{purpose}", self.device)

    def normal(self, purpose: str) -> Images:
        """Return a standard normal number for each value of the images.

        The numbers are drawn on the CPU: they are the same on every device and at every strength.
        """
        return torch.randn(self.images.shape, generator=self._cpu(purpose)).to(self.device)

    def uniform(self, purpose: str) -> Images:
        """Return a uniform number in [0, 1) for each value of the images, drawn on the CPU."""
        return torch.rand(self.images.shape, generator=self._cpu(purpose)).to(self.device)

    def _cpu(self, purpose: str) -> Generator:
        return stream(self.plan.seed, f"robustness/{purpose}")

    def right(self, images: Images) -> Bool[Tensor, "image"]:
        """Return which of the perturbed test images the network classifies correctly."""
        draws = stream(self.cell.seed, "test", self.device)
        right = []
        with torch.no_grad():
            for batch, labels in zip(
                images.split(EVALUATION_BATCH), self.labels.split(EVALUATION_BATCH), strict=True
            ):
                with autocast(self.device, self.cell.precision):
                    logits = self.network(batch, draws).float()
                right.append(logits.mean(0).argmax(1) == labels)
        return torch.cat(right).cpu()

    def adversarial(self, purpose: str, eps: float, attack: BatchAttack) -> Images:
        """Return the test images after an attack, which is carried out only once.

        Args:
            purpose: name of the random numbers, and together with ``eps`` of the result.
            eps: largest change of a pixel.
            attack: makes the images of one batch.
        """
        if (purpose, eps) not in self._adversarial:
            size = self.cell.micro_batch  # fits into memory because training did
            starts = range(0, len(self.images), size)
            pieces = [
                self._attacked(purpose, eps, slice(start, start + size), attack) for start in starts
            ]
            self._adversarial[purpose, eps] = torch.cat(pieces)
        return self._adversarial[purpose, eps]

    def _attacked(self, purpose: str, eps: float, batch: slice, attack: BatchAttack) -> Images:
        labels, draws = self.labels[batch], self.stream(f"{purpose}/{eps}/{batch.start}")
        return attack(self.images[batch], lambda x: self.gradient(x, labels, draws), batch)
