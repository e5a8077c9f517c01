"""A finished cell made ready to be perturbed: its network, test images, and adversarial images."""

from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from codingbench.cells.reevaluation import LoadedCell
from codingbench.cells.run import find_sources
from codingbench.datasets import load
from codingbench.datasets.pixels import to_unit
from codingbench.robustness.attacks import fgsm, pgd
from codingbench.robustness.conditions import Plan
from codingbench.robustness.gradients import ImageGradient, has_gradient
from codingbench.training.evaluation import EVALUATION_BATCH, autocast, stream

Images = Float[Tensor, "image channel height width"]

_PROBED = 16
"""Images that tell whether a coding has a gradient."""


class Target:
    """A trained network, with its weights after the last epoch, and its first test images.

    Random codes are drawn as in the cell's own evaluation, the same under every perturbation, so
    that conditions differ by the perturbation alone. Attackers draw codes of their own.

    Args:
        kept: the cell.
        plan: what is measured.
        device: where.
        data_dir: where data sets are.

    Raises:
        DatasetError: its data set is not to be had.
    """

    def __init__(
        self, kept: LoadedCell, plan: Plan, device: torch.device, data_dir: Path | None
    ) -> None:
        cell = self.cell = kept.job.cell
        self.key: str = kept.row["key"]
        self.kept, self.plan, self.device = kept, plan, device
        self.network = kept.network().to(device)
        self.network.eval().requires_grad_(False)
        source = find_sources([kept.job], data_dir)[cell.dataset]
        split = load(source, "test", min(plan.samples, cell.test_samples))
        self.images, self.labels = to_unit(split.images).to(device), split.labels.to(device)
        encoder = self.network.encoder
        self.gradient = ImageGradient(
            self.network,
            1 if encoder.is_deterministic else plan.draws,
            cell.precision,
            not has_gradient(encoder, self.images[:_PROBED], self.stream("probe")),
        )
        self._adversarial: dict[tuple[str, float], Images] = {}

    def stream(self, purpose: str) -> Generator:
        """Random numbers of one perturbation: the same for every cell."""
        return stream(self.plan.seed, f"robustness/{purpose}", self.device)

    def right(self, images: Images) -> Bool[Tensor, "image"]:
        """Which of the images, one for each test image, the network classifies as labelled."""
        draws = stream(self.cell.seed, "test", self.device)
        right = []
        with torch.no_grad():
            for some, labels in zip(
                images.split(EVALUATION_BATCH), self.labels.split(EVALUATION_BATCH), strict=True
            ):
                with autocast(self.device, self.cell.precision):
                    logits = self.network(some, draws).float()
                right.append(logits.mean(0).argmax(1) == labels)
        return torch.cat(right).cpu()

    def adversarial(self, attack: str, eps: float) -> Images:
        """The test images after ``fgsm`` or ``pgd``; they are made once."""
        if (attack, eps) not in self._adversarial:
            size = self.cell.micro_batch  # what fits when training fits here
            pieces = [
                self._attacked(attack, eps, slice(first, first + size))
                for first in range(0, len(self.images), size)
            ]
            self._adversarial[attack, eps] = torch.cat(pieces)
        return self._adversarial[attack, eps]

    def _attacked(self, attack: str, eps: float, some: slice) -> Images:
        images, labels = self.images[some], self.labels[some]
        draws = self.stream(f"{attack}/{eps}/{some.start}")

        def gradient(x: Tensor) -> Tensor:
            return self.gradient(x, labels, draws)

        if attack == "fgsm":
            return fgsm(images, gradient, eps)
        start = 2 * self.drawn(torch.rand, attack)[some] - 1
        step_size = eps * self.plan.step_share
        return pgd(images, gradient, eps, self.plan.steps, step_size, eps * start)

    def drawn(self, draw: Callable[..., Tensor], purpose: str) -> Images:
        """A number for every value of the images, by ``torch.rand`` or ``torch.randn``.

        Drawn on the CPU, so they are the same on every device; the same at every strength.
        """
        generator = stream(self.plan.seed, f"robustness/{purpose}")
        return draw(self.images.shape, generator=generator).to(self.device)
